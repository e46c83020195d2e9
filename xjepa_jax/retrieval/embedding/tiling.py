"""Where in an image tiles begin."""

from __future__ import annotations

import numpy as np

_LEFT_OVER = 4  # an edge that misses at most a quarter of a tile gets none of its own


def starts(length: int, size: int, stride: int) -> np.ndarray:
  """(n,) int64, where tiles begin along one side of an image.

  Tiles lie a stride apart. If more than a quarter of a tile is left over at the far edge, one more
  lies flush with it; a smaller rest is shared between both edges, so that an image hardly larger
  than a tile gives one, from its middle.

  Args:
    length: of the image, in pixels.
    size: of a tile.
    stride: from tile to tile; 0 for a single tile in the middle.

  Returns:
    None of them, an array of length 0, if the image is smaller than a tile.
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
  """Columns and rows at which the tiles of an image begin, row by row.

  Args:
    height, width: of the image.
    size: height and width of a tile.
    stride: as `starts` takes it; None is the tile's own height and width.
  """
  down, right = size if stride is None else (stride, stride)
  rows, columns = starts(height, size[0], down), starts(width, size[1], right)
  return np.tile(columns, len(rows)), np.repeat(rows, len(columns))
