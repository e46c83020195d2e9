"""One grid for all sensors of a pair, the first one's; other images are on it or warped onto it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from xjepa_jax.data.raster import GDAL_OPTIONS, Raster, giving_system, import_rasterio
from xjepa_jax.errors import ImageError
from xjepa_jax.sensors import Sensor

# Up to half a pixel apart, two sensors still show the same ground in every pixel.
MAX_SHIFT = 0.5
_ROUNDING = 1e-6  # tolerance for transforms in degrees, which are rounded when written


def align(
  rasters: Mapping[str, Raster],
  sensors: Mapping[str, Sensor],
  misaligned: str,
  resample: str,
) -> dict[str, Raster]:
  """Bring the images of one pair onto the grid of the first.

  An image is on that grid if it has the same coordinate reference system, height and width, and no
  corner is more than half a pixel off along either axis. Such an image is returned unchanged. If
  one of two images is not georeferenced, only height and width are compared.

  Args:
    rasters: sensor key -> image, the reference first.
    sensors: sensor key -> description, for its nodata value.
    misaligned: "refuse" or "warp" images that are not on the grid.
    resample: "nearest" or "bilinear", for warping. Interpolation ignores nodata.

  Returns:
    Sensor key -> image, in the given order, all of one height and width.

  Raises:
    ImageError: an image is misaligned and to be refused, or cannot be warped: it is not
      georeferenced, does not overlap the grid, or its sensor has no nodata value although the image
      does not cover the whole grid.
  """
  aligned: dict[str, Raster] = {}
  for key, raster in rasters.items():
    reference = next(iter(aligned.values()), raster)
    off = is_off_grid(raster, reference, misaligned)
    aligned[key] = _warp(raster, reference, sensors[key], resample) if off else raster
  return aligned


def is_off_grid(raster: Raster, reference: Raster, misaligned: str) -> bool:
  """Whether an image has to be warped onto the grid of another; its values are not used.

  Raises:
    ImageError: it is not on the grid, and is to be refused or cannot be warped.
  """
  problem = _misalignment(raster, reference)
  if problem is None:
    return False
  located = raster.georeferenced and reference.georeferenced
  lacking = [each.path for each in (raster, reference) if not each.crs]
  if located and (len(lacking) == 1 or (lacking and misaligned == "warp")):
    known = raster.crs or reference.crs
    case = f"If it is in {_short(known)} too, write" if known else "Write"
    raise ImageError(
      f"{raster.path}: {problem} of {reference.path}. {lacking[0]} lacks a coordinate reference "
      f"system. {case} that into the image, and name the new one: "
      f"{giving_system(lacking[0], known)}"
    )
  if misaligned != "warp":
    raise ImageError(
      f"{raster.path}: {problem} of {reference.path}. Align the files, or warp them on import."
    )
  if not located:
    raise ImageError(
      f"{raster.path}: {problem} of {reference.path}, and cannot be warped because "
      f"{reference.path if raster.georeferenced else 'it'} has no "
      "coordinate reference system. Bring them to one size before the import."
    )
  return True


def corner_shift(raster: Raster, reference: Raster) -> tuple[float, float]:
  """Offset of the image's worst corner from the same corner of the reference.

  Args:
    raster, reference: images of equal size, georeferenced in the same coordinate reference system.

  Returns:
    (columns, rows) in pixels of the reference, for the corner where either is largest.
  """
  height, width = raster.values.shape[:2]
  corners = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
  onto = np.linalg.inv(reference.matrix) @ raster.matrix @ corners
  columns, rows, _ = onto - corners
  worst = np.maximum(np.abs(columns), np.abs(rows)).argmax()
  return float(columns[worst]), float(rows[worst])


def _misalignment(raster: Raster, reference: Raster) -> str | None:
  """Why the image is not on the reference's grid, as the start of a sentence; None if it is."""
  located = raster.georeferenced and reference.georeferenced
  if located and not _same_crs(raster.crs, reference.crs):
    return f"is in {_short(raster.crs)}, not in the {_short(reference.crs)}"
  found, expected = raster.values.shape[:2], reference.values.shape[:2]
  if found != expected:
    return f"is {found[0]} x {found[1]} pixels, not the {expected[0]} x {expected[1]}"
  if located:
    x, y = corner_shift(raster, reference)
    if max(abs(x), abs(y)) > MAX_SHIFT + _ROUNDING:
      return (
        f"has a corner {x:+.2f} columns and {y:+.2f} rows (in pixels, at most {MAX_SHIFT} is let "
        "pass) off the grid"
      )
  return None


