"""Bootstrap intervals against SciPy's, and their statistical promise."""

from __future__ import annotations

import numpy as np
from scipy import stats

from xjepa_jax.retrieval.bootstrap import interval, intervals, resampled_means

RNG = np.random.default_rng(0)
HITS = (RNG.random(150) < 0.3).astype(float)
PARTS = RNG.random((150, 2))


def test_the_interval_of_a_mean_is_that_of_scipy_up_to_its_lots() -> None:
  found = interval(resampled_means(HITS[:, None], 20_000)[:, 0])
  expected = stats.bootstrap(
    (HITS,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
  ).confidence_interval
  np.testing.assert_allclose(found, expected, atol=0.007)  # one hit more or less is 1 / 150


def test_the_interval_of_an_f1_of_means_is_that_of_scipy() -> None:
  def f1(precision: np.ndarray, recall: np.ndarray, axis: int = -1) -> np.ndarray:
    p, r = precision.mean(axis), recall.mean(axis)
    return 2 * p * r / (p + r)

  ((low, high),) = intervals([PARTS], 10_000)
  expected = stats.bootstrap(
    (PARTS[:, 0], PARTS[:, 1]),
    f1,
    n_resamples=10_000,
    method="percentile",
    paired=True,
    vectorized=True,
    rng=np.random.default_rng(1),
  ).confidence_interval
  np.testing.assert_allclose((low, high), expected, atol=2e-3)


def test_the_same_seed_gives_the_same_lots_to_every_metric() -> None:
  together = intervals([HITS, PARTS, 1 - HITS], 500)
  assert together == [intervals([each], 500)[0] for each in (HITS, PARTS, 1 - HITS)]
  assert together[0][0] == 1 - together[2][1] or np.isclose(together[0][0], 1 - together[2][1])


def test_many_queries_are_drawn_in_parts_that_change_nothing(monkeypatch: object) -> None:
  from xjepa_jax.retrieval import bootstrap

  whole = resampled_means(HITS[:, None], 64)
  monkeypatch.setattr(bootstrap, "_DRAWN", 450)  # type: ignore[attr-defined]
  np.testing.assert_array_equal(resampled_means(HITS[:, None], 64), whole)


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
  inside = 0
  for trial in range(300):
    hits = (np.random.default_rng(trial).random(200) < 0.4).astype(float)
    low, high = interval(resampled_means(hits[:, None], 400, seed=trial)[:, 0])
    inside += low <= 0.4 <= high
  assert stats.binomtest(inside, 300, 0.95).pvalue > 1e-3
