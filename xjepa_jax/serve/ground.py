"""Where the tiles lie: which are in a part of the map, by place and not by tile.

Tiles with one id are views of one place by several sensors.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from xjepa_jax.retrieval.embedding.files import EmbeddingFiles
from xjepa_jax.retrieval.indexes.base import Box, Filter


@dataclasses.dataclass(frozen=True)
class View:
  """What is in a part of the map.

  Attributes:
    places: the rows of each place shown, in the archive's order.
    count: of places in that part; more than are shown where there are too many.
  """

  places: tuple[tuple[int, ...], ...]
  count: int


class Ground:
  """Outlines of all tiles as boxes, and the tiles of each place.

  Args:
    files: of the archive. Their ids are read at once, and boxes where they have any.
  """

  def __init__(self, files: EmbeddingFiles):
    columns = ["id", "bbox"] if files.description.georeferenced else ["id"]
    tables = list(files.tables(columns=columns))
    ids = pa.chunked_array([chunk for table in tables for chunk in table["id"].chunks], pa.string())
    encoded = ids.combine_chunks().dictionary_encode()
    self._place = encoded.indices.to_numpy()
    boxes = [_boxes(table) for table in tables if "bbox" in table.column_names]
    self._boxes = np.concatenate(boxes) if boxes else np.full((len(ids), 4), np.nan)

  @functools.cached_property
  def bounds(self) -> Box | None:
    """West, south, east and north of all tiles; None if none has a place."""
    if np.isnan(self._boxes).all():
      return None
    west, south = np.nanmin(self._boxes[:, :2], axis=0)
    east, north = np.nanmax(self._boxes[:, 2:], axis=0)
    return float(west), float(south), float(east), float(north)

  def rows_of_place(self, row: int) -> tuple[int, ...]:
    """All rows with the id of a row, itself among them."""
    place = self._place[row]
    first, last = np.searchsorted(self._sorted, (place, place + 1))
    return tuple(sorted(int(found) for found in self._order[first:last]))

  def view(self, box: Box, most: int) -> View:
    """The places in a part of the map.

    Args:
      box: west, south, east, north in degrees; west > east crosses the antimeridian.
      most: places shown; of more, every n-th in the archive's order, which follows the ground.

    Raises:
      SearchError: it is no box.
    """
    inside = np.zeros(len(self._boxes), bool)
    for west, south, east, north in Filter(bbox=box).boxes():  # comparisons with NaN are false
      inside |= (
        (self._boxes[:, 0] <= east)
        & (self._boxes[:, 2] >= west)
        & (self._boxes[:, 1] <= north)
        & (self._boxes[:, 3] >= south)
      )
    rows = np.flatnonzero(inside)
    _, first = np.unique(self._place[rows], return_index=True)
    firsts = rows[np.sort(first)]
    shown = firsts if len(firsts) <= most else firsts[spread(len(firsts), most)]
    return View(tuple(self.rows_of_place(int(row)) for row in shown), len(firsts))

  @functools.cached_property
  def _order(self) -> np.ndarray:
    return np.argsort(self._place, kind="stable")

  @functools.cached_property
  def _sorted(self) -> np.ndarray:
    return self._place[self._order]

  def places(self) -> list[np.ndarray]:
    """The rows of every place, in the order of its first row."""
    _, first = np.unique(self._sorted, return_index=True)
    groups = np.split(self._order, first[1:])
    return sorted(groups, key=lambda rows: int(rows[0]))


def spread(count: int, most: int, turn: int = 0) -> np.ndarray:
  """`most` of `count` numbers, evenly spread; other ones with every turn."""
  if count <= most:
    return np.arange(count)
  step = count / most
  offset = turn * step * 0.381966 % step  # the golden section: turns fall between earlier ones
  return (np.arange(most) * step + offset).astype(np.int64)


def _boxes(table: pa.Table) -> np.ndarray:
  box = table["bbox"]
  columns = [pc.struct_field(box, name) for name in ("xmin", "ymin", "xmax", "ymax")]
  return np.stack([pc.fill_null(column, np.nan).to_numpy() for column in columns], axis=1)
