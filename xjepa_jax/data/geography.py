"""Conversion from an image's grid to degrees in EPSG:4326, and distances between places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from xjepa_jax.data.raster import GDAL_OPTIONS, import_rasterio

_EARTH = 6371.0088  # km, mean radius
_DEGREES = "EPSG:4326"  # coordinates already in it need no rasterio


def to_degrees(crs: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Longitude and latitude of points, NaN where the conversion fails.

  Args:
    crs: coordinate reference system as in `Raster`.
    x, y: (n,) float64, map coordinates.

  Returns:
    Two (n,) float64 arrays. Longitudes are as the transformation gives them, so they run from 0 to
    360 for a geographic system that counts so.
  """
  found = (
    (np.array(x, np.float64), np.array(y, np.float64)) if crs == _DEGREES else _warped(crs, x, y)
  )
  wrong = ~(np.isfinite(found[0]) & np.isfinite(found[1])) | (np.abs(found[1]) > 90)
  for values in found:
    values[wrong] = np.nan
  return found


def _warped(crs: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  rasterio = import_rasterio()
  from rasterio.warp import transform

  try:
    with rasterio.Env(**GDAL_OPTIONS):
      longitude, latitude = transform(crs, _DEGREES, x, y)
  except Exception:  # an engineering or damaged system; the image is valid, its place is unknown
    return np.full(len(x), np.nan), np.full(len(x), np.nan)
  return np.array(longitude, np.float64), np.array(latitude, np.float64)


def map_points(
  transforms: np.ndarray, columns: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Map coordinates of positions given in pixels.

  Args:
    transforms: (n, 6), (a, b, c, d, e, f) as in rasterio.Affine.
    columns, rows: (n,) or (n, P).
  """
  a, b, c, d, e, f = (transforms[:, i].reshape(-1, *[1] * (columns.ndim - 1)) for i in range(6))
  return a * columns + b * rows + c, d * columns + e * rows + f


def numbered(systems: Iterable[str]) -> tuple[list[str], np.ndarray]:
  """The distinct systems, and the index of each item's system, (n,) int32.

  WKT strings are long and tiles are many, so the strings are not repeated per tile.
  """
  names: dict[str, int] = {}
  number = [names.setdefault(each, len(names)) for each in systems]
  return list(names), np.array(number, np.int32)


def degrees_of(
  systems: Sequence[str], number: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Like `to_degrees` for n rows in several systems, with one transformation per system.

  Args:
    systems: the distinct systems, see `numbered`; "" for none.
    number: (n,) index of each row's system.
    x, y: (n,) or (n, P).
  """
  longitude, latitude = np.full(x.shape, np.nan), np.full(x.shape, np.nan)
  for place, name in enumerate(systems):
    mine = number == place
    if name and mine.any():
      found = to_degrees(name, x[mine].reshape(-1), y[mine].reshape(-1))
      longitude[mine], latitude[mine] = (values.reshape(x[mine].shape) for values in found)
  return longitude, latitude


def wrapped(longitude: np.ndarray) -> np.ndarray:
  """Longitudes wrapped to [-180, 180)."""
  return np.where((longitude >= -180) & (longitude < 180), longitude, (longitude + 180) % 360 - 180)


def distances(
  longitude: float | np.ndarray,
  latitude: float | np.ndarray,
  longitudes: np.ndarray,
  latitudes: np.ndarray,
) -> np.ndarray:
  """Great-circle distances in km by the haversine formula, from degrees; (n,) like `longitudes`."""
  across = np.sin(np.radians(longitudes - longitude) / 2) ** 2
  along = np.sin(np.radians(latitudes - latitude) / 2) ** 2
  inner = along + np.cos(np.radians(latitude)) * np.cos(np.radians(latitudes)) * across
  return 2 * _EARTH * np.arcsin(np.sqrt(np.clip(inner, 0, 1)))