def _same_crs(a: str, b: str) -> bool:
  if a == b or not (a and b):
    return a == b
  # One system may be spelled as a code in one file and as WKT in another.
  rasterio = import_rasterio()
  try:
    with rasterio.Env(**GDAL_OPTIONS):
      return rasterio.CRS.from_string(a) == rasterio.CRS.from_string(b)
  except rasterio.errors.CRSError:
    return False


def _short(crs: str) -> str:
  return f"{crs[:60]}..." if len(crs) > 60 else crs or "no coordinate reference system"


def _warp(raster: Raster, reference: Raster, sensor: Sensor, resample: str) -> Raster:
  """The image on the reference's grid, with its sensor's nodata value where there is no data.

  Values pass through float64, which holds every stored type exactly, with NaN for nodata: given an
  integer nodata value, GDAL would change measured values that equal it.
  """
  rasterio = import_rasterio()
  from rasterio.warp import Resampling, reproject

  stored = raster.values
  if stored.dtype.name != sensor.dtype:
    raise ImageError(f"{raster.path}: holds {stored.dtype}, expected {sensor.dtype}.")
  unseen = ~sensor.known(stored)
  height, width = reference.values.shape[:2]
  warped = np.full((stored.shape[-1], height, width), np.nan)
  try:
    with rasterio.Env(**GDAL_OPTIONS):
      reproject(
        np.ascontiguousarray(np.moveaxis(np.where(unseen, np.nan, stored), -1, 0), np.float64),
        warped,
        src_transform=rasterio.Affine(*raster.transform),
        src_crs=raster.crs,
        src_nodata=np.nan,
        dst_transform=rasterio.Affine(*reference.transform),
        dst_crs=reference.crs,
        dst_nodata=np.nan,
        resampling=Resampling[resample],
        tolerance=0,  # rasterio uses it from 1.5 on; before, positions are accurate to 1/8 pixel
        UNIFIED_SRC_NODATA="NO",
        **_kernel(raster, reference),
      )
  except Exception as error:  # PROJ and GDAL raise many kinds of errors if they cannot convert
    raise ImageError(f"{raster.path}: cannot be warped onto {reference.path} ({error}).") from error
  warped = np.moveaxis(warped, 0, -1)
  return dataclasses.replace(
    raster,
    values=_fill(warped, raster, reference, sensor),
    crs=reference.crs,
    transform=reference.transform,
  )


def _kernel(raster: Raster, reference: Raster) -> dict[str, float]:
  """GDAL's XSCALE and YSCALE: size of a pixel of the image in reference pixels, at most 1.

  Below 1, "bilinear" averages. GDAL's own estimate mistakes a rotation for a change of scale, and
  so blurs every image that comes from a neighbouring UTM zone.
  """
  from rasterio.warp import transform

  height, width = reference.values.shape[:2]
  middle = np.array([[width / 2, height / 2, 1]] * 3) + [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
  x, y, _ = reference.matrix @ middle.T
  x, y = transform(reference.crs, raster.crs, x, y)
  columns, rows, _ = np.linalg.inv(raster.matrix) @ (x, y, [1, 1, 1])
  scales = {}
  for name, at in (("XSCALE", columns), ("YSCALE", rows)):
    pixels = math.hypot(at[1] - at[0], at[2] - at[0])
    scales[name] = 1 / pixels if pixels > 1.05 else 1.0  # GDAL tolerates 5 % as well
  return scales


def _fill(warped: np.ndarray, raster: Raster, reference: Raster, sensor: Sensor) -> np.ndarray:
  unseen = np.isnan(warped)
  if unseen.all():
    raise ImageError(f"{raster.path}: shows nothing of the area of {reference.path}.")
  dtype = np.dtype(sensor.dtype)
  nodata = sensor.marker
  if nodata is None:
    if unseen.any():
      raise ImageError(
        f"{raster.path}: does not cover {reference.path}, and {sensor.product} has no nodata value "
        "to mark what was not seen. Give the sensor one."
      )
    nodata = 0
  values = warped if dtype.kind == "f" else np.rint(warped)
  return np.ascontiguousarray(np.where(unseen, nodata, values)).astype(dtype)
