"""GeoTIFF, PNG and npy, each opened to its header, with a way to load the pixels.

Only GDAL's own GeoTIFF driver is let near a file: no VRT, no /vsi path, no sidecar file and no
pickle can make this module read anything but the file that was named.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from xjepa_jax.data.pairs import NO_TRANSFORM
from xjepa_jax.errors import ImageError
from xjepa_jax.sensors import DTYPES

MAX_PIXELS = 2**28  # pixels x bands: 13 bands of 4,500 x 4,500
# World files, .aux.xml, overviews and masks next to an image are not part of it.
GDAL_OPTIONS = {
  "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
  "GDAL_PAM_ENABLED": "NO",
  "GDAL_GEOREF_SOURCES": "INTERNAL",
}
# PNG colour type -> bands (PNG specification, 11.2.1); 3 is a palette, whose values are no values.
_PNG_BANDS = {0: 1, 2: 3, 4: 2, 6: 4}


@dataclasses.dataclass(frozen=True)
class RasterHeader:
  """What an image file says of itself before any pixel is read.

  Attributes:
    path: of the file.
    shape: (H, W).
    count: of bands.
    dtype: NumPy name of the stored type, one of `sensors.DTYPES`.
    crs, transform, nodata, descriptions: as a `Raster` has them.
    tags: what else a GeoTIFF says of itself, name -> text, such as TIFFTAG_DATETIME.
  """

  path: str
  shape: tuple[int, int]
  count: int
  dtype: str
  crs: str = ""
  transform: tuple[float, ...] = NO_TRANSFORM
  nodata: float | None = None
  descriptions: tuple[str, ...] = ()
  tags: Mapping[str, str] = dataclasses.field(default_factory=dict)


# A file's header, and what loads its values: (H, W, C), or (H, W) of one band.
Opened = tuple[RasterHeader, Callable[[], np.ndarray]]


def import_rasterio() -> Any:
  """The rasterio module.

  Raises:
    ImageError: it is not installed.
  """
  try:
    import rasterio  # GDAL takes half a second: not for a --help
  except ImportError as error:
    raise ImageError(
      "GeoTIFF and map coordinates need rasterio: pip install xjepa_jax[geo]"
    ) from error
  return rasterio


@contextlib.contextmanager
def open_geotiff(path: str, max_pixels: int) -> Iterator[Opened]:
  """Opens a GeoTIFF of one image."""
  rasterio = import_rasterio()
  with warnings.catch_warnings(), rasterio.Env(**GDAL_OPTIONS):
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    # An absolute path, because "GTIFF_DIR:..." and the like are not paths to GDAL.
    with rasterio.open(os.path.abspath(path), driver="GTiff") as file:
      _check_size(path, file.height, file.width, file.count, max_pixels)
      for height, width in file.block_shapes[:1]:  # a block is decoded whole, however large
        _check_size(path, height, width, 1, min(max(max_pixels, 2**24), MAX_PIXELS))
      if file.subdatasets:
        raise ImageError(f"{path}: holds {len(file.subdatasets)} images; expected one a file.")
      _check_dtype(path, file.dtypes[0])
      header = RasterHeader(
        path, file.shape, file.count, file.dtypes[0], _crs(file), _transform(path, file),
        file.nodata, tuple(text or "" for text in file.descriptions), file.tags(),
      )  # fmt: skip
      yield header, lambda: np.moveaxis(file.read(), 0, -1)


@contextlib.contextmanager
def open_png(path: str, max_pixels: int) -> Iterator[Opened]:
  """Opens a PNG that Pillow reads as it is stored: 8 bits, or 16 in one band."""
  with open(path, "rb") as file:
    head = file.read(29)
  width, height, depth, colour = struct.unpack(">IIBB", head[16:26])
  count = _PNG_BANDS.get(colour, 1)
  _check_size(path, height, width, count, max_pixels)
  if colour not in _PNG_BANDS:
    raise ImageError(f"{path}: a PNG with a palette holds no values; save it as grey or RGB.")
  if not (depth == 8 or (depth == 16 and colour == 0)):
    raise ImageError(
      f"{path}: a PNG of {count} bands with {depth} bits each would not be read as stored; "
      "expected 8 bits, or 16 bits in one band. Save it as GeoTIFF."
    )
  header = RasterHeader(path, (height, width), count, "uint8" if depth == 8 else "uint16")
  yield header, lambda: _png_values(path)


@contextlib.contextmanager
def open_npy(path: str, max_pixels: int) -> Iterator[Opened]:
  """Opens an array of shape (H, W) or (H, W, C)."""
  with open(path, "rb") as file:
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0
    if version != (1, 0):
      read_header = np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    _check_dtype(path, dtype.name)  # objects would be a pickle
    if len(shape) not in (2, 3):
      raise ImageError(f"{path}: has the shape {shape}; expected (H, W) or (H, W, C).")
    count = shape[2] if len(shape) == 3 else 1
    _check_size(path, shape[0], shape[1], count, max_pixels)
    declared = math.prod(shape) * dtype.itemsize
    held = os.fstat(file.fileno()).st_size - file.tell()
    if held < declared:
      raise ImageError(f"{path}: is cut short; it declares {declared} bytes and holds {held}.")
    file.seek(0)
    header = RasterHeader(path, (shape[0], shape[1]), count, dtype.name)
    yield header, lambda: np.load(file, allow_pickle=False)


def _check_size(path: str, height: int, width: int, bands: int, max_pixels: int) -> None:
  if min(height, width, bands) < 1:
    raise ImageError(f"{path}: declares an empty image, {height} x {width} x {bands}.")
  if height * width * bands > max_pixels:
    raise ImageError(
      f"{path}: declares {height} x {width} pixels in {bands} bands, more than the limit of "
      f"{max_pixels} pixels x bands. Cut it into tiles."
    )


def _check_dtype(path: str, dtype: str) -> None:
  if dtype not in DTYPES:
    raise ImageError(f"{path}: holds values of type {dtype}; expected one of {', '.join(DTYPES)}.")


def _crs(file: Any) -> str:
  if not file.crs:
    return ""
  code = file.crs.to_epsg()
  return f"EPSG:{code}" if code else file.crs.to_wkt()


def _transform(path: str, file: Any) -> tuple[float, ...]:
  if file.transform.is_identity:  # what rasterio says where the file says nothing
    return NO_TRANSFORM
  transform = tuple(file.transform)[:6]
  if not (all(map(math.isfinite, transform)) and file.transform.determinant != 0):
    raise ImageError(f"{path}: its transform {transform} maps pixels to no area.")
  return transform


def _png_values(path: str) -> np.ndarray:
  try:
    from PIL import Image
  except ImportError as error:
    raise ImageError("PNG needs Pillow: pip install xjepa_jax[geo]") from error
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is ours, above
    with Image.open(path, formats=["PNG"]) as image:
      image.verify()  # every chunk's CRC, which decoding skips
    with Image.open(path, formats=["PNG"]) as image:
      return np.asarray(image)
