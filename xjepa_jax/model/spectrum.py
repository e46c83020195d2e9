"""A layout as spatial frequencies: a cosine transform of the cells' numbers, low ones first.

Two sensors share mostly the low frequencies of a scene. Neighbouring cells are alike, so low
frequencies have most of the variance and dominate a scalar product, while high ones are mostly
noise. In the transform, one weight per frequency corrects both, and a descriptor can be truncated
where it is most informative: a prefix is a coarse layout, not a corner of the scene.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jax import Array

# How far each further number of a cell moves back in the order of a descriptor, relative to the
# first. Chosen on training and validation pairs; values from 0.6 to 3 performed alike.
_BEHIND = 1.5


def transform(cells: Array) -> Array:
  """The two-dimensional cosine transform (DCT-II, orthonormal) of the cells' numbers.

  Args:
    cells: (B, P, d), P = n * n in row-major order.

  Returns:
    (B, P, d), row-major frequencies (u, v), of which (0, 0) is n times the mean over the cells.
    Scalar products are the same as those of the cells.
  """
  return _apply(_cosines(_side(cells)), cells)


def inverse(spectrum: Array) -> Array:
  """The inverse of `transform`: cells (B, P, d) of a spectrum."""
  return _apply(_cosines(_side(spectrum)).T, spectrum)


@functools.lru_cache(maxsize=16)
def rings(side: int) -> np.ndarray:
  """(side * side,) int: the ring of similar frequencies that each belongs to; 0 is the constant.

  There are about three rings per factor of two in frequency. A ring then has enough frequencies to
  estimate its statistics from few scenes, and natural spectra change little within it.
  """
  steps = np.floor(2.5 * np.log2(1 + _radii(side)))
  return np.unique(steps, return_inverse=True)[1].reshape(-1)


def count_rings(side: int) -> int:
  """R, the number of rings of side x side cells."""
  return int(rings(side).max()) + 1


@functools.lru_cache(maxsize=16)
def order(side: int, numbers: int) -> np.ndarray:
  """(side * side * numbers,) int: the order of a flattened (P, numbers) spectrum, best first.

  Frequencies are ordered by their length, and a cell's later numbers come further behind: sensors
  share less of them, and least of their high frequencies.
  """
  key = (1 + _radii(side))[:, None] * (1 + _BEHIND * np.arange(numbers))
  return np.argsort(key.reshape(-1), kind="stable")


@functools.lru_cache(maxsize=16)
def _radii(side: int) -> np.ndarray:
  rows, columns = np.indices((side, side))
  return np.hypot(rows, columns).reshape(-1)


@functools.lru_cache(maxsize=16)
def _cosines(side: int) -> np.ndarray:
  """(side, side) float32, one frequency per row."""
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
