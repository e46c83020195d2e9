"""Combines bands of one scene, one file each and perhaps of several resolutions, into one image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xjepa_jax.data.raster import MAX_PIXELS, Raster, RasterHeader, raster_of, read_raster
from xjepa_jax.errors import ImageError


def files_of(path: str) -> list[str]:
  """The files of an image: "a.tif", or one per band, "a.tif;b.tif"."""
  return [part.strip() for part in path.split(";")]


def read_image(paths: Sequence[str], resample: str) -> Raster:
  """The image from one file, or from one file per band, see `read_bands`."""
  return read_raster(paths[0]) if len(paths) == 1 else read_bands(paths, resample)


def read_bands(paths: Sequence[str], resample: str, max_pixels: int = MAX_PIXELS) -> Raster:
  """Stack single-band files of one scene on the grid of the finest.

  Args:
    paths: one file per band, in the order of the bands.
    resample: how coarser bands are enlarged by their exact integer factor: "nearest" repeats
      pixels; "bilinear" interpolates between pixel centres, rounding to the stored type, and
      repeats pixels where a neighbour is not finite or equals the nodata value that its file
      declares.
    max_pixels: limit of the stacked image's pixels x bands.

  Returns:
    (H, W, len(paths)) values on the finest file's grid; `path` is that of the first file.

  Raises:
    ImageError: a file cannot be read, has several bands, or does not cover the finest file's area.
  """
  if not paths:
    raise ImageError("no band was named; name at least one file.")
  # Every band is enlarged to the finest one's size, so each gets an equal share of the limit.
  rasters = [read_raster(path, max_pixels // len(paths)) for path in paths]
  finest = max(rasters, key=lambda raster: raster.values.shape[0] * raster.values.shape[1])
  bands, hidden = [], []
  for raster in rasters:
    factor = factor_of(raster, finest)
    bands.append(_enlarge(raster.values[..., 0], factor, resample, raster.nodata))
    mask = np.zeros(raster.values.shape, bool) if raster.hidden is None else raster.hidden
    hidden.append(mask[..., 0].repeat(factor, axis=0).repeat(factor, axis=1))
  return dataclasses.replace(
    finest,
    values=np.stack(bands, axis=-1),
    hidden=np.stack(hidden, axis=-1) if any(mask.any() for mask in hidden) else None,
    **_of_bands(rasters),
  )


def stacked_header(headers: Sequence[RasterHeader]) -> RasterHeader:
  """The header of the image that `read_bands` would return for such files.

  Raises:
    ImageError: the files are not bands of one scene.
  """
  # Broadcast zeros stand in for the pixels and take no memory.
  rasters = [
    raster_of(each, np.broadcast_to(np.zeros((), each.dtype), (*each.shape, each.count)))
    for each in headers
  ]
  finest = max(range(len(headers)), key=lambda i: headers[i].shape[0] * headers[i].shape[1])
  for raster in rasters:
    factor_of(raster, rasters[finest])
  return dataclasses.replace(
    headers[finest],
    count=len(headers),
    masked=any(each.masked for each in headers),
    **_of_bands(rasters),
  )


def _of_bands(rasters: Sequence[Raster]) -> dict[str, Any]:
  """The files' metadata of their bands, as fields of a header or image of them all."""
  declared = [raster.nodata for raster in rasters if raster.nodata is not None]
  unequal = len({str(float(value)) for value in declared}) > 1
  called = tuple("".join(raster.descriptions[:1]) for raster in rasters)
  return {
    "path": rasters[0].path,
    "files": tuple(raster.path for raster in rasters),
    "nodata": declared[0] if declared and not unequal else None,
    "nodata_of_bands": tuple(raster.nodata for raster in rasters) if unequal else (),
    "descriptions": called if any(called) else (),
    "scales": _each(rasters, "scales", 1.0),
    "offsets": _each(rasters, "offsets", 0.0),
    "alpha": 0,
  }


def _each(rasters: Sequence[Raster], tag: str, plain: float) -> tuple[float, ...]:
  """One tag of all files; empty if no file has it."""
  found = [getattr(raster, tag) for raster in rasters]
  return tuple(each[0] if each else plain for each in found) if any(found) else ()


def factor_of(raster: Raster, finest: Raster) -> int:
  """Number of pixels of `finest` along one pixel of `raster`.

  Raises:
    ImageError: it is not a whole number, or the two are not bands of one scene.
  """
  height, width, bands = raster.values.shape
  rows, columns = finest.values.shape[:2]
  factor = rows // height
  problem = ""
  if bands != 1:
    problem = f"has {bands} bands, expected one a file"
  elif (height * factor, width * factor) != (rows, columns):
    problem = f"is {height} x {width}, no whole fraction of the {rows} x {columns}"
  elif raster.values.dtype != finest.values.dtype:
    problem = f"holds {raster.values.dtype}, not the {finest.values.dtype}"
  elif raster.crs != finest.crs:
    problem = f"is in {raster.crs or 'no crs'}, not in the {finest.crs or 'no crs'}"
  elif raster.georeferenced and finest.georeferenced:
    a, b, c, d, e, f = finest.transform
    expected = np.array([a * factor, b * factor, c, d * factor, e * factor, f])
    # Weighted by the size, because an error in the pixel size has its full effect at the far edge.
    edges = np.array([width, height, 1, width, height, 1])
    pixel = math.sqrt(abs(a * e - b * d))
    if np.abs((np.array(raster.transform) - expected) * edges).max() > 0.1 * pixel:
      problem = "does not cover the area"
  if problem:
    raise ImageError(f"{raster.path}: {problem} of {finest.path}; bands of one scene must match.")
  return factor


def _enlarge(band: np.ndarray, factor: int, resample: str, nodata: float | None) -> np.ndarray:
  nearest = band.repeat(factor, axis=0).repeat(factor, axis=1)
  if factor == 1 or resample == "nearest":
    return nearest
  seen = np.isfinite(band) if nodata is None else np.isfinite(band) & (band != nodata)
  # NaN spreads to every pixel with an invalid neighbour, and such pixels take the nearest value.
  smooth = np.where(seen, band, np.nan).astype(np.float64)
  for axis in (0, 1):
    size = smooth.shape[axis]
    # Centres of the fine pixels in coordinates of the coarse pixels' centres.
    at = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
    low = np.minimum(at.astype(int), max(size - 2, 0))
    weight = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
    high = np.minimum(low + 1, size - 1)
    smooth = smooth.take(low, axis) * (1 - weight) + smooth.take(high, axis) * weight
  rounded = smooth if band.dtype.kind == "f" else np.rint(smooth)
  return np.where(np.isnan(smooth), nearest, rounded).astype(band.dtype)
