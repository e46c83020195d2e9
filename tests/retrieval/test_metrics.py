"""Metrics against trec_eval, against loops that follow the definitions, and against lots drawn."""

from __future__ import annotations

import itertools
import math
from itertools import combinations

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from xjepa_jax.errors import EvaluationError
from xjepa_jax.retrieval import expected_by_chance, metrics

QUERIES, ARCHIVE = 40, 25


@pytest.fixture(scope="module")
def graded() -> tuple[np.ndarray, np.ndarray]:
  """Scores (Q, A) without ties and grades 0..4; some queries have nothing relevant."""
  rng = np.random.default_rng(1)
  grades = rng.integers(0, 5, (QUERIES, ARCHIVE)) * (rng.random((QUERIES, ARCHIVE)) < 0.3)
  grades[:3] = 0
  scores = rng.permuted(np.tile(np.arange(ARCHIVE, dtype=float), (QUERIES, 1)), axis=1)
  return scores, grades


def trec(scores: np.ndarray, grades: np.ndarray, measures: set[str]) -> dict[str, dict[str, float]]:
  """trec_eval's values, query by query."""
  run = {
    f"q{q}": {f"d{a}": float(value) for a, value in enumerate(row)} for q, row in enumerate(scores)
  }
  qrel = {
    f"q{q}": {f"d{a}": int(value) for a, value in enumerate(row)} for q, row in enumerate(grades)
  }
  return pytrec_eval.RelevanceEvaluator(qrel, measures).evaluate(run)


@pytest.mark.parametrize("k", [1, 5, 10])
def test_map_over_all_relevant_and_ndcg_and_precision_are_those_of_trec_eval(
  graded: tuple[np.ndarray, np.ndarray], k: int
) -> None:
  scores, grades = graded
  order = np.argsort(-scores, axis=1)
  gains = np.take_along_axis(grades, order, axis=1)
  ideal = -np.sort(-grades, axis=1)
  expected = trec(scores, grades, {f"map_cut.{k}", f"ndcg_cut.{k}", f"P.{k}"})
  ours = {
    f"map_cut_{k}": metrics.average_precision_at(gains, k, "relevant", (grades > 0).sum(axis=1)),
    f"ndcg_cut_{k}": metrics.ndcg_at(gains, ideal, k),
    f"P_{k}": metrics.precision_at(gains, k),
  }
  for name, values in ours.items():
    for q in range(QUERIES):
      assert values[q] == pytest.approx(expected[f"q{q}"][name], abs=1e-6), (name, q)


def test_reciprocal_rank_is_that_of_trec_eval_with_one_relevant_item() -> None:
  rng = np.random.default_rng(2)
  scores = rng.random((QUERIES, ARCHIVE))
  item = rng.integers(0, ARCHIVE, QUERIES)
  expected = trec(scores, np.eye(ARCHIVE)[item], {"recip_rank"})
  place = 1 + np.sum(scores > scores[np.arange(QUERIES), item][:, None], axis=1)
  for q, value in enumerate(metrics.reciprocal_rank(place)):
    assert value == pytest.approx(expected[f"q{q}"]["recip_rank"], abs=1e-6)


def loop_average_precision(gains: np.ndarray, k: int, denominator: str, relevant: int) -> float:
  hits, total = 0, 0.0
  for place, gain in enumerate(gains[:k], start=1):
    if gain > 0:
      hits += 1
      total += hits / place
  count = {"hits": hits, "relevant": relevant, "reachable": min(relevant, k)}[denominator]
  return total / count if count else 0.0


@pytest.mark.parametrize("denominator", metrics.DENOMINATORS)
def test_average_precision_divides_by_what_its_denominator_names(
  graded: tuple[np.ndarray, np.ndarray], denominator: str
) -> None:
  _, gains = graded
  relevant = (gains > 0).sum(axis=1)
  for k in (1, 4, 10):
    expected = [
      loop_average_precision(g, k, denominator, r) for g, r in zip(gains, relevant, strict=True)
    ]
    ours = metrics.average_precision_at(gains, k, denominator, relevant)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_the_three_denominators_by_hand() -> None:
  gains = np.array([[1, 0, 1, 0, 0]])  # (1 + 2/3) = 5/3
  relevant = np.array([9])
  values = {
    name: float(metrics.average_precision_at(gains, 5, name, relevant)[0])
    for name in metrics.DENOMINATORS
  }
  assert values == pytest.approx({"hits": 5 / 6, "relevant": 5 / 27, "reachable": 1 / 3})


def test_recall_is_one_from_the_true_answers_place_on() -> None:
  assert metrics.recall_at(np.array([1, 5, 6, 11]), 5).tolist() == [1, 1, 0, 0]


def loop_f1(query: np.ndarray, retrieved: np.ndarray) -> tuple[float, list[float], list[float]]:
  """The three definitions of F1@k, label set by label set."""

  def f1(p: float, r: float) -> float:
    return 2 * p * r / (p + r) if p + r else 0.0

  every: list[list[tuple[float, float]]] = []
  for labels, answers in zip(query, retrieved, strict=True):
    q = set(np.flatnonzero(labels))
    sets = [set(np.flatnonzero(answer)) for answer in answers]
    every.append(
      [(len(q & r) / len(r) if r else 0.0, len(q & r) / len(q) if q else 0.0) for r in sets]
    )
  flat = list(itertools.chain.from_iterable(every))
  means = [(sum(p for p, _ in row) / len(row), sum(r for _, r in row) / len(row)) for row in every]
  whole = (sum(p for p, _ in flat) / len(flat), sum(r for _, r in flat) / len(flat))
  items = [sum(f1(p, r) for p, r in row) / len(row) for row in every]
  return f1(*whole), [f1(*mean) for mean in means], items


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.9))
@settings(deadline=None)
def test_three_f1_are_their_definitions_and_fall_in_order(seed: int, density: float) -> None:
  rng = np.random.default_rng(seed)
  query = rng.random((6, 5)) < density  # empty label sets included
  retrieved = rng.random((6, 4, 5)) < density
  one, two, three = loop_f1(query, retrieved)
  ours = (
    metrics.f1_csmae(query, retrieved),
    metrics.f1_query(query, retrieved),
    metrics.f1_item(query, retrieved),
  )
  assert ours[0] == pytest.approx(one, abs=1e-12)
  np.testing.assert_allclose(ours[1], two, atol=1e-12)
  np.testing.assert_allclose(ours[2], three, atol=1e-12)
  assert ours[0] >= ours[1].mean() - 1e-12 and ours[1].mean() >= ours[2].mean() - 1e-12


