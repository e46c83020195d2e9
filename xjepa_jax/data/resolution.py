"""The size of a file's pixels on the ground, against what a sensor's description says."""

from __future__ import annotations

import math

import numpy as np

from xjepa_jax.data.geography import to_degrees
from xjepa_jax.data.raster import GDAL_OPTIONS, RasterHeader, import_rasterio
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
  rasterio = import_rasterio()
  try:
    with rasterio.Env(**GDAL_OPTIONS):
      system = rasterio.CRS.from_string(header.crs)
      unit = 1.0 if system.is_geographic else system.linear_units_factor[1]
  except Exception:  # an engineering or damaged system: the image is sound, its scale unknown
    return None
  if not system.is_geographic:
    return math.hypot(a, d) * unit, math.hypot(b, e) * unit
  row, column = header.shape[0] / 2, header.shape[1] / 2
  x, y = np.array([a * column + b * row + c]), np.array([d * column + e * row + f])
  _, latitude = to_degrees(header.crs, x, y)
  east = _DEGREE * math.cos(math.radians(float(latitude[0])))
  return math.hypot(a * east, d * _DEGREE), math.hypot(b * east, e * _DEGREE)


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
  out = "_resampled".join(_split(header.path))
  raise ImageError(
    f"{header.path}: has pixels of {found[0]:.3g} x {found[1]:.3g} m, and {sensor.product} has "
    f"{expected:g} m. Bring it to that, in a projected system: gdalwarp -t_srs EPSG:CODE -tr "
    f"{expected:g} {expected:g} -r bilinear {header.path} {out}. If the encoder was trained on "
    f"such pixels all the same, {way_on}."
  )


def _split(path: str) -> tuple[str, str]:
  stem, dot, suffix = path.rpartition(".")
  return stem, dot + suffix
