"""The size of a file's pixels on the ground, against what a sensor's description says."""

from __future__ import annotations

import math

import numpy as np

from xjepa_jax.data.geography import to_degrees
from xjepa_jax.data.raster import RasterHeader
from xjepa_jax.errors import ImageError
from xjepa_jax.sensors import Sensor

# A little coarser or finer is the same texture to an encoder, twice is another.
_CLOSE = 1.5
_DEGREE = 111_195.0  # metres along a meridian, of a sphere of the Earth's mean radius


def pixel_metres(header: RasterHeader) -> tuple[float, float] | None:
  """Metres of a pixel along its image's columns and rows, in the middle of the image.

  Returns:
    None of an image without a place, or one in a system of no known unit.
  """
  if not header.crs or math.isnan(header.transform[0]):
    return None
  a, b, c, d, e, f = header.transform
  # The middle pixel's corner, and those after it along columns and along rows.
  column = header.shape[1] / 2 + np.array([0.0, 1, 0])
  row = header.shape[0] / 2 + np.array([0.0, 0, 1])
  # A system's unit may differ from place to place: Web Mercator's is half a metre at 60 degrees.
  longitude, latitude = to_degrees(header.crs, a * column + b * row + c, d * column + e * row + f)
  east = (longitude - longitude[0]) * math.cos(math.radians(latitude[0])) * _DEGREE
  north = (latitude - latitude[0]) * _DEGREE
  along = np.hypot(east, north)
  return (float(along[1]), float(along[2])) if np.isfinite(along).all() else None


def check_resolution(header: RasterHeader, sensor: Sensor, way_on: str) -> None:
  """Refuses an image whose pixels are of another size than the encoder's sensor's.

  Args:
    header: of the image; one without a place tells no size.
    sensor: as the encoder has it.
    way_on: what lets such images pass, for the message of the error: "give --any-resolution".

  Raises:
    ImageError: they are, along one axis or both.
  """
  found = pixel_metres(header)
  expected = min(band.gsd for band in sensor.bands)
  if found is None or all(1 / _CLOSE <= size / expected <= _CLOSE for size in found):
    return
  out = f"{header.path.rpartition('.')[0]}_resampled.tif"
  raise ImageError(
    f"{header.path}: has pixels of {found[0]:.3g} x {found[1]:.3g} m, and {sensor.product} has "
    f"{expected:g} m. Bring it to that, in a projected system: gdalwarp -t_srs EPSG:CODE -tr "
    f"{expected:g} {expected:g} -r bilinear {header.path} {out}. If the encoder was trained on "
    f"such pixels all the same, {way_on}."
  )