def test_the_three_f1_differ_by_hand() -> None:
  query = np.array([[1, 1, 0, 0]], bool)
  # P, R = 1, 1/2 and 1/4 * 2 = 1/2, 1: F1 2/3 and 2/3; means 3/4, 3/4.
  retrieved = np.array([[[1, 0, 0, 0], [1, 1, 1, 1]]], bool)
  assert metrics.f1_item(query, retrieved)[0] == pytest.approx(2 / 3)
  assert metrics.f1_query(query, retrieved)[0] == pytest.approx(3 / 4)
  # With a query that finds nothing: means over all 3/8, 3/8.
  query, retrieved = np.tile(query, (2, 1)), np.concatenate([retrieved, np.zeros((1, 2, 4), bool)])
  assert metrics.f1_csmae(query, retrieved) == pytest.approx(3 / 8)


def test_empty_label_sets_score_zero_and_never_nan() -> None:
  nothing, something = np.zeros((1, 3), bool), np.array([[1, 0, 1]], bool)
  for query, answer in ((nothing, something), (something, nothing), (nothing, nothing)):
    retrieved = np.repeat(answer[:, None], 2, axis=1)
    assert metrics.f1_csmae(query, retrieved) == 0
    assert metrics.f1_query(query, retrieved).tolist() == [0]
    assert metrics.f1_item(query, retrieved).tolist() == [0]
  assert metrics.f1_csmae(np.zeros((0, 3), bool), np.zeros((0, 5, 3), bool)) == 0


@pytest.mark.parametrize("answers", [3, 5])
def test_chance_is_the_mean_over_all_permutations(answers: int) -> None:
  gains = np.array([2, 1, 0, 0, 1][:answers])
  orders = np.array(list(itertools.permutations(range(answers))))
  ranked, ideal = gains[orders], -np.sort(-gains)[None]
  relevant, count = np.array([(gains > 0).sum()]), np.array([answers])
  place = 1 + np.argmax(orders == 0, axis=1)
  assert expected_by_chance.reciprocal_rank(count)[0] == pytest.approx(np.mean(1 / place))
  for k in range(1, answers + 1):
    assert expected_by_chance.recall_at(count, k)[0] == pytest.approx(np.mean(place <= k))
    for denominator in metrics.DENOMINATORS:
      each = metrics.average_precision_at(ranked, k, denominator, np.tile(relevant, len(orders)))
      by_lot = expected_by_chance.average_precision_at(relevant, count, k, denominator)
      assert by_lot[0] == pytest.approx(each.mean()), (k, denominator)
    ndcg = metrics.ndcg_at(ranked, np.tile(ideal, (len(orders), 1)), k).mean()
    assert expected_by_chance.ndcg_at(np.array([gains.mean()]), ideal, k)[0] == pytest.approx(ndcg)
    precision = metrics.precision_at(ranked, k).mean()
    assert expected_by_chance.precision_at(relevant, count)[0] == pytest.approx(precision)


@given(st.integers(10, 3000), st.integers(0, 3000))
@settings(deadline=None, max_examples=30)
def test_the_number_of_hits_by_lot_is_hypergeometric(answers: int, relevant: int) -> None:
  relevant = min(relevant, answers)
  hits = np.arange(1, 11)
  # Given h hits among 10, the mean precision at the hits is a mean over their placements.
  given = [
    np.mean([np.mean(np.arange(1, h + 1) / np.array(c)) for c in combinations(range(1, 11), h)])
    for h in hits.tolist()
  ]
  expected = stats.hypergeom.pmf(hits, answers, relevant, 10) @ given
  arguments = np.array([relevant]), np.array([answers]), 10, "hits"
  ours = expected_by_chance.average_precision_at(*arguments)[0]
  assert ours == pytest.approx(expected, rel=1e-8, abs=1e-12)


def test_chance_is_zero_where_nothing_is_relevant() -> None:
  for denominator in metrics.DENOMINATORS:
    value = expected_by_chance.average_precision_at(np.array([0]), np.array([7]), 3, denominator)[0]
    assert value == 0 and not math.isnan(value)
  assert expected_by_chance.ndcg_at(np.zeros(1), np.zeros((1, 3)), 3).tolist() == [0]


def test_impossible_requests_are_refused() -> None:
  gains = np.ones((2, 3))
  with pytest.raises(EvaluationError, match="at least k = 4"):
    metrics.precision_at(gains, 4)
  with pytest.raises(EvaluationError, match="denominator 'all'"):
    metrics.average_precision_at(gains, 1, "all")
  with pytest.raises(EvaluationError, match="needs `relevant`"):
    metrics.average_precision_at(gains, 1, "relevant")
  with pytest.raises(EvaluationError, match="labels of queries"):
    metrics.f1_item(np.ones((2, 3), bool), np.ones((2, 5, 4), bool))
