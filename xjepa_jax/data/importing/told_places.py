"""Compares the places that a table gives for its images with the images' own georeference."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xjepa_jax.data.geography import degrees_of, distances, map_points, numbered, wrapped
from xjepa_jax.data.tables import cell_text
from xjepa_jax.data.unicode_names import quoted, shown
from xjepa_jax.errors import TableError

_SPELLINGS = (("lon", "longitude"), ("lat", "latitude"))
_GEOMETRY = "geometry"  # GeoParquet's column: WKB, in degrees unless the file declares otherwise
PLACE_COLUMNS = {_GEOMETRY, *(name for names in _SPELLINGS for name in names)}
_SHOWN = 10  # wrong rows listed in a message
# The image's centre and the ends of its two diagonals, in widths and heights.
_POINTS = np.array([(0.5, 0.5), (0, 0), (1, 1), (0, 1), (1, 0)])


@dataclasses.dataclass(frozen=True)
class ToldPlace:
  """The place of an image according to a table and according to the image.

  Attributes:
    where: the row: "line 7".
    name: name of the pair or image.
    longitude, latitude: degrees from the table.
    path: path of the image.
    crs, transform: georeference of the image, as in `Raster`.
    height, width: size of the image in pixels.
  """

  where: str
  name: str
  longitude: float
  latitude: float
  path: str
  crs: str
  transform: tuple[float, ...]
  height: int
  width: int


def told_degrees(row: Mapping[str, Any]) -> tuple[float, float]:
  """Longitude and latitude in a row's `PLACE_COLUMNS`, NaN if these are empty.

  Columns of degrees take precedence over a geometry, of which the centroid is used.

  Raises:
    ValueError: they are not degrees, or one of the two is missing.
  """
  x, y = (next((name for name in names if cell_text(row, name)), names[0]) for names in _SPELLINGS)
  if not (cell_text(row, x) or cell_text(row, y)) and isinstance(row.get(_GEOMETRY), bytes):
    return _centroid(row[_GEOMETRY])
  longitude, latitude = _degrees(row, x, 180), _degrees(row, y, 90)
  if math.isnan(longitude) != math.isnan(latitude):
    raise ValueError(f"only one of the columns {x!r} and {y!r} has a value")
  return longitude, latitude


def check_places(table: str, places: Sequence[ToldPlace]) -> None:
  """Refuse a table whose places are further from the images' own than the images are large.

  Images without a georeference, or in a system that cannot be converted to EPSG:4326, are ignored.

  Raises:
    TableError: rows contradict their images; some of them are listed.
  """
  own = [each for each in places if each.crs and not math.isnan(each.transform[0])]
  if not own:
    return
  systems, system = numbered(each.crs for each in own)
  transforms = np.array([each.transform for each in own])
  sizes = np.array([(each.width, each.height) for each in own])[:, None] * _POINTS
  points = map_points(transforms, sizes[..., 0], sizes[..., 1])
  longitude, latitude = degrees_of(systems, system, *points)
  middle = wrapped(longitude[:, 0]), latitude[:, 0]
  diagonal = np.maximum(
    distances(longitude[:, 1], latitude[:, 1], longitude[:, 2], latitude[:, 2]),
    distances(longitude[:, 3], latitude[:, 3], longitude[:, 4], latitude[:, 4]),
  )
  told = np.array([(each.longitude, each.latitude) for each in own]).T
  away = distances(told[0], told[1], *middle)
  swapped = distances(told[1], told[0], *middle) <= diagonal
  with np.errstate(invalid="ignore"):  # NaN where degrees could not be computed
    wrong = np.flatnonzero(away > diagonal)
  if not len(wrong):
    return
  listed = [
    f"{own[i].where} ({quoted(own[i].name)}): lon {told[0, i]:g}, lat {told[1, i]:g}, but "
    f"{shown(own[i].path)} lies at lon {middle[0][i]:.5f}, lat {middle[1][i]:.5f}, "
    f"{away[i]:,.1f} km away{' (are lon and lat swapped?)' if swapped[i] else ''}"
    for i in wrong[:_SHOWN]
  ]
  raise TableError(
    f"{table}: {len(wrong):,} rows tell a place that is not their image's: {'; '.join(listed)}"
    f"{'; ...' if len(wrong) > _SHOWN else '.'} Correct them, or leave them empty: then the "
    "images' own places are taken."
  )


def _centroid(wkb: bytes) -> tuple[float, float]:
  import shapely

  try:
    shape = shapely.from_wkb(wkb)
  except shapely.GEOSException as error:
    raise ValueError(f"column {_GEOMETRY!r} holds no WKB ({error})") from error
  if shape.is_empty:
    return math.nan, math.nan
  x, y = shape.centroid.x, shape.centroid.y
  if not (abs(x) <= 180 and abs(y) <= 90):
    raise ValueError(
      f"column {_GEOMETRY!r} lies at {x:g}, {y:g}, which are no degrees. Write it as GeoPandas' "
      "to_crs(4326) gives it, or without the column"
    )
  return x, y


def _degrees(row: Mapping[str, Any], column: str, limit: float) -> float:
  text = cell_text(row, column)
  try:
    value = float(text or "nan")
  except ValueError:
    value = math.inf
  if abs(value) > limit or (text and math.isnan(value)):
    swapped = " (are lon and lat swapped?)" if limit < abs(value) <= 180 else ""
    raise ValueError(f"column {column!r}: {text!r} is no number from -{limit} to {limit}{swapped}")
  return value
