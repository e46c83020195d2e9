"""Oriented gradients of images in cells: local structure that optical and radar images share.

Which way an edge runs, and where it lies, survives a change of sensor; how bright its sides are
does not. So each cell is described by how much gradient it has in each direction, at unit length: a
weak field boundary counts as much as a strong one. Channel features of orientated gradients (CFOG,
Ye et al., IEEE TGRS 2019) without learning, and with fill left out of every sum.

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

# Before differences are taken, in pixels: less leaves speckle in, more takes field boundaries out.
_BLUR = 1.25
# Of a cell's side, beyond which its neighbours count less: an edge near a border is in both cells.
_REACH = 0.25
# Of a band's deviation a pixel: below it a gradient is rounding, and its direction says nothing.
_FLOOR = 1e-3
# Of a cell's area, of which gradients have to be known.
_LEAST_SEEN = 0.25


def oriented_gradients(values: Array, cells: int | tuple[int, int]) -> tuple[Array, Array]:
  """How much gradient each cell of an image has in each direction.

  Args:
    values: (B, H, W, C) scaled images; a pixel that is 0 in every band was not seen.
    cells: along a side, or down and across; they need not divide H or W.

  Returns:
    (B, P, DIRECTIONS) float32 of length 1 a cell, P cells in row-major order, direction
    k being that of a gradient at k * 180 / DIRECTIONS degrees from the x axis to the y axis; and
    (B, P) bool, whether enough of the cell was seen: what is not is 0. A cell without contrast
    has all directions alike.
  """
  images = jnp.moveaxis(values.astype(jnp.float32), -1, 1)  # bands first: products of matrices
  seen = (images != 0).any(axis=1, keepdims=True).astype(jnp.float32)
  height, width = images.shape[2:]
  down, across = (cells, cells) if isinstance(cells, int) else cells
  known = along_both(_blur(height, _BLUR), seen, _blur(width, _BLUR))
  smooth = along_both(_blur(height, _BLUR), images, _blur(width, _BLUR)) / jnp.maximum(known, 1e-3)
  # A difference across the edge of fill is the filler's, and so is one of a pixel beside it.
  whole = (along_both(_blur(height, 1.0), seen, _blur(width, 1.0)) > 0.99).astype(jnp.float32)
  by_x, by_y = _differences(smooth)
  tensor = [(one * other).sum(axis=1) for one, other in ((by_x, by_x), (by_x, by_y), (by_y, by_y))]
  sizes = [
    _along(angle, tensor) * whole[:, 0] for angle in np.arange(DIRECTIONS) * np.pi / DIRECTIONS
  ]
  rows, columns = _cell_means(height, down), _cell_means(width, across)
  pooled = jnp.moveaxis(along_both(rows, jnp.stack(sizes, axis=1), columns), 1, -1)
  there = along_both(areas(height, down), whole, areas(width, across))[:, 0] >= _LEAST_SEEN
  # A direction and its two neighbours: nine are narrower than how surely a direction is known.
  pooled = pooled / 2 + (jnp.roll(pooled, 1, axis=-1) + jnp.roll(pooled, -1, axis=-1)) / 4
  found = jnp.sqrt(jnp.maximum(pooled, 1e-12))
  found = found / jnp.linalg.norm(found, axis=-1, keepdims=True)
  found = jnp.where(there[..., None], found, 0.0)
  return found.reshape(len(values), -1, DIRECTIONS), there.reshape(len(values), -1)


def _along(angle: float, tensor: Sequence[Array]) -> Array:
  """(B, H, W) size of the gradient along a direction, root of the sum of squares over bands."""
  cos, sin = float(np.cos(angle)), float(np.sin(angle))
  square = cos * cos * tensor[0] + 2 * cos * sin * tensor[1] + sin * sin * tensor[2]
  return jnp.sqrt(jnp.maximum(square, 0) + _FLOOR**2)


def along_both(rows: np.ndarray, x: Array, columns: np.ndarray) -> Array:
  """(B, C, R, S): rows (R, H) from the left and columns (S, W) from the right of (B, C, H, W)."""
  x = jnp.matmul(x, columns.T, precision="highest").swapaxes(-1, -2)
  return jnp.matmul(x, rows.T, precision="highest").swapaxes(-1, -2)


def _differences(x: Array) -> tuple[Array, Array]:
  """Central differences of (B, C, H, W) along W and along H; at a border, half of what is there."""
  wider = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
  across = (wider[:, :, 1:-1, 2:] - wider[:, :, 1:-1, :-2]) / 2
  along = (wider[:, :, 2:, 1:-1] - wider[:, :, :-2, 1:-1]) / 2
  return across, along


@functools.lru_cache(maxsize=64)
def _blur(length: int, sigma: float) -> np.ndarray:
  """(length, length) float32: a Gaussian along a line that is mirrored at its ends."""
  reach = int(3 * sigma + 0.5)
  weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
  matrix = np.zeros((length, length))
  for offset, weight in zip(range(-reach, reach + 1), weights / weights.sum(), strict=True):
    place = (np.arange(length) + offset) % (2 * length)
    matrix[np.arange(length), np.minimum(place, 2 * length - 1 - place)] += weight
  return matrix.astype(np.float32)


@functools.lru_cache(maxsize=64)
def _cell_means(length: int, cells: int) -> np.ndarray:
  """(cells, length) float32: the mean of each cell of a line after it has been blurred."""
  return (areas(length, cells) @ _blur(length, _REACH * length / cells)).astype(np.float32)


@functools.lru_cache(maxsize=64)
def areas(length: int, cells: int) -> np.ndarray:
  """(cells, length) float32: the mean of each cell of a line."""
  return (shares(length, cells).T * (cells / length)).astype(np.float32)
