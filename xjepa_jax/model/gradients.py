"""Oriented gradients of images in cells: the local structure that optical and radar images share.

The direction of an edge and its place survive a change of sensor; the brightness of its sides does
not. Each cell is therefore described by its amount of gradient in each direction, at unit length,
so that a weak field boundary counts as much as a strong one. These are channel features of
orientated gradients (CFOG, Ye et al., IEEE TGRS 2019) without learning, and no sum includes fill.

  scaled image -> blur -> structure tensor summed over bands -> size of the gradient along nine
  directions -> mean over a cell and a little beyond -> square root -> unit length
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array

from xjepa_jax.config.schema import DIRECTIONS
from xjepa_jax.model.cells import shares

# Blur before taking differences, in pixels: less leaves speckle in, more removes field boundaries.
_BLUR = 1.25
# Blur across cells, as a share of a cell's side: an edge near a border counts in both cells.
_REACH = 0.25
# Share of a band's deviation per pixel: a smaller gradient is rounding and has no direction.
_FLOOR = 1e-3
# Least share of a cell's area in which gradients must be known.
_LEAST_SEEN = 0.25


def oriented_gradients(values: Array, cells: int | tuple[int, int]) -> tuple[Array, Array]:
  """The amount of gradient in each direction, for each cell of an image.

  Args:
    values: (B, H, W, C) scaled images; a pixel that is 0 in every band is unobserved.
    cells: cells along each side, or (down, across); they need not divide H or W.

  Returns:
    (B, P, DIRECTIONS) float32, of length 1 per cell, with P cells in row-major order. Direction k
    is that of a gradient at k * 180 / DIRECTIONS degrees from the x axis towards the y axis. Also
    (B, P) bool, whether enough of the cell was observed; other cells are 0. In a cell without
    contrast all directions are equal.
  """
  images = jnp.moveaxis(values.astype(jnp.float32), -1, 1)  # bands first, for matrix products
  seen = (images != 0).any(axis=1, keepdims=True).astype(jnp.float32)
  height, width = images.shape[2:]
  down, across = (cells, cells) if isinstance(cells, int) else cells
  known = along_both(_blur(height, _BLUR), seen, _blur(width, _BLUR))
  smooth = along_both(_blur(height, _BLUR), images, _blur(width, _BLUR)) / jnp.maximum(known, 1e-3)
  # A difference across the edge of fill shows the fill value, and so does one at the pixel beside
  # it, so only pixels whose whole neighbourhood was observed count.
  whole = (along_both(_blur(height, 1.0), seen, _blur(width, 1.0)) > 0.99).astype(jnp.float32)
  by_x, by_y = _differences(smooth)
  tensor = [(one * other).sum(axis=1) for one, other in ((by_x, by_x), (by_x, by_y), (by_y, by_y))]
  sizes = [
    _along(angle, tensor) * whole[:, 0] for angle in np.arange(DIRECTIONS) * np.pi / DIRECTIONS
  ]
  rows, columns = _cell_means(height, down), _cell_means(width, across)
  pooled = jnp.moveaxis(along_both(rows, jnp.stack(sizes, axis=1), columns), 1, -1)
  there = along_both(areas(height, down), whole, areas(width, across))[:, 0] >= _LEAST_SEEN
  # Mix each direction with its two neighbours: nine bins are narrower than the certainty of a
  # direction.
  pooled = pooled / 2 + (jnp.roll(pooled, 1, axis=-1) + jnp.roll(pooled, -1, axis=-1)) / 4
  found = jnp.sqrt(jnp.maximum(pooled, 1e-12))
  found = found / jnp.linalg.norm(found, axis=-1, keepdims=True)
  found = jnp.where(there[..., None], found, 0.0)
  return found.reshape(len(values), -1, DIRECTIONS), there.reshape(len(values), -1)


def _along(angle: float, tensor: Sequence[Array]) -> Array:
  """(B, H, W) size of the gradient along a direction, the root of its sum of squares over bands."""
  cos, sin = float(np.cos(angle)), float(np.sin(angle))
  square = cos * cos * tensor[0] + 2 * cos * sin * tensor[1] + sin * sin * tensor[2]
  return jnp.sqrt(jnp.maximum(square, 0) + _FLOOR**2)


def along_both(rows: np.ndarray, x: Array, columns: np.ndarray) -> Array:
  """(B, C, R, S): (B, C, H, W) times rows (R, H) from the left and columns (S, W) on the right."""
  x = jnp.matmul(x, columns.T, precision="highest").swapaxes(-1, -2)
  return jnp.matmul(x, rows.T, precision="highest").swapaxes(-1, -2)


def _differences(x: Array) -> tuple[Array, Array]:
  """Central differences of (B, C, H, W) along W and along H, with the edge repeated at a border."""
  wider = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
  across = (wider[:, :, 1:-1, 2:] - wider[:, :, 1:-1, :-2]) / 2
  along = (wider[:, :, 2:, 1:-1] - wider[:, :, :-2, 1:-1]) / 2
  return across, along


@functools.lru_cache(maxsize=64)
def _blur(length: int, sigma: float) -> np.ndarray:
  """(length, length) float32: Gaussian blur of a line that is mirrored at its ends."""
  reach = int(3 * sigma + 0.5)
  weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
  matrix = np.zeros((length, length))
  for offset, weight in zip(range(-reach, reach + 1), weights / weights.sum(), strict=True):
    place = (np.arange(length) + offset) % (2 * length)
    matrix[np.arange(length), np.minimum(place, 2 * length - 1 - place)] += weight
  return matrix.astype(np.float32)


@functools.lru_cache(maxsize=64)
def _cell_means(length: int, cells: int) -> np.ndarray:
  """(cells, length) float32: the mean of each cell of a line after blurring it."""
  return (areas(length, cells) @ _blur(length, _REACH * length / cells)).astype(np.float32)


@functools.lru_cache(maxsize=64)
def areas(length: int, cells: int) -> np.ndarray:
  """(cells, length) float32: the mean of each cell of a line."""
  return (shares(length, cells).T * (cells / length)).astype(np.float32)
