"""Reads images from untrusted files: GeoTIFF, JPEG 2000, PNG and npy, with values as stored.

The content must match the suffix, and the size declared in the header is checked before any pixel
is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import stat
from collections.abc import Iterator

import numpy as np

from xjepa_jax.data.image_formats import (
  GDAL_OPTIONS,
  MAX_PIXELS,
  Opened,
  RasterHeader,
  import_rasterio,
  open_geotiff,
  open_npy,
  open_png,
  rewriting,
)
from xjepa_jax.data.pairs import NO_TRANSFORM
from xjepa_jax.errors import ImageError
from xjepa_jax.paths import StrPath

_KINDS = {
  ".tif": "GeoTIFF",
  ".tiff": "GeoTIFF",
  ".jp2": "JPEG 2000",
  ".png": "PNG",
  ".npy": "npy",
}
SUFFIXES = tuple(_KINDS)
_OPEN = {"GeoTIFF": open_geotiff, "JPEG 2000": open_geotiff, "PNG": open_png, "npy": open_npy}
_MAGIC = {
  "GeoTIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),  # the last two: BigTIFF
  "JPEG 2000": (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),  # JP2 container, or bare codestream
  "PNG": (b"\x89PNG\r\n\x1a\n",),
  "npy": (b"\x93NUMPY",),
}


@dataclasses.dataclass(frozen=True)
class Raster:
  """An image with its georeference.

  Attributes:
    values: (H, W, C) as stored.
    path: path of the file, for messages.
    crs: "EPSG:32634" if it has a code, else WKT; "" if the file has none.
    transform: (a, b, c, d, e, f) from (column, row) to map coordinates, as in rasterio.Affine; all
      NaN if the file has none.
    nodata: nodata value that the file declares, or None.
    descriptions: the file's description of each band, "" where there is none; or empty.
    hidden: (H, W, 1) or (H, W, C) bool, True where a mask of the file hides values; or None.
    scales, offsets, alpha, located_by, files, nodata_of_bands: as in `RasterHeader`.
  """

  values: np.ndarray
  path: str
  crs: str = ""
  transform: tuple[float, ...] = NO_TRANSFORM
  nodata: float | None = None
  descriptions: tuple[str, ...] = ()
  hidden: np.ndarray | None = None
  scales: tuple[float, ...] = ()
  offsets: tuple[float, ...] = ()
  alpha: int = 0
  located_by: str = ""
  files: tuple[str, ...] = ()
  nodata_of_bands: tuple[float | None, ...] = ()

  @property
  def count(self) -> int:
    """Number of bands."""
    return int(self.values.shape[2])

  @property
  def declared(self) -> tuple[float | None, ...]:
    """Declared nodata value of each band."""
    return self.nodata_of_bands or (self.nodata,) * self.count

  @property
  def georeferenced(self) -> bool:
    return not math.isnan(self.transform[0])

  @property
  def matrix(self) -> np.ndarray:
    """(3, 3) float64 that maps (column, row, 1) to (x, y, 1)."""
    return np.array([*self.transform, 0, 0, 1]).reshape(3, 3)


def read_raster(path: StrPath, max_pixels: int = MAX_PIXELS) -> Raster:
  """Read a .tif, .tiff, .jp2, .png or .npy file.

  Args:
    path: path of a regular file; its suffix names the format.
    max_pixels: refuse a file that declares more pixels x bands than this, before reading them.

  Returns:
    The image as stored: nothing is scaled, and (H, W) becomes (H, W, 1).

  Raises:
    ImageError: there is no such file, it is not in the format of its suffix, it is damaged or too
      large, or a sensor cannot have values of its type.
  """
  path = os.fspath(path)
  with _open(path, max_pixels) as (header, load):
    loaded, hidden = load()
    values = np.ascontiguousarray(loaded, np.dtype(header.dtype))  # native byte order
    values = values.reshape(*header.shape, header.count)
  return raster_of(header, values, None if hidden is None else hidden[..., None])


def raster_of(header: RasterHeader, values: np.ndarray, hidden: np.ndarray | None = None) -> Raster:
  """An image combined with the metadata in its header."""
  return Raster(
    values,
    header.path,
    header.crs,
    header.transform,
    header.nodata,
    header.descriptions,
    hidden,
    header.scales,
    header.offsets,
    header.alpha,
    header.located_by,
    header.files,
    header.nodata_of_bands,
  )


def read_header(path: StrPath, max_pixels: int = MAX_PIXELS) -> RasterHeader:
  """Read the metadata of a file that `read_raster` can read, and none of its pixels.

  Raises:
    ImageError: as in `read_raster`, as far as the header shows it.
  """
  path = os.fspath(path)
  with _open(path, max_pixels) as (header, _):
    return header


def check_placed(image: RasterHeader | Raster) -> None:
  """Refuse an image that is georeferenced by something other than its own transform.

  Raises:
    ImageError: it is georeferenced by control points or by a file beside it.
  """
  if image.located_by:
    tool = "gdal_translate" if image.located_by.startswith("the ") else "gdalwarp"
    lacks = not image.crs and image.located_by.startswith("the world file")
    tool += " -a_srs EPSG:CODE" if lacks else ""
    code = (
      " CODE is that of its coordinate system, which a world file does not tell." if lacks else ""
    )
    raise ImageError(
      f"{image.path}: is placed by {image.located_by}, which is not read.{code} Write its place "
      f"into the image, and name the new one: {rewriting(image.path, tool, 'placed')}"
    )


def giving_system(path: str, system: str = "") -> str:
  """A command that adds the missing coordinate reference system to an image with a transform."""
  code = system if system.startswith("EPSG:") else "EPSG:CODE"
  return rewriting(path, f"gdal_translate -a_srs {code}", "placed")


def centre(raster: Raster) -> tuple[float, float]:
  """Longitude and latitude of the image's centre, degrees in EPSG:4326.

  Returns:
    (NaN, NaN) if the image has no coordinate reference system, or none that converts to EPSG:4326.
  """
  if not raster.crs or not raster.georeferenced:
    return math.nan, math.nan
  rasterio = import_rasterio()
  from rasterio.warp import transform

  height, width = raster.values.shape[:2]
  x, y, _ = raster.matrix @ (width / 2, height / 2, 1)
  try:
    with rasterio.Env(**GDAL_OPTIONS):
      (longitude,), (latitude,) = transform(raster.crs, "EPSG:4326", [x], [y])
  except Exception:  # an engineering or damaged system; the image is valid, its place is unknown
    return math.nan, math.nan
  if not (math.isfinite(longitude) and abs(latitude) <= 90):
    return math.nan, math.nan
  if abs(longitude) > 180:
    longitude = (longitude + 180) % 360 - 180
  return float(longitude), float(latitude)


@contextlib.contextmanager
def _open(path: str, max_pixels: int) -> Iterator[Opened]:
  kind = _kind(path)
  try:
    with _OPEN[kind](path, max_pixels) as opened:
      yield opened
  except ImageError:
    raise
  except Exception as error:  # three libraries raise many kinds of errors on damaged bytes
    reason = error.__cause__ or str(error) or type(error).__name__  # rasterio sets the cause
    raise ImageError(f"{path}: cannot be read as {kind}, it is damaged ({reason}).") from error


def _kind(path: str) -> str:
  """The format named by the suffix and confirmed by the first bytes of a regular file."""
  suffix = os.path.splitext(path)[1].lower()
  if suffix not in _KINDS:
    raise ImageError(f"{path}: unknown suffix {suffix!r}; expected one of {', '.join(SUFFIXES)}.")
  if "://" in path or os.path.abspath(path).startswith("/vsi"):
    raise ImageError(f"{path}: is no file of this machine; copy it to disk and name it there.")
  try:
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait forever
      raise ImageError(f"{path}: is not a regular file.")
    with open(path, "rb") as file:
      head = file.read(8)
  except FileNotFoundError:
    raise ImageError(f"{path}: there is no such file.") from None
  except (OSError, ValueError) as error:  # ValueError: a NUL in the name
    raise ImageError(f"{path!r}: cannot be opened ({error}).") from error
  promised = _KINDS[suffix]
  if head.startswith(_MAGIC[promised]):
    return promised
  held = [kind for kind, magic in _MAGIC.items() if head.startswith(magic)]
  found = f"it holds {held[0]}" if held else f"it begins with {head!r}" if head else "it is empty"
  raise ImageError(f"{path}: the suffix {suffix} promises {promised}, but {found}.")
