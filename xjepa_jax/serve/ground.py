"""Tiles on the map: which places are in a part of it, counted by place and not by tile.

Tiles with one id are views of one place by several sensors.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from xjepa_jax.retrieval.embedding.files import EmbeddingFiles
from xjepa_jax.retrieval.indexes.base import Box, Filter


@dataclasses.dataclass(frozen=True)
class View:
  """The places in a part of the map.

  Attributes:
    places: the rows of each place shown, in the archive's order.
    count: number of places in that part, which is more than are shown if there are too many.
  """

  places: tuple[tuple[int, ...], ...]
  count: int


@dataclasses.dataclass(frozen=True)
class Places:
  """The rows of every place, in the order of its first row.

  Attributes:
    rows: (N,) rows of the archive, place by place, and in ascending order within a place.
    starts: (P + 1,) where each place begins in `rows`; the last is N.
  """

  rows: np.ndarray
  starts: np.ndarray

  def __len__(self) -> int:
    return len(self.starts) - 1

  def rows_of(self, places: np.ndarray) -> np.ndarray:
    """Return all rows of some places, given by number, in ascending order."""
    chosen = np.zeros(len(self), bool)
    chosen[places] = True
    return np.sort(self.rows[np.repeat(chosen, np.diff(self.starts))])


class Ground:
  """Bounding boxes of all tiles, and the tiles of each place.

  Args:
    files: the archive's embeddings. Their ids, and boxes if any, are read at once.
  """

  def __init__(self, files: EmbeddingFiles):
    columns = ["id", "bbox"] if files.description.georeferenced else ["id"]
    tables = list(files.tables(columns=columns))
    self._place = place_numbers([table["id"] for table in tables])
    boxes = [_boxes(table) for table in tables if "bbox" in table.column_names]
    self._boxes = np.concatenate(boxes) if boxes else np.full((len(self._place), 4), np.nan)
    self._round = _across(files, self._boxes)

  @functools.cached_property
  def bounds(self) -> Box | None:
    """West, south, east and north of all tiles; None if no tile has coordinates."""
    if np.isnan(self._boxes).all():
      return None
    west, south = np.nanmin(self._boxes[:, :2], axis=0)
    east, north = np.nanmax(self._boxes[:, 2:], axis=0)
    # A tile across the antimeridian lies at both ends of the map.
    if self._round.any():
      west, east = -180.0, 180.0
    return float(west), float(south), float(east), float(north)

  def rows_of_place(self, row: int) -> tuple[int, ...]:
    """Return all rows that share a row's id, including itself."""
    places, place = self.places, self._place[row]
    return tuple(places.rows[places.starts[place] : places.starts[place + 1]].tolist())

  def view(self, box: Box, most: int) -> View:
    """Return the places in a part of the map.

    Args:
      box: west, south, east, north in degrees; west > east crosses the antimeridian.
      most: largest number of places shown. If there are more, every n-th is shown in the archive's
        order, which follows the ground.

    Raises:
      SearchError: the box is not valid.
    """
    inside = np.zeros(len(self._boxes), bool)
    for west, south, east, north in Filter(bbox=box).boxes():  # NaN boxes compare as false
      begins, ends = self._boxes[:, 0] <= east, self._boxes[:, 2] >= west
      along = np.where(self._round, begins | ends, begins & ends)
      inside |= along & (self._boxes[:, 1] <= north) & (self._boxes[:, 3] >= south)
    rows = np.flatnonzero(inside)
    _, first = np.unique(self._place[rows], return_index=True)
    firsts = rows[np.sort(first)]
    shown = firsts if len(firsts) <= most else firsts[spread(len(firsts), most)]
    return View(tuple(self.rows_of_place(int(row)) for row in shown), len(firsts))

  @functools.cached_property
  def places(self) -> Places:
    """All places."""
    # Places are numbered by their first rows, so a stable sort by number yields that order.
    counts = np.bincount(self._place)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return Places(np.argsort(self._place, kind="stable"), starts)


def spread(count: int, most: int, turn: int = 0) -> np.ndarray:
  """Return `most` of `count` numbers, evenly spread; different ones for every `turn`."""
  if count <= most:
    return np.arange(count)
  step = count / most
  # The golden section makes every turn fall between earlier ones.
  offset = turn * step * 0.381966 % step
  return (np.arange(most) * step + offset).astype(np.int64)


def place_numbers(ids: Sequence[pa.ChunkedArray]) -> np.ndarray:
  """Return (N,) int64, the number of each row's place, numbered by first occurrence."""
  # Large strings have 64-bit offsets: the ids of an archive may exceed 2 GiB. The chunks are never
  # copied together.
  chunks = [chunk.cast(pa.large_string()) for column in ids for chunk in column.chunks]
  encoded = pa.chunked_array(chunks, pa.large_string()).dictionary_encode()
  numbers = [chunk.indices.to_numpy() for chunk in encoded.chunks]
  return np.concatenate(numbers).astype(np.int64) if numbers else np.zeros(0, np.int64)


def _across(files: EmbeddingFiles, boxes: np.ndarray) -> np.ndarray:
  """Return (N,) bool: boxes that cross the antimeridian, whose west is greater than their east.

  The outline of a tile across the antimeridian has two parts, one at either end of the map, so its
  box spans the globe; it is narrowed here. A tile around a pole has one part, and keeps its box.

  Args:
    files: the archive's embeddings.
    boxes: (N, 4) west, south, east, north; narrowed in place.
  """
  wide = np.flatnonzero((boxes[:, 0] <= -180) & (boxes[:, 2] >= 180))
  for row, entry in zip(wide, files.take(wide), strict=True):
    if entry.get("footprint"):
      parts = shapely.bounds(shapely.get_parts(shapely.from_wkb(entry["footprint"])))
      at_west, at_east = parts[:, 0] <= -180, parts[:, 2] >= 180
      if not (at_west & at_east).any():
        boxes[row, 0], boxes[row, 2] = parts[at_east, 0].min(), parts[at_west, 2].max()
  return boxes[:, 0] > boxes[:, 2]


def _boxes(table: pa.Table) -> np.ndarray:
  box = table["bbox"]
  columns = [pc.struct_field(box, name) for name in ("xmin", "ymin", "xmax", "ymax")]
  return np.stack([pc.fill_null(column, np.nan).to_numpy() for column in columns], axis=1)
