"""The tiles of an archive in storage order, and their division into parts.

The order depends on the archive alone: sensor by sensor, along a Hilbert curve of the tiles'
centres, or by id without geometry. Parts are planned as a fixed number of tiles of one sensor; the
tiles with too few valid pixels are dropped afterwards.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from xjepa_jax.data.geography import degrees_of, map_points, numbered, wrapped
from xjepa_jax.data.unicode_names import quoted, shown
from xjepa_jax.errors import ArchiveError
from xjepa_jax.retrieval.embedding.hilbert import hilbert
from xjepa_jax.retrieval.embedding.items import Item, LeftOut, Window
from xjepa_jax.retrieval.embedding.tiling import corners

_NO_WAY = (
  "its coordinate reference system has no way to EPSG:4326 at one of its tiles or more, which are "
  "left out."
)
# A tile's id, as `Tiles.id` makes it.
_CUT = re.compile(r"(.+)_(0|[1-9]\d{,9})_(0|[1-9]\d{,9})", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Tiles:
  """n tiles in storage order.

  Attributes:
    items: the images that the tiles are cut from.
    item: (n,) index of each tile's image.
    windows: (n, 4) column, row, width, height.
    longitude, latitude: (n,) degrees of the centres, or NaN.
    single: (n,) whether the tile is the only one of its image.
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
    """A tile's image, and its window within the image."""
    return self.items[self.item[number]], Window(*self.windows[number].tolist())

  def id(self, number: int) -> str:
    """A tile's id: that of its image, with row and column appended if the image has several."""
    item = self.items[self.item[number]]
    column, row = self.windows[number, :2]
    return item.id if self.single[number] else f"{item.id}_{row}_{column}"

  def fingerprint(self) -> str:
    """SHA-256 of everything that determines the rows, except the descriptors."""
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
  """Lists the tiles of images in storage order.

  Args:
    items: images of all sensors.
    sizes: sensor -> height and width of a tile.
    stride: distance between tiles in pixels; None for a tile's own size, 0 for one tile per image.
    geometry: whether tiles need coordinates; an image whose coordinates cannot be converted to
      degrees is then left out.

  Raises:
    ArchiveError: two tiles of a sensor have the same id.
  """
  items = sorted(items, key=lambda item: (item.sensor, item.id))
  left_out: list[LeftOut] = []
  kept: list[Item] = []
  counts: list[int] = []
  windows: list[np.ndarray] = []
  for item in items:
    size = sizes[item.sensor]
    columns, rows = corners(item.height, item.width, size, stride)
    if not len(rows):
      reason = f"is {item.height} x {item.width} pixels, smaller than the encoder's "
      left_out.append(_left_out(item, f"{reason}{size[0]} x {size[1]}."))
      continue
    kept.append(item)
    counts.append(len(rows))
    extent = np.broadcast_to([size[1], size[0]], (len(rows), 2))
    windows.append(np.concatenate([np.stack([columns, rows], axis=1), extent], axis=1))
  _refuse_equal_ids(kept, windows)
  number = np.repeat(np.arange(len(kept)), counts)
  single = np.repeat(np.asarray(counts, np.int64) == 1, counts)
  where = np.concatenate(windows) if windows else np.zeros((0, 4), np.int64)
  longitude, latitude = _centres(kept, number, where) if geometry else _nowhere(len(number))
  # Only images that claim a position are lost without one; pairs may have none.
  lost = np.isnan(longitude) & geometry & _placed(kept, number)
  for place in np.unique(number[lost]):
    left_out.append(_left_out(kept[place], _NO_WAY))
  order = _order(kept, number, where, longitude, latitude)
  order = order[~lost[order]]
  return Tiles(
    kept, number[order], where[order], longitude[order], latitude[order], single[order], left_out
  )


def parts_of(tiles: Tiles, rows: int) -> list[tuple[int, int]]:
  """Start and end of every part in the order of tiles: at most `rows` tiles, of one sensor."""
  names = [item.sensor for item in tiles.items]
  sensors = np.unique(names, return_inverse=True)[1][tiles.item] if len(tiles) else np.zeros(0)
  edges = np.flatnonzero(np.diff(sensors)) + 1
  found = []
  for start, stop in zip([0, *edges], [*edges, len(tiles)], strict=True):
    found += [(int(at), int(min(at + rows, stop))) for at in range(start, stop, rows)]
  return found


def _refuse_equal_ids(items: Sequence[Item], windows: Sequence[np.ndarray]) -> None:
  """Refuses a file whose id equals that of another image's tile, as a_0_64.tif beside a wide a.tif.

  Images with several tiles cannot collide if their ids differ, so only images with a single tile
  are checked, and no tile ids have to be built.
  """
  known: dict[tuple[str, str], int] = {}
  for place, item in enumerate(items):
    other = known.setdefault((item.sensor, item.id), place)
    if other != place:
      raise _equal_ids(items[other], item)
  for item, mine in zip(items, windows, strict=True):
    match = _CUT.fullmatch(item.id) if len(mine) == 1 else None
    whole = known.get((item.sensor, match[1])) if match else None
    if match is None or whole is None or len(windows[whole]) == 1:
      continue
    corner = int(match[3]), int(match[2])
    if (windows[whole][:, :2] == corner).all(axis=1).any():
      raise _equal_ids(items[whole], item)


def _equal_ids(one: Item, other: Item) -> ArchiveError:
  return ArchiveError(
    f"{shown(one.source)} and {shown(other.source)} both give sensor {one.sensor!r} a tile of id "
    f"{quoted(other.id)}. "
    "Give one of the images another id (rename its file), or, if one was cut from the other, a "
    f"pattern that leaves the cuts out: --sensor {one.sensor}=PATTERN."
  )


def _centres(
  items: Sequence[Item], number: np.ndarray, windows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Degrees of the centre of each window, or of its image if that has a position but no grid."""
  transforms = np.array([item.transform for item in items]).reshape(-1, 6)[number]
  systems, system = numbered(item.crs if item.georeferenced else "" for item in items)
  middle = windows[:, :2] + windows[:, 2:] / 2
  points = map_points(transforms, middle[:, 0], middle[:, 1])
  longitude, latitude = degrees_of(systems, system[number], *points)
  told = np.array([(item.longitude, item.latitude) for item in items]).reshape(-1, 2)[number]
  known = np.isfinite(longitude)
  return (
    wrapped(np.where(known, longitude, told[:, 0])),
    np.where(known, latitude, told[:, 1]),
  )


def _placed(items: Sequence[Item], number: np.ndarray) -> np.ndarray:
  """(n,) whether a tile's image is georeferenced."""
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
  """Order by sensor, curve, id, row and column; `items` are already sorted by sensor and id."""
  names = [item.sensor for item in items]
  sensors = np.unique(names, return_inverse=True)[1][number] if names else number
  along = hilbert(longitude, latitude)
  return np.lexsort((windows[:, 0], windows[:, 1], number, along, sensors))


def _left_out(item: Item, reason: str) -> LeftOut:
  return LeftOut(item.id, item.sensor, item.source, reason)
