"""The tiles of an archive in the order in which they are stored, and the parts they are cut into.

The order depends on the archive alone: sensor by sensor, along a Hilbert curve of the tiles'
centres, or by id where there is no geometry. A part holds what is left of a fixed number of tiles
of one sensor when those that show too little are left out.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from xjepa_jax.retrieval.embedding.geography import degrees_of, map_points, wrapped
from xjepa_jax.retrieval.embedding.hilbert import hilbert
from xjepa_jax.retrieval.embedding.items import Item, LeftOut, Window
from xjepa_jax.retrieval.embedding.tiling import corners

_NO_WAY = (
  "its coordinate reference system has no way to EPSG:4326 at one of its tiles or more, which are "
  "left out."
)


@dataclasses.dataclass(frozen=True)
class Tiles:
  """n tiles, in order.

  Attributes:
    items: the images that they are cut from.
    item: (n,) which of them.
    windows: (n, 4) column, row, width, height.
    longitude, latitude: (n,) degrees of the centres, or NaN.
    single: (n,) whether the tile is its image's only one.
    left_out: images without a tile.
  """

  items: Sequence[Item]
  item: np.ndarray
  windows: np.ndarray
  longitude: np.ndarray
  latitude: np.ndarray
  single: np.ndarray
  left_out: Sequence[LeftOut]

  def __len__(self) -> int:
    return len(self.item)

  def of(self, number: int) -> tuple[Item, Window]:
    """A tile's image, and where in it the tile lies."""
    return self.items[self.item[number]], Window(*self.windows[number].tolist())

  def id(self, number: int) -> str:
    """A tile's id: its image's, and where it begins if the image has several."""
    item = self.items[self.item[number]]
    column, row = self.windows[number, :2]
    return item.id if self.single[number] else f"{item.id}_{row}_{column}"

  def fingerprint(self) -> str:
    """SHA-256 over everything that the rows say, but for the descriptors."""
    digest = hashlib.sha256()
    for item in self.items:
      fields = dataclasses.astuple(item)
      digest.update(repr(fields).encode())
    for values in (self.item, self.windows):
      digest.update(np.ascontiguousarray(values, "<i8").tobytes())
    return digest.hexdigest()


def list_tiles(
  items: Sequence[Item], sizes: Mapping[str, tuple[int, int]], stride: int | None, geometry: bool
) -> Tiles:
  """Lists the tiles of images.

  Args:
    items: of all sensors.
    sizes: sensor -> height and width of a tile.
    stride: from tile to tile in pixels; None is the tile's own size, 0 one tile an image.
    geometry: whether tiles have a place; an image whose place cannot be told is left out then.
  """
  items = sorted(items, key=lambda item: (item.sensor, item.id))
  left_out: list[LeftOut] = []
  kept: list[Item] = []
  counts: list[int] = []
  windows: list[np.ndarray] = []
  for item in items:
    size = sizes[item.sensor]
    step = max(size) if stride is None else stride
    columns, rows = corners(item.height, item.width, size, step)
    if not len(rows):
      reason = f"is {item.height} x {item.width} pixels, smaller than the encoder's "
      left_out.append(_left_out(item, f"{reason}{size[0]} x {size[1]}."))
      continue
    kept.append(item)
    counts.append(len(rows))
    extent = np.broadcast_to([size[1], size[0]], (len(rows), 2))
    windows.append(np.concatenate([np.stack([columns, rows], axis=1), extent], axis=1))
  number = np.repeat(np.arange(len(kept)), counts)
  single = np.repeat(np.asarray(counts, np.int64) == 1, counts)
  where = np.concatenate(windows) if windows else np.zeros((0, 4), np.int64)
  longitude, latitude = _centres(kept, number, where) if geometry else _nowhere(len(number))
  lost = np.isnan(longitude) & geometry & _placed(kept, number)
  for place in np.unique(number[lost]):
    left_out.append(_left_out(kept[place], _NO_WAY))
  order = _order(kept, number, where, longitude, latitude)
  order = order[~lost[order]]
  return Tiles(
    kept, number[order], where[order], longitude[order], latitude[order], single[order], left_out
  )


def parts_of(tiles: Tiles, rows: int) -> list[tuple[int, int]]:
  """Where each part begins and ends in the order of tiles: at most `rows`, of one sensor."""
  names = [item.sensor for item in tiles.items]
  sensors = np.unique(names, return_inverse=True)[1][tiles.item] if len(tiles) else np.zeros(0)
  edges = np.flatnonzero(np.diff(sensors)) + 1
  found = []
  for start, stop in zip([0, *edges], [*edges, len(tiles)], strict=True):
    found += [(int(at), int(min(at + rows, stop))) for at in range(start, stop, rows)]
  return found


def _centres(
  items: Sequence[Item], number: np.ndarray, windows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Degrees of the middle of each window; of the image where it has a place and no grid."""
  transforms = np.array([item.transform for item in items]).reshape(-1, 6)[number]
  systems = np.array([item.crs if item.georeferenced else "" for item in items], object)[number]
  middle = windows[:, :2] + windows[:, 2:] / 2
  longitude, latitude = degrees_of(systems, *map_points(transforms, middle[:, 0], middle[:, 1]))
  told = np.array([(item.longitude, item.latitude) for item in items]).reshape(-1, 2)[number]
  known = np.isfinite(longitude)
  return (
    wrapped(np.where(known, longitude, told[:, 0])),
    np.where(known, latitude, told[:, 1]),
  )


def _placed(items: Sequence[Item], number: np.ndarray) -> np.ndarray:
  """(n,) whether a tile's image claims to have a place."""
  return np.array([item.georeferenced for item in items], bool)[number]


def _nowhere(count: int) -> tuple[np.ndarray, np.ndarray]:
  return np.full(count, np.nan), np.full(count, np.nan)


def _order(
  items: Sequence[Item],
  number: np.ndarray,
  windows: np.ndarray,
  longitude: np.ndarray,
  latitude: np.ndarray,
) -> np.ndarray:
  """By sensor, along the curve, then by id, row and column; images are sorted by the first two."""
  names = [item.sensor for item in items]
  sensors = np.unique(names, return_inverse=True)[1][number] if names else number
  along = hilbert(longitude, latitude)
  return np.lexsort((windows[:, 0], windows[:, 1], number, along, sensors))


def _left_out(item: Item, reason: str) -> LeftOut:
  return LeftOut(item.id, item.sensor, item.source, reason)
