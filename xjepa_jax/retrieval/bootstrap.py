"""How far a mean over queries could be off: bootstrap intervals (Efron 1979), by percentiles.

Queries are drawn anew with replacement, the archive stays. One set of draws serves all metrics of
the same queries, so their intervals can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
_SEED = 0
_DRAWN = 1 << 22  # counts held at a time: 32 MiB


def resampled_means(
  values: np.ndarray, resamples: int = RESAMPLES, seed: int = _SEED
) -> np.ndarray:
  """Means of the columns over queries drawn with replacement.

  Args:
    values: (Q, M) of Q queries, one at least.
    resamples: how often they are drawn, R.
    seed: of the draws.

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
    part[:] = rng.multinomial(queries, shares, size=len(part)) @ values / queries
  return means


def interval(means: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
  """The middle `level` of resampled values (R,): its lower and its upper end."""
  outside = (1 - level) / 2
  low, high = np.quantile(means, (outside, 1 - outside))
  return float(low), float(high)


def f1_of_means(means: np.ndarray) -> np.ndarray:
  """(R,) F1 of mean precision and mean recall (R, 2)."""
  precision, recall = means.T
  total = precision + recall
  return np.where(total > 0, 2 * precision * recall / np.where(total > 0, total, 1.0), 0.0)


def intervals(
  columns: Sequence[np.ndarray], resamples: int = RESAMPLES, seed: int = _SEED
) -> list[tuple[float, float]]:
  """Intervals of several metrics of the same queries.

  Args:
    columns: of each metric (Q,), whose mean it is, or (Q, 2), of whose means it is the F1.
    resamples, seed: of the draws.

  Returns:
    Lower and upper end of each.
  """
  if not columns:
    return []
  wide = [column.reshape(len(column), -1) for column in columns]
  means = resampled_means(np.concatenate(wide, axis=1), resamples, seed)
  ends = np.cumsum([column.shape[1] for column in wide])
  return [
    interval(f1_of_means(part) if part.shape[1] == 2 else part[:, 0])
    for part in np.split(means, ends[:-1], axis=1)
  ]
