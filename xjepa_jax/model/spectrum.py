"""A layout in spatial frequencies: numbers of cells as a cosine transform, slow ones first.

What two sensors share of a scene is mostly its slow parts: neighbouring cells are alike, so the
slow frequencies have most of the variance and drown the rest in a scalar product, and the fast ones
are mostly noise. In the transform both are put right by a weight for each frequency, and a
descriptor can be cut where it has said most: its beginning is a coarse layout, not a corner of the
scene.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jax import Array

# Of how far a cell's next number stands behind its first in the order of a descriptor. Chosen on
# training and validation pairs: from .6 to 3 all did alike.
_BEHIND = 1.5


def transform(cells: Array) -> Array:
  """The two-dimensional cosine transform (DCT-II, orthonormal) of numbers of cells.

  Args:
    cells: (B, P, d), P = n * n in row-major order.

  Returns:
    (B, P, d), row-major frequencies (u, v), of which (0, 0) is the mean over the cells, times n.
    Scalar products are those of the cells.
  """
  return _apply(_cosines(_side(cells)), cells)


def inverse(spectrum: Array) -> Array:
  """The cells (B, P, d) of which `transform` made a spectrum."""
  return _apply(_cosines(_side(spectrum)).T, spectrum)


@functools.lru_cache(maxsize=16)
def rings(side: int) -> np.ndarray:
  """(side * side,) int: which ring of frequencies of like length each is in, 0 the constant alone.

  About three rings a factor of two in frequency: statistics of a ring are over enough frequencies
  to be known from few scenes, and a spectrum of natural scenes changes little within one.
  """
  steps = np.floor(2.5 * np.log2(1 + _radii(side)))
  return np.unique(steps, return_inverse=True)[1].reshape(-1)


def count_rings(side: int) -> int:
  """R, the number of rings of side x side cells."""
  return int(rings(side).max()) + 1


@functools.lru_cache(maxsize=16)
def order(side: int, numbers: int) -> np.ndarray:
  """(side * side * numbers,) int: places in a flattened (P, numbers) spectrum, those kept first.

  A frequency's place in the order is its length, a cell's later numbers stand further behind: they
  are shared less, and fast ones least.
  """
  key = (1 + _radii(side))[:, None] * (1 + _BEHIND * np.arange(numbers))
  return np.argsort(key.reshape(-1), kind="stable")


@functools.lru_cache(maxsize=16)
def _radii(side: int) -> np.ndarray:
  rows, columns = np.indices((side, side))
  return np.hypot(rows, columns).reshape(-1)


@functools.lru_cache(maxsize=16)
def _cosines(side: int) -> np.ndarray:
  """(side, side) float32, a row a frequency."""
  places, frequencies = np.arange(side) + 0.5, np.arange(side)[:, None]
  found = np.cos(np.pi * frequencies * places / side) * np.sqrt(2 / side)
  found[0] /= np.sqrt(2)
  return found.astype(np.float32)


def _apply(matrix: np.ndarray, cells: Array) -> Array:
  side = len(matrix)
  x = cells.reshape(len(cells), side, side, -1)
  x = jnp.einsum("ur,brcd->bucd", matrix, x, precision="highest")
  return jnp.einsum("vc,bucd->buvd", matrix, x, precision="highest").reshape(cells.shape)


def _side(cells: Array) -> int:
  return round(cells.shape[1] ** 0.5)
