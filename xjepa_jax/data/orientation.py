"""Turns images north up and east right, as far as mirroring and quarter turns can.

An encoder learns the usual orientation. A file stored from south to north, or on its side, would
show it mirrored or rotated ground.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from xjepa_jax.data.raster import Raster


@dataclasses.dataclass(frozen=True)
class Turn:
  """A turn of an image.

  Attributes:
    swapped: whether rows and columns are swapped, before mirroring.
    rows, columns: whether these are reversed.
    transform: (a, b, c, d, e, f) of the image after the turn.
  """

  swapped: bool
  rows: bool
  columns: bool
  transform: tuple[float, ...]

  def __call__(self, values: np.ndarray) -> np.ndarray:
    """Values (H, W, C) of the image, turned."""
    if not (self.swapped or self.rows or self.columns):
      return values
    values = values.swapaxes(0, 1) if self.swapped else values
    found = values[:: -1 if self.rows else 1, :: -1 if self.columns else 1]
    return np.ascontiguousarray(found)


def north_up(transform: Sequence[float], height: int, width: int) -> Turn:
  """The turn that brings an image north up; no turn if it is not georeferenced.

  Args:
    transform: from (column, row) to map coordinates, all NaN if the image has none.
    height, width: size of the image.
  """
  a, b, c, d, e, f = transform
  if math.isnan(a):
    return Turn(False, False, False, tuple(transform))
  swapped = abs(b) > abs(a)  # rows run east or west
  if swapped:
    a, b, d, e, height, width = b, a, e, d, width, height
  rows, columns = e > 0, a < 0
  if columns:
    c, f, a, d = c + a * width, f + d * width, -a, -d
  if rows:
    c, f, b, e = c + b * height, f + e * height, -b, -e
  return Turn(swapped, rows, columns, (a, b, c, d, e, f))


def upright(rasters: Mapping[str, Raster]) -> dict[str, Raster]:
  """The images of one pair, each turned north up, so that they can be compared.

  If one of them is not georeferenced, all are returned as they are stored, assumed to coincide.
  """
  if not all(raster.georeferenced for raster in rasters.values()):
    return dict(rasters)
  turned = {}
  for key, raster in rasters.items():
    turn = north_up(raster.transform, *raster.values.shape[:2])
    turned[key] = dataclasses.replace(raster, values=turn(raster.values), transform=turn.transform)
  return turned
