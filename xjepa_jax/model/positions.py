"""Where a token is: coordinates in patches or metres, as sines and cosines or as rotations."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

METRES_A_UNIT = 80.0  # a patch of 8 pixels of 10 m: "metres" and "patches" agree there
_BASE = 10_000.0


def coordinates(grid: tuple[int, int], spacing: float = 1.0) -> np.ndarray:
  """Rows and columns of the tokens of a grid.

  Args:
    grid: rows and columns.
    spacing: between neighbours, in the unit of positions.

  Returns:
    (N, 2) float32, row-major.
  """
  rows, columns = np.indices(grid, dtype=np.float32)
  return np.stack([rows.ravel(), columns.ravel()], axis=-1) * np.float32(spacing)


def spacing(unit: str, metres: float) -> float:
  """Between neighbouring tokens: 1 in "patches"; in "metres", `metres` over `METRES_A_UNIT`."""
  return 1.0 if unit == "patches" else metres / METRES_A_UNIT


def sincos(places: np.ndarray, width: int) -> np.ndarray:
  """Fixed embeddings of positions (Vaswani et al. 2017, in two dimensions).

  Args:
    places: (N, 2) coordinates.
    width: D, a multiple of 4: a quarter each of sines and cosines of row and column.

  Returns:
    (N, D) float32.
  """
  quarter = width // 4
  rates = 1.0 / _BASE ** (np.arange(quarter, dtype=np.float64) / quarter)
  angles = places[:, :, None].astype(np.float64) * rates
  parts = [np.sin(angles[:, 0]), np.cos(angles[:, 0]), np.sin(angles[:, 1]), np.cos(angles[:, 1])]
  return np.concatenate(parts, axis=-1).astype(np.float32)


def rotate(heads: Array, places: Array) -> Array:
  """Turns queries or keys by their position (RoPE, Su et al. 2021, in two dimensions).

  The scalar product of a query and a key then depends on the difference of their places. The
  first half of a head turns with the row, the second with the column.

  Args:
    heads: (..., N, heads, d), d a multiple of 4.
    places: (..., N, 2) coordinates.

  Returns:
    As `heads`.
  """
  quarter = heads.shape[-1] // 4
  rates = jnp.asarray(1.0 / 100.0 ** (np.arange(quarter) / quarter), jnp.float32)
  angles = places[..., None, :, None] * rates  # (..., N, 1, 2, d / 4)
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  halves = heads.reshape(*heads.shape[:-1], 2, 2, quarter).astype(jnp.float32)
  x, y = halves[..., 0, :], halves[..., 1, :]
  turned = jnp.stack([x * cos - y * sin, x * sin + y * cos], axis=-2)
  return turned.reshape(heads.shape).astype(heads.dtype)
