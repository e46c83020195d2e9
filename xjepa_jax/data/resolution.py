"""The size of a file's pixels on the ground, against what a sensor's description says."""

from __future__ import annotations

import math

import numpy as np

from xjepa_jax.data.geography import to_degrees
from xjepa_jax.data.image_formats import rewriting
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
  """Refuses an image whose pixels are of another size than its sensor's.

  Args:
    header: of the image; one without a place tells no size.
    sensor: as the encoder or the import has it.
    way_on: what lets such images pass, as a sentence for the message of the error.

  Raises:
    ImageError: they are, along one axis or both.
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
