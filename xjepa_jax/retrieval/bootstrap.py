"""Bootstrap intervals (Efron 1979, percentile method) for means over queries.

Queries are resampled with replacement while the archive stays fixed. All metrics of the same
queries share one set of draws, so that their intervals can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
_SEED = 0
_DRAWN = 1 << 22  # maximum number of counts in memory at a time: 32 MiB


def resampled_means(
  values: np.ndarray, resamples: int = RESAMPLES, seed: int = _SEED
) -> np.ndarray:
  """Column means over queries drawn with replacement.

  Args:
    values: (Q, M), M values for each of Q >= 1 queries.
    resamples: number of resamples, R.
    seed: random seed of the draws.

  Returns:
    (R, M) float64.
  """
  queries = len(values)
  rng = np.random.default_rng(seed)
  shares = np.full(queries, 1 / queries)
  means = np.empty((resamples, values.shape[1]))
  rows = max(1, _DRAWN // queries)
  for start in range(0, resamples, rows):
    part = means[start : start + rows]
    # Resampling Q queries with replacement is the same as drawing how often each one occurs.
    part[:] = rng.multinomial(queries, shares, size=len(part)) @ values / queries
  return means


def interval(means: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
  """Lower and upper end of the central `level` of resampled values (R,)."""
  outside = (1 - level) / 2
  low, high = np.quantile(means, (outside, 1 - outside))
  return float(low), float(high)


def f1_of_means(means: np.ndarray) -> np.ndarray:
  """(R,) F1 of mean precision and mean recall, the two columns of (R, 2)."""
  precision, recall = means.T
  total = precision + recall
  return np.where(total > 0, 2 * precision * recall / np.where(total > 0, total, 1.0), 0.0)


def intervals(
  columns: Sequence[np.ndarray], resamples: int = RESAMPLES, seed: int = _SEED
) -> list[tuple[float, float]]:
  """Confidence intervals of several metrics of the same queries.

  Args:
    columns: one array per metric: (Q,) if the metric is a mean, (Q, 2) if it is the F1 of the two
      column means (precision and recall).
    resamples, seed: as for `resampled_means`.

  Returns:
    (lower, upper) for each metric.
  """
  if not columns:
    return []
  wide = [column.reshape(len(column), -1) for column in columns]
  # All columns share one set of draws, so that their intervals can be compared.
  means = resampled_means(np.concatenate(wide, axis=1), resamples, seed)
  ends = np.cumsum([column.shape[1] for column in wide])
  return [
    interval(f1_of_means(part) if part.shape[1] == 2 else part[:, 0])
    for part in np.split(means, ends[:-1], axis=1)
  ]
