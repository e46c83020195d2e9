"""Descriptors in smaller sizes: fewer bits per number, or fewer numbers.

Only the archive is quantised. A query is compared in float32, except for Hamming distances, where
both sides are reduced to signs.
"""

from __future__ import annotations

import numpy as np

from xjepa_jax.errors import EvaluationError
from xjepa_jax.retrieval.embedding import quantisation

# "binary": the archive's signs against a float32 query; "hamming": signs against signs.
KINDS = (*quantisation.QUANTISATIONS, "binary", "hamming")
_SCALE_BYTES = 4
_BYTES = {"float32": 4, "float16": 2, "int8": 1}


def bytes_a_vector(size: int, kind: str) -> int:
  """Storage of a vector of `size` numbers in bytes, including the scale of int8.

  Raises:
    EvaluationError: no such kind.
  """
  if kind in ("binary", "hamming"):
    return -(-size // 8)
  if kind not in _BYTES:
    raise EvaluationError(f"no quantisation {kind!r}; there are {', '.join(KINDS)}.")
  return size * _BYTES[kind] + (_SCALE_BYTES if kind == "int8" else 0)


def cut(vectors: np.ndarray, size: int) -> np.ndarray:
  """The first `size` numbers of vectors (n, K), normalised again; null vectors stay null.

  Raises:
    EvaluationError: the vectors are shorter.
  """
  if not 1 <= size <= vectors.shape[1]:
    raise EvaluationError(f"vectors of {vectors.shape[1]} numbers cannot be cut to {size}.")
  return quantisation.restore(vectors[:, :size], None)


def signs_packed(vectors: np.ndarray) -> np.ndarray:
  """(n, ceil(K / 8)) uint8: one bit per number of (n, K), 1 if above 0, highest bit first."""
  return np.packbits(vectors > 0, axis=1)


def signs_restored(codes: np.ndarray, size: int) -> np.ndarray:
  """(n, size) float32 of unit length from packed signs: +1 or -1, divided by sqrt(size)."""
  bits = np.unpackbits(codes, axis=1, count=size).astype(np.float32)
  return (2 * bits - 1) / np.float32(np.sqrt(size))


def hamming(queries: np.ndarray, archive: np.ndarray) -> np.ndarray:
  """(Q, A) int, number of differing bits; ranks exactly as the inner product of the signs does."""
  differing = queries[:, None] ^ archive[None]
  return np.bitwise_count(differing).sum(axis=2, dtype=np.int64)


def archive_side(vectors: np.ndarray, kind: str) -> np.ndarray:
  """(n, K) float32 of unit length: vectors after a round trip through storage as `kind`.

  Raises:
    EvaluationError: no such kind.
  """
  if kind in ("binary", "hamming"):
    return signs_restored(signs_packed(vectors), vectors.shape[1])
  if kind not in _BYTES:
    raise EvaluationError(f"no quantisation {kind!r}; there are {', '.join(KINDS)}.")
  return quantisation.restore(*quantisation.quantise(vectors, kind))


def query_side(vectors: np.ndarray, kind: str) -> np.ndarray:
  """(n, K) float32 of unit length: query vectors as `kind` compares them."""
  return archive_side(vectors, kind) if kind == "hamming" else vectors
