"""Descriptors as they are stored: float32, float16, or int8 with a scale a row."""

from __future__ import annotations

import numpy as np

QUANTISATIONS = ("float32", "float16", "int8")
_LEVELS = 127  # -128 is not used, so that a vector and its negative are stored alike


def quantise(vectors: np.ndarray, quantisation: str) -> tuple[np.ndarray, np.ndarray | None]:
  """Vectors as a part stores them.

  Args:
    vectors: (n, K) float32.
    quantisation: one of `QUANTISATIONS`.

  Returns:
    (n, K) of that type, and for int8 the (n,) float32 scales, else None. A row's largest component
    becomes 127, unless it is hardly more than 0; the error is at most scale / 2 in each component.
  """
  if quantisation != "int8":
    return vectors.astype(quantisation), None
  largest = np.abs(vectors).max(axis=1, initial=0.0)
  # The smallest normal number: below it, a scale would lose its digits, and at last be 0.
  scale = np.maximum(largest / np.float32(_LEVELS), np.finfo(np.float32).tiny).astype(np.float32)
  return np.rint(vectors / scale[:, None]).astype(np.int8), scale


def restore(stored: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
  """(n, K) float32 of length 1 from stored vectors; a vector of zeros stays one.

  A scale takes no part in it: it changes a vector's length only. It is there for those who want
  the values as they were.
  """
  values = stored.astype(np.float32)
  if scale is not None:
    values *= scale[:, None]
  length = np.linalg.norm(values, axis=1, keepdims=True)
  return values / np.maximum(length, np.finfo(np.float32).tiny)
