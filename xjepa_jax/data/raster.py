"""Images from files that nobody vouches for: GeoTIFF, PNG and npy, read as they were stored.

The content has to be what the suffix says, the size declared in the header is checked before any
pixel is read, and only GDAL's own GeoTIFF driver is let near a file: no VRT, no /vsi path, no
sidecar file and no pickle can make this module read anything but the file that was named.
"""

from __future__ import annotations

import dataclasses
import math
import os
import stat
import struct
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from xjepa_jax.errors import ImageError
from xjepa_jax.sensors import DTYPES

MAX_PIXELS = 2**28  # pixels x bands: 13 bands of 4,500 x 4,500
SUFFIXES = (".tif", ".tiff", ".png", ".npy")
NO_TRANSFORM = (math.nan,) * 6
# World files, .aux.xml, overviews and masks next to an image are not part of it.
GDAL_OPTIONS = {
  "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
  "GDAL_PAM_ENABLED": "NO",
  "GDAL_GEOREF_SOURCES": "INTERNAL",
}
_MAGIC = {
  "GeoTIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),  # the last two: BigTIFF
  "PNG": (b"\x89PNG\r\n\x1a\n",),
  "npy": (b"\x93NUMPY",),
}
_KINDS = {".tif": "GeoTIFF", ".tiff": "GeoTIFF", ".png": "PNG", ".npy": "npy"}
# PNG colour type -> bands (PNG specification, 11.2.1); 3 is a palette, whose values are no values.
_PNG_BANDS = {0: 1, 2: 3, 4: 2, 6: 4}


@dataclasses.dataclass(frozen=True)
class Raster:
  """An image and where it lies.

  Attributes:
    values: (H, W, C) as stored.
    path: of the file that it came from, for messages.
    crs: "EPSG:32634" where it has a code, else WKT, "" if the file has none.
    transform: (a, b, c, d, e, f) from (column, row) to map coordinates, as rasterio.Affine has it;
      all NaN if the file has none.
    nodata: the value that the file declares as nothing seen, or None.
  """

  values: np.ndarray
  path: str
  crs: str = ""
  transform: tuple[float, ...] = NO_TRANSFORM
  nodata: float | None = None

  @property
  def georeferenced(self) -> bool:
    return not math.isnan(self.transform[0])

  @property
  def matrix(self) -> np.ndarray:
    """(3, 3) float64 that takes (column, row, 1) to (x, y, 1)."""
    return np.array([*self.transform, 0, 0, 1]).reshape(3, 3)


def read_raster(path: str, max_pixels: int = MAX_PIXELS) -> Raster:
  """Reads a .tif, .tiff, .png or .npy file.

  Args:
    path: of a regular file; its suffix says what it holds.
    max_pixels: refuse a file that declares more pixels x bands than this, before reading them.

  Returns:
    The image as stored: nothing is scaled, and (H, W) becomes (H, W, 1).

  Raises:
    ImageError: there is no such file, it is not what its suffix says, it is damaged or too large,
      or its type of values is not one a sensor can have.
  """
  kind = _kind(path)
  reader = {"GeoTIFF": _read_geotiff, "PNG": _read_png, "npy": _read_npy}[kind]
  try:
    raster = reader(path, max_pixels)
  except ImageError:
    raise
  except Exception as error:  # whatever three libraries make of damaged bytes
    reason = error.__cause__ or str(error) or type(error).__name__  # rasterio keeps it in the cause
    raise ImageError(f"{path}: cannot be read as {kind}, it is damaged ({reason}).") from error
  if raster.values.dtype.name not in DTYPES:
    raise ImageError(
      f"{path}: holds values of type {raster.values.dtype}; expected one of {', '.join(DTYPES)}."
    )
  return raster


