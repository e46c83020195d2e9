"""Rankings: the order of scores, ties by archive index, self-matches left out, bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xjepa_jax.errors import EvaluationError
from xjepa_jax.retrieval import ranking

SEEDS = st.integers(0, 2**32 - 1)


def brute(scores: np.ndarray, left_out: int = -1) -> list[int]:
  """One query's ranking by Python's sort of (score, index)."""
  entries = [i for i in range(len(scores)) if i != left_out]
  return sorted(entries, key=lambda i: (-scores[i], i))


@given(SEEDS, st.integers(1, 6), st.integers(2, 12), st.booleans())
@settings(deadline=None)
def test_ranking_and_its_head_and_places_are_those_of_a_sorted_list(
  seed: int, queries: int, archive: int, leave_out: bool
) -> None:
  rng = np.random.default_rng(seed)
  scores = rng.integers(0, 4, (queries, archive)).astype(np.float32)  # many ties
  exclude = rng.integers(0, archive, queries) if leave_out else np.full(queries, -1)
  expected = np.array([brute(*row) for row in zip(scores, exclude, strict=True)])
  np.testing.assert_array_equal(ranking.ranked(scores, exclude if leave_out else None), expected)
  for k in range(1, archive + 1 - leave_out):
    np.testing.assert_array_equal(ranking.first(scores, k, exclude), expected[:, :k])
  item = expected[np.arange(queries), rng.integers(0, expected.shape[1], queries)]
  places = [row.index(i) + 1 for row, i in zip(expected.tolist(), item, strict=True)]
  np.testing.assert_array_equal(ranking.places(scores, item, exclude), places)


def test_some_queries_may_have_an_entry_to_leave_out_and_others_none() -> None:
  scores = np.array([[3.0, 2.0, 1.0]] * 2, np.float32)
  best = ranking.first(scores, 2, np.array([0, -1]))
  assert best.tolist() == [[1, 2], [0, 1]]


@pytest.mark.parametrize("block", [1, 7, 50, 10_000])
def test_top_is_the_same_whatever_the_size_of_its_blocks(
  block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
  rng = np.random.default_rng(0)
  # Integers: products are exact, so duplicates tie exactly.
  queries = rng.integers(-2, 3, (23, 4)).astype(np.float32)
  archive = rng.integers(-2, 3, (17, 4)).astype(np.float32)
  exclude = rng.integers(-1, 17, 23)
  monkeypatch.setattr(ranking, "BLOCK_SCORES", block)
  indices, scores = ranking.top(queries, archive, 5, exclude)
  whole = queries @ archive.T
  expected = [brute(row, out)[:5] for row, out in zip(whole, exclude, strict=True)]
  np.testing.assert_array_equal(indices, expected)
  np.testing.assert_array_equal(scores, np.take_along_axis(whole, indices, axis=1))


def test_blocks_of_scores_stay_within_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(ranking, "BLOCK_SCORES", 100)
  blocks = list(ranking.score_blocks(np.ones((50, 2)), np.ones((30, 2))))
  assert max(block.size for _, block in blocks) == 90
  assert np.concatenate([np.arange(50)[rows] for rows, _ in blocks]).tolist() == list(range(50))


def test_scores_without_an_order_are_refused() -> None:
  scores = np.zeros((3, 4), np.float32)
  scores[1, 2] = np.nan
  with pytest.raises(EvaluationError, match="query 1 and archive entry 2"):
    ranking.ranked(scores)
  with pytest.raises(EvaluationError, match="floating point"):
    ranking.first(np.zeros((3, 4), np.uint8), 1)
  with pytest.raises(EvaluationError, match="3 answers"):
    ranking.first(np.zeros((1, 4), np.float32), 4, np.array([2]))
  with pytest.raises(EvaluationError, match="one index from 0 to 3"):
    ranking.ranked(np.zeros((1, 4), np.float32), np.array([-1]))
  descriptors = np.ones((3, 2))
  descriptors[2, 0] = np.inf
  with pytest.raises(EvaluationError, match="archive' descriptor 2"):
    ranking.top(np.ones((1, 2)), descriptors, 1)
  with pytest.raises(EvaluationError, match="one size K"):
    ranking.top(np.ones((1, 2)), np.ones((1, 3)), 1)
