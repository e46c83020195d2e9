"""Token positions: coordinates in patches or metres, as sine and cosine embeddings or rotations.

Embeddings are added to tokens before the first layer. Rotations turn queries and keys in every
layer, so that attention depends on differences of positions only.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

METRES_A_UNIT = 80.0  # a patch of 8 pixels of 10 m, for which "metres" and "patches" agree
_BASE = 10_000.0  # of Vaswani et al. 2017


def coordinates(grid: tuple[int, int], spacing: float = 1.0) -> np.ndarray:
  """Row and column of each token of a grid.

  Args:
    grid: rows and columns.
    spacing: distance between neighbouring tokens, in the unit of the positions.

  Returns:
    (N, 2) float32, row-major.
  """
  rows, columns = np.indices(grid, dtype=np.float32)
  return np.stack([rows.ravel(), columns.ravel()], axis=-1) * np.float32(spacing)


def spacing(unit: str, metres: float) -> float:
  """Distance of neighbouring tokens: 1 for "patches", `metres` / `METRES_A_UNIT` for "metres"."""
  return 1.0 if unit == "patches" else metres / METRES_A_UNIT


def sincos(places: np.ndarray, width: int) -> np.ndarray:
  """Fixed embeddings of positions (Vaswani et al. 2017, in two dimensions).

  Args:
    places: (N, 2) coordinates.
    width: D, a multiple of 4: one quarter each for sines and cosines of the row and the column.

  Returns:
    (N, D) float32.
  """
  quarter = width // 4
  rates = 1.0 / _BASE ** (np.arange(quarter, dtype=np.float64) / quarter)
  angles = places[:, :, None].astype(np.float64) * rates
  parts = [np.sin(angles[:, 0]), np.cos(angles[:, 0]), np.sin(angles[:, 1]), np.cos(angles[:, 1])]
  return np.concatenate(parts, axis=-1).astype(np.float32)


def rotate(heads: Array, places: Array) -> Array:
  """Rotate queries or keys by their position (RoPE, Su et al. 2021, in two dimensions).

  The dot product of a query and a key then depends on the difference of their positions. The
  first half of each head is rotated by the row, the second by the column.

  Args:
    heads: (..., N, heads, d), d a multiple of 4.
    places: (..., N, 2) coordinates.

  Returns:
    An array of the same shape and type as `heads`.
  """
  quarter = heads.shape[-1] // 4
  rates = jnp.asarray(1.0 / 100.0 ** (np.arange(quarter) / quarter), jnp.float32)
  angles = places[..., None, :, None] * rates  # (..., N, 1, 2, d / 4)
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  halves = heads.reshape(*heads.shape[:-1], 2, 2, quarter).astype(jnp.float32)
  x, y = halves[..., 0, :], halves[..., 1, :]
  turned = jnp.stack([x * cos - y * sin, x * sin + y * cos], axis=-2)
  return turned.reshape(heads.shape).astype(heads.dtype)
