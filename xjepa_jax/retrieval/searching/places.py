"""Finding the tile that contains a place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import shapely

from xjepa_jax.data.geography import distances
from xjepa_jax.errors import SearchError
from xjepa_jax.retrieval.embedding.files import EmbeddingFiles

_CANDIDATES = 64  # tiles with the nearest centres, whose outlines are read
# Degrees, about a tenth of a millimetre, so that there are no gaps between adjacent tiles.
_ROUNDING = 1e-9


def row_at(
  files: EmbeddingFiles,
  longitude: float,
  latitude: float,
  rows: np.ndarray,
  longitudes: np.ndarray,
  latitudes: np.ndarray,
) -> int:
  """Return the row whose tile contains a place; if several of one sensor do, the nearest centre's.

  Args:
    files: the archive's embeddings.
    longitude, latitude: degrees in EPSG:4326.
    rows: (n,) rows that may be returned.
    longitudes, latitudes: (n,) centres of these rows, NaN where unknown.

  Raises:
    SearchError: the coordinates are out of range, no tile contains the place, or tiles of several
      sensors do.
  """
  if not (abs(longitude) <= 180 and abs(latitude) <= 90):
    raise SearchError(
      f"longitude {longitude:g}, latitude {latitude:g}: expected degrees, -180 to 180 "
      "and -90 to 90, in this order."
    )
  away = distances(longitude, latitude, longitudes, latitudes)
  known = np.flatnonzero(np.isfinite(away))
  if not len(known):
    raise SearchError("no tile has coordinates: ask by image or by id.")
  nearest = known[np.argsort(away[known], kind="stable")[:_CANDIDATES]]
  containing = [
    entry for entry in files.take(rows[nearest]) if _contains(entry, longitude, latitude)
  ]
  sensors = sorted({str(entry["sensor"]) for entry in containing})
  if len(sensors) > 1:
    raise SearchError(
      f"tiles of {', '.join(sensors)} contain longitude {longitude:g}, latitude {latitude:g}: name "
      "the query's sensor."
    )
  if containing:
    return int(containing[0]["row"])
  raise SearchError(
    f"no tile contains longitude {longitude:g}, latitude {latitude:g}; the centre of the nearest "
    f"one is {away[nearest[0]]:.1f} km away."
  )


def _contains(entry: Mapping[str, Any], longitude: float, latitude: float) -> bool:
  """Whether a row's tile contains a place.

  This uses the outline, because a box is larger than its tile, and the box of a tile across the
  antimeridian may span the globe.
  """
  box, footprint = entry.get("bbox"), entry.get("footprint")
  if footprint is None:
    return box is not None and _inside(longitude, latitude, box)
  outline = shapely.from_wkb(footprint)
  # The antimeridian is at -180 as well as at 180.
  turns = (longitude, -longitude) if abs(longitude) == 180 else (longitude,)
  return any(outline.distance(shapely.Point(x, latitude)) <= _ROUNDING for x in turns)


def _inside(longitude: float, latitude: float, box: dict[str, float]) -> bool:
  west, east = box["xmin"], box["xmax"]
  within = west <= longitude <= east if west <= east else longitude >= west or longitude <= east
  return within and box["ymin"] <= latitude <= box["ymax"]
