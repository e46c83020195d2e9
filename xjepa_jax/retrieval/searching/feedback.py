"""Relevance feedback: several examples as one query, like these and unlike those."""

from __future__ import annotations

import numpy as np

from xjepa_jax.errors import SearchError

NEGATIVE = 0.5  # weight of negative examples; Rocchio's customary value is between .15 and .75


def combine(
  positive: np.ndarray, negative: np.ndarray | None = None, weight: float = NEGATIVE
) -> np.ndarray:
  """Return the mean of the positive examples minus a part of the mean of the negative ones.

  This is Rocchio's method (1971), with the result normalised.

  Args:
    positive: (P, K) descriptors of length 1, at least one.
    negative: (N, K), or None.
    weight: weight of the negative examples' mean.

  Returns:
    (K,) float32 of length 1.

  Raises:
    SearchError: there is no positive example, or the negative ones cancel the positive ones.
  """
  if not len(positive):
    raise SearchError("a query needs at least one example of what is wanted.")
  wanted = np.mean(positive, axis=0, dtype=np.float64)
  if negative is not None and len(negative):
    wanted = wanted - weight * np.mean(negative, axis=0, dtype=np.float64)
  length = np.linalg.norm(wanted)
  if length < 1e-6:
    raise SearchError("the examples cancel one another: leave some of them out.")
  return np.asarray(wanted / length, np.float32)
