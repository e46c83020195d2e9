"""The retrieval grid: order, ranks, and the true scene framed where the ranking says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xjepa_jax.data.sheet import TRUE
from xjepa_jax.report.findings import Findings
from xjepa_jax.report.retrieval_grid import FRAME, SIDE, examples_of, place, retrieval_grid


def blank(sensor: str, number: int) -> np.ndarray:
  return np.full((2, 2, 3), number, np.uint8)


@given(
  st.lists(st.lists(st.integers(0, 4), min_size=7, max_size=7), min_size=1, max_size=4),
  st.integers(0, 6),
)
@settings(max_examples=50, deadline=None)
def test_answers_are_the_best_scores_and_ranks_are_counted(rows: list[list[int]], own: int) -> None:
  scores = np.array(rows, float) / 4  # with many ties
  found = examples_of("a->b", scores, [own] * len(rows), list("abcdefg"), blank)
  for row, example in zip(scores, found, strict=True):
    order = sorted(range(7), key=lambda i: (-row[i], i))
    assert [answer.pair_id for answer in example.answers] == ["abcdefg"[i] for i in order[:5]]
    assert [answer.score for answer in example.answers] == sorted(row, reverse=True)[:5]
    assert example.true_rank == 1 + order.index(own)
    true = [rank for rank, answer in enumerate(example.answers, 1) if answer.true]
    assert true == ([example.true_rank] if example.true_rank <= 5 else [])


def test_the_true_scene_is_framed_where_the_ranking_says_and_nothing_else(
  findings: Findings,
) -> None:
  examples = findings.examples
  pixels = np.asarray(retrieval_grid(examples))
  assert [example.true_rank for example in examples] == [1, 3, 8, 1, 3, 8]
  for number, example in enumerate(examples):
    for column in range(len(example.answers) + 1):
      left, top = place(examples, number, column)
      frame = pixels[top + SIDE // 2, left - FRAME : left]
      framed = bool((frame == TRUE).all())
      assert framed == (column == example.true_rank), (number, column)
      shown = example.answers[column - 1].picture if column else example.picture
      tile = pixels[top : top + SIDE, left : left + SIDE]
      np.testing.assert_array_equal(tile, np.broadcast_to(shown[0, 0], tile.shape))


def test_a_grid_of_nothing_is_refused() -> None:
  with pytest.raises(ValueError, match="at least one"):
    retrieval_grid([])


def test_pictures_of_any_shape_keep_theirs(findings: Findings) -> None:
  from xjepa_jax.data.sheet import tile

  wide = np.zeros((10, 20, 3), np.uint8)
  wide[:, 10:] = 255
  square = np.asarray(tile(wide, 40))
  assert square.shape == (40, 40, 3)
  assert (square[10:30, :20] == 0).all() and (square[10:30, 20:] == 255).all()
  assert (square[:10] == square[0, 0]).all() and 200 < square[0, 0, 0] < 255
