"""Positions of tiles within an image.

Tiles never extend beyond the image, so that no pixel is padding. A narrow remainder at the edges is
ignored rather than given tiles of its own, which would overlap a neighbour by at least three
quarters.
"""

from __future__ import annotations

import numpy as np

_LEFT_OVER = 4  # a remainder of at most 1/4 of a tile gets no tile of its own


def starts(length: int, size: int, stride: int) -> np.ndarray:
  """(n,) int64, start positions of tiles along one side of an image.

  Tiles are `stride` apart. If more than a quarter of a tile remains at the far edge, one more tile
  is placed flush with that edge. A smaller remainder is split between both edges, so that an image
  hardly larger than a tile gives a single tile from its middle.

  Args:
    length: length of the image in pixels.
    size: length of a tile.
    stride: distance between tiles; 0 for a single tile in the middle.

  Returns:
    The positions; an empty array if the image is smaller than a tile.
  """
  if length < size:
    return np.zeros(0, np.int64)
  if stride == 0:
    return np.array([(length - size) // 2])
  found = np.arange(0, length - size + 1, stride)
  rest = length - size - found[-1]
  if rest * _LEFT_OVER > size:
    return np.append(found, length - size)
  return found + rest // 2


def corners(
  height: int, width: int, size: tuple[int, int], stride: int | None
) -> tuple[np.ndarray, np.ndarray]:
  """Columns and rows of the upper left corners of an image's tiles, row by row.

  Args:
    height, width: size of the image.
    size: height and width of a tile.
    stride: as in `starts`; None for the tile's own height and width.
  """
  down, right = size if stride is None else (stride, stride)
  rows, columns = starts(height, size[0], down), starts(width, size[1], right)
  return np.tile(columns, len(rows)), np.repeat(rows, len(columns))
