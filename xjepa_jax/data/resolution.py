"""Compares the size of a file's pixels on the ground with the sensor's ground sampling distance."""

from __future__ import annotations

import math

import numpy as np

from xjepa_jax.data.geography import to_degrees
from xjepa_jax.data.image_formats import rewriting
from xjepa_jax.data.raster import RasterHeader
from xjepa_jax.errors import ImageError
from xjepa_jax.sensors import Sensor

# Largest accepted ratio of pixel sizes. Slightly coarser or finer pixels show an encoder the same
# texture; pixels of twice the size do not.
_CLOSE = 1.5
_DEGREE = 111_195.0  # metres per degree along a meridian, on a sphere of the Earth's mean radius


def pixel_metres(header: RasterHeader) -> tuple[float, float] | None:
  """Size in metres of a pixel along columns and rows, in the middle of the image.

  Returns:
    None if the image is not georeferenced, or its coordinates cannot be converted.
  """
  if not header.crs or math.isnan(header.transform[0]):
    return None
  a, b, c, d, e, f = header.transform
  # A corner of the middle pixel, and the next corners along columns and along rows.
  column = header.shape[1] / 2 + np.array([0.0, 1, 0])
  row = header.shape[0] / 2 + np.array([0.0, 0, 1])
  # Convert via degrees, since a map unit's length may vary: Web Mercator's is half a metre at 60
  # degrees.
  longitude, latitude = to_degrees(header.crs, a * column + b * row + c, d * column + e * row + f)
  east = (longitude - longitude[0]) * math.cos(math.radians(latitude[0])) * _DEGREE
  north = (latitude - latitude[0]) * _DEGREE
  along = np.hypot(east, north)
  return (float(along[1]), float(along[2])) if np.isfinite(along).all() else None


def check_resolution(header: RasterHeader, sensor: Sensor, way_on: str) -> None:
  """Refuse an image whose pixel size differs too much from its sensor's.

  Args:
    header: header of the image; one that is not georeferenced passes.
    sensor: sensor as the encoder or the import has it.
    way_on: sentence for the error message that says how to accept such images.

  Raises:
    ImageError: the pixel size differs along one or both axes.
  """
  found = pixel_metres(header)
  expected = min(band.gsd for band in sensor.bands)
  if found is None or all(1 / _CLOSE <= size / expected <= _CLOSE for size in found):
    return
  tool = f"gdalwarp -t_srs EPSG:CODE -tr {expected:g} {expected:g} -r bilinear"
  raise ImageError(
    f"{header.path}: has pixels of {found[0]:.3g} x {found[1]:.3g} m, and {sensor.product} has "
    f"{expected:g} m. {way_on} Else bring it to that, in a projected system, and name the new one: "
    f"{rewriting(header.path, tool, 'resampled')}"
  )
