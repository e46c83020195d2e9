"""Storage formats of descriptors: float32, float16, or int8 with one scale per row.

Only directions matter, since descriptors are compared by cosine: `restore` always returns unit
vectors.
"""

from __future__ import annotations

import numpy as np

QUANTISATIONS = ("float32", "float16", "int8")
_LEVELS = 127  # -128 is not used, so that a vector and its negative quantise alike


def quantise(vectors: np.ndarray, quantisation: str) -> tuple[np.ndarray, np.ndarray | None]:
  """Quantises vectors for storage in a part.

  Args:
    vectors: (n, K) float32.
    quantisation: one of `QUANTISATIONS`.

  Returns:
    (n, K) of that type, and for int8 the (n,) float32 scales, else None. A row's largest component
    becomes 127, unless it is close to 0; the error of each component is at most scale / 2.
  """
  if quantisation != "int8":
    return vectors.astype(quantisation), None
  largest = np.abs(vectors).max(axis=1, initial=0.0)
  # The smallest normal float32: a smaller scale would lose digits, and finally become 0.
  scale = np.maximum(largest / np.float32(_LEVELS), np.finfo(np.float32).tiny).astype(np.float32)
  return np.rint(vectors / scale[:, None]).astype(np.int8), scale


def restore(stored: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
  """(n, K) float32 of unit length from stored vectors; a null vector stays null.

  The scale has no influence on the result, since it changes only a vector's length. It is stored
  for readers that want the original values.
  """
  values = stored.astype(np.float32)
  if scale is not None:
    values *= scale[:, None]
  length = np.linalg.norm(values, axis=1, keepdims=True)
  return values / np.maximum(length, np.finfo(np.float32).tiny)