def read_bands(paths: Sequence[str], resample: str, max_pixels: int = MAX_PIXELS) -> Raster:
  """Stacks single-band files of one scene on the grid of the finest.

  Args:
    paths: one file a band, in the order of the bands.
    resample: how coarser bands are brought up by their exact integer factor: "nearest" repeats
      pixels; "bilinear" interpolates between pixel centres, rounding to the stored type, and
      repeats where a neighbour is not finite or the nodata value that its file declares.
    max_pixels: limit of the stacked image's pixels x bands.

  Returns:
    (H, W, len(paths)) values with the finest file's grid; `path` is the first's.

  Raises:
    ImageError: a file cannot be read, has several bands, or does not cover what the finest covers.
  """
  if not paths:
    raise ImageError("no band was named; name at least one file.")
  rasters = [read_raster(path, max_pixels // len(paths)) for path in paths]
  finest = max(rasters, key=lambda raster: raster.values.shape[0] * raster.values.shape[1])
  bands = []
  for raster in rasters:
    factor = _factor(raster, finest)
    bands.append(_enlarge(raster.values[..., 0], factor, resample, raster.nodata))
  declared = [raster.nodata for raster in rasters if raster.nodata is not None]
  if len({str(float(value)) for value in declared}) > 1:
    raise ImageError(f"{paths[0]} and other bands of its scene declare unequal nodata: {declared}.")
  return dataclasses.replace(
    finest,
    values=np.stack(bands, axis=-1),
    path=paths[0],
    nodata=declared[0] if declared else None,
  )


def centre(raster: Raster) -> tuple[float, float]:
  """Longitude and latitude of the image's centre, degrees in EPSG:4326.

  Returns:
    (NaN, NaN) if the image has no coordinate reference system, or one without a way to EPSG:4326.
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
  except Exception:  # an engineering or damaged system: the image is sound, its place unknown
    return math.nan, math.nan
  if not (math.isfinite(longitude) and abs(latitude) <= 90):
    return math.nan, math.nan
  if abs(longitude) > 180:
    longitude = (longitude + 180) % 360 - 180
  return float(longitude), float(latitude)


def import_rasterio() -> Any:
  """The rasterio module.

  Raises:
    ImageError: it is not installed.
  """
  try:
    import rasterio  # GDAL takes half a second: not for a --help
  except ImportError as error:
    raise ImageError("GeoTIFF needs rasterio: pip install xjepa_jax[geo]") from error
  return rasterio


def _kind(path: str) -> str:
  """What the suffix promises and the first bytes hold; the file is known to be a regular one."""
  suffix = os.path.splitext(path)[1].lower()
  if suffix not in _KINDS:
    raise ImageError(f"{path}: unknown suffix {suffix!r}; expected one of {', '.join(SUFFIXES)}.")
  if "://" in path or os.path.abspath(path).startswith("/vsi"):
    raise ImageError(f"{path}: is no file of this machine; copy it to disk and name it there.")
  try:
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
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


def _check_size(path: str, height: int, width: int, bands: int, max_pixels: int) -> None:
  if min(height, width, bands) < 1:
    raise ImageError(f"{path}: declares an empty image, {height} x {width} x {bands}.")
  if height * width * bands > max_pixels:
    raise ImageError(
      f"{path}: declares {height} x {width} pixels in {bands} bands, more than the limit of "
      f"{max_pixels} pixels x bands. Cut it into tiles."
    )


def _read_geotiff(path: str, max_pixels: int) -> Raster:
  rasterio = import_rasterio()
  with warnings.catch_warnings(), rasterio.Env(**GDAL_OPTIONS):
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    # An absolute path, because "GTIFF_DIR:..." and the like are not paths to GDAL.
    with rasterio.open(os.path.abspath(path), driver="GTiff") as file:
      _check_size(path, file.height, file.width, file.count, max_pixels)
      for height, width in file.block_shapes[:1]:  # a block is decoded whole, however large
        _check_size(path, height, width, 1, max(max_pixels, 2**24))
      if file.subdatasets:
        raise ImageError(f"{path}: holds {len(file.subdatasets)} images; expected one a file.")
      transform = tuple(file.transform)[:6]
      if file.transform.is_identity:  # what rasterio says where the file says nothing
        transform = NO_TRANSFORM
      elif not (all(map(math.isfinite, transform)) and file.transform.determinant != 0):
        raise ImageError(f"{path}: its transform {transform} maps pixels to no area.")
      crs = _crs_name(file.crs)
      values = np.ascontiguousarray(np.moveaxis(file.read(), 0, -1))
      return Raster(values, path, crs, transform, file.nodata)


def _crs_name(crs: Any) -> str:
  if not crs:
    return ""
  code = crs.to_epsg()
  return f"EPSG:{code}" if code else crs.to_wkt()


def _read_png(path: str, max_pixels: int) -> Raster:
  try:
    from PIL import Image
  except ImportError as error:
    raise ImageError("PNG needs Pillow: pip install xjepa_jax[geo]") from error
  with open(path, "rb") as file:
    head = file.read(29)
  width, height, depth, colour = struct.unpack(">IIBB", head[16:26])
  _check_size(path, height, width, _PNG_BANDS.get(colour, 1), max_pixels)
  if colour not in _PNG_BANDS:
    raise ImageError(f"{path}: a PNG with a palette holds no values; save it as grey or RGB.")
  if not (depth == 8 or (depth == 16 and colour == 0)):
    raise ImageError(
      f"{path}: a PNG of {_PNG_BANDS[colour]} bands with {depth} bits each would not be read as "
      "stored; expected 8 bits, or 16 bits in one band. Save it as GeoTIFF."
    )
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is ours, above
    with Image.open(path, formats=["PNG"]) as image:
      image.verify()  # every chunk's CRC, which decoding skips
    with Image.open(path, formats=["PNG"]) as image:
      values = np.asarray(image)
  values = values.astype(np.uint8 if depth == 8 else np.uint16)
  return Raster(values.reshape(height, width, _PNG_BANDS[colour]), path)


def _read_npy(path: str, max_pixels: int) -> Raster:
  with open(path, "rb") as file:
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0
    if version != (1, 0):
      header = np.lib.format.read_array_header_2_0
    shape, _, dtype = header(file)
    if dtype.name not in DTYPES:  # objects would be a pickle
      raise ImageError(f"{path}: holds values of type {dtype}; expected {', '.join(DTYPES)}.")
    if len(shape) not in (2, 3):
      raise ImageError(f"{path}: has the shape {shape}; expected (H, W) or (H, W, C).")
    _check_size(path, shape[0], shape[1], shape[2] if len(shape) == 3 else 1, max_pixels)
    declared = math.prod(shape) * dtype.itemsize
    held = os.fstat(file.fileno()).st_size - file.tell()
    if held < declared:
      raise ImageError(f"{path}: is cut short; it declares {declared} bytes and holds {held}.")
    file.seek(0)
    values = np.load(file, allow_pickle=False)
  values = np.ascontiguousarray(values, dtype.newbyteorder("="))
  return Raster(values.reshape(*shape[:2], -1), path)


def _factor(raster: Raster, finest: Raster) -> int:
  """How many pixels of `finest` lie along one of `raster`."""
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
    edges = np.array([width, height, 1, width, height, 1])  # a slope errs most at the far edge
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
  smooth = np.where(seen, band, np.nan).astype(np.float64)
  for axis in (0, 1):
    size = smooth.shape[axis]
    at = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
    low = np.minimum(at.astype(int), max(size - 2, 0))
    weight = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
    high = np.minimum(low + 1, size - 1)
    smooth = smooth.take(low, axis) * (1 - weight) + smooth.take(high, axis) * weight
  rounded = smooth if band.dtype.kind == "f" else np.rint(smooth)
  return np.where(np.isnan(smooth), nearest, rounded).astype(band.dtype)
