"""GeoTIFF, JPEG 2000, PNG and npy files: each is opened as a header and a function to load pixels.

Untrusted files are safe to open: only GDAL's GeoTIFF and JPEG 2000 drivers are enabled, so no VRT,
/vsi path or pickle can make this module read pixels of anything but the named file and a mask
beside it. Other files beside an image are only read to refuse an image whose values would be wrong
without them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import re
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from xjepa_jax.data.band_names import names_spectrum
from xjepa_jax.data.pairs import NO_TRANSFORM
from xjepa_jax.errors import ImageError
from xjepa_jax.sensors import DTYPES

MAX_PIXELS = 2**28  # pixels x bands: 13 bands of 4,500 x 4,500
# World files, .aux.xml and overviews next to an image are not part of it; see `check_side_file`.
GDAL_OPTIONS = {
  "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
  "GDAL_PAM_ENABLED": "NO",
  "GDAL_GEOREF_SOURCES": "INTERNAL",
}
# Suffixes of the files that GDAL reads; Sentinel-2's products are in JPEG 2000.
GDAL_DRIVERS = {".tif": "GTiff", ".tiff": "GTiff", ".jp2": "JP2OpenJPEG"}
# PNG colour type -> bands (PNG specification, 11.2.1). Type 3 is a palette, whose indices are not
# measurements.
_PNG_BANDS = {0: 1, 2: 3, 4: 2, 6: 4}
_PNG_ALPHA = (4, 6)  # colour types whose last band is alpha


@dataclasses.dataclass(frozen=True)
class RasterHeader:
  """The metadata of an image file, known before any pixel is read.

  Attributes:
    path: path of the file.
    shape: (H, W).
    count: number of bands.
    dtype: NumPy name of the stored type, one of `sensors.DTYPES`.
    crs, transform, nodata, descriptions: as in `Raster`.
    tags: other metadata of a GeoTIFF, name -> text, such as TIFFTAG_DATETIME.
    scales, offsets: one per band, if the file declares that its values are stored * scale + offset;
      empty otherwise.
    alpha: number, from 1, of the alpha band; 0 if there is none.
    masked: whether a mask, inside or beside the file, or an alpha band may hide pixels.
    located_by: what georeferences the image other than a transform, for messages: control points,
      or a file beside it. It is not read.
    files: paths in the order of the bands, if the image consists of single-band files.
    nodata_of_bands: one per band, if such files declare different values; `nodata` is None then.
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
  scales: tuple[float, ...] = ()
  offsets: tuple[float, ...] = ()
  alpha: int = 0
  masked: bool = False
  located_by: str = ""
  files: tuple[str, ...] = ()
  nodata_of_bands: tuple[float | None, ...] = ()


# Values (H, W, C), or (H, W) for one band; and (H, W) bool, True where a mask hides pixels.
Loaded = tuple[np.ndarray, np.ndarray | None]
# A file's header, and a function that loads its pixels.
Opened = tuple[RasterHeader, Callable[[], Loaded]]


def import_rasterio() -> Any:
  """The rasterio module, imported on first use.

  Raises:
    ImageError: it is not installed.
  """
  try:
    import rasterio  # importing GDAL takes half a second, which a --help should not pay
  except ImportError as error:
    raise ImageError(
      "GeoTIFF and map coordinates need rasterio: pip install xjepa_jax[geo]"
    ) from error
  return rasterio


def driver_of(path: str) -> str:
  """Name of the GDAL driver for a file, chosen by its suffix."""
  return GDAL_DRIVERS[os.path.splitext(path)[1].lower()]


@contextlib.contextmanager
def open_geotiff(path: str, max_pixels: int) -> Iterator[Opened]:
  """Open a GeoTIFF with one image, or a JPEG 2000."""
  rasterio = import_rasterio()
  with warnings.catch_warnings(), rasterio.Env(**GDAL_OPTIONS):
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    # An absolute path, because GDAL gives names such as "GTIFF_DIR:..." a special meaning.
    with rasterio.open(os.path.abspath(path), driver=driver_of(path)) as file:
      _check_size(path, file.height, file.width, file.count, max_pixels)
      for height, width in file.block_shapes[:1]:  # a block is decoded whole, however large
        _check_size(path, height, width, 1, min(max(max_pixels, 2**24), MAX_PIXELS))
      if file.subdatasets:
        raise ImageError(f"{path}: holds {len(file.subdatasets)} images; expected one a file.")
      _check_dtype(path, file.dtypes[0])
      header = geotiff_header(path, file)
      yield header, lambda: (np.moveaxis(file.read(), 0, -1), hidden_by_mask(header, file, None))


def geotiff_header(path: str, file: Any) -> RasterHeader:
  """The header of an open GeoTIFF.

  Raises:
    ImageError: a file beside it, which is not read, declares more about the values than it does.
  """
  transform = _transform(path, file)
  located_by = "" if transform is not NO_TRANSFORM else _located_by(path, file)
  check_side_file(path, file.nodata)
  scales, offsets = tuple(map(float, file.scales)), tuple(map(float, file.offsets))
  plain = set(scales) <= {1.0} and set(offsets) <= {0.0}
  alpha = _alpha(file)
  return RasterHeader(
    path,
    file.shape,
    file.count,
    file.dtypes[0],
    _crs(file),
    transform,
    file.nodata,
    tuple(text or "" for text in file.descriptions),
    file.tags(),
    () if plain else scales,
    () if plain else offsets,
    alpha,
    bool(alpha or _has_mask(file) or os.path.isfile(path + MASK_SUFFIX)),
    located_by,
  )


def hidden_by_mask(
  header: RasterHeader, file: Any, window: Any, transparent: bool = False
) -> np.ndarray | None:
  """Mask of the pixels that an open GeoTIFF's masks hide.

  Args:
    header: header of the file. A mask beside the file is opened as a GeoTIFF.
    file: the open GeoTIFF.
    window: part of the image to read; None reads all of it.
    transparent: whether the alpha band hides pixels too; it may be a band of the sensor instead,
      in which case it does not.

  Returns:
    (H, W) bool, True where hidden; None if nothing is hidden.

  Raises:
    ImageError: the mask beside the file has another size.
  """
  if not header.masked:
    return None
  parts = []
  if header.alpha and transparent:
    parts.append(file.read(header.alpha, window=window) == 0)
  if _has_mask(file):
    parts.append(file.read_masks(1, window=window) == 0)
  beside = header.path + MASK_SUFFIX
  if os.path.isfile(beside):
    with import_rasterio().open(os.path.abspath(beside), driver="GTiff") as mask:
      if mask.shape != header.shape:
        raise ImageError(
          f"{beside}: is {mask.height} x {mask.width} pixels, and the image that it masks "
          f"{header.shape[0]} x {header.shape[1]}. Make it again, or remove it."
        )
      parts.append((mask.read(window=window) == 0).all(axis=0))
  hidden = np.any(parts, axis=0) if parts else np.zeros(0, bool)
  return hidden if hidden.any() else None


def _has_mask(file: Any) -> bool:
  """Whether a mask of the whole image hides pixels; an alpha band does not count."""
  from rasterio.enums import MaskFlags

  # GDAL sets only the `nodata` flag for a plain nodata value, and `per_dataset` for a list with one
  # value per band.
  return any(
    MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
    for flags in file.mask_flag_enums
  )


def _alpha(file: Any) -> int:
  from rasterio.enums import ColorInterp

  kinds = list(file.colorinterp)
  if ColorInterp.alpha not in kinds:
    return 0
  # Writers mark the fourth band of every 8-bit image as alpha, even one that is named NIR.
  number = kinds.index(ColorInterp.alpha) + 1
  return 0 if names_spectrum(file.descriptions[number - 1] or "") else number


# Files beside an image

MASK_SUFFIX = ".msk"
_WORLD = {
  ".tif": (".tfw", ".tifw"),
  ".tiff": (".tfw", ".tiffw"),
  ".png": (".pgw", ".pngw"),
  ".jp2": (".j2w", ".jp2w"),
}
_TABLES = {".wld": "world file", ".tab": "MapInfo table"}
_LARGEST_SIDE_FILE = 2**24  # bytes; real ones with statistics and histograms have a few thousand
_PLACES = {"GeoTransform": "transform", "SRS": "reference system", "GCPList": "control points"}


def _located_by(path: str, file: Any) -> str:
  """What georeferences a GeoTIFF without a transform; "" if nothing does."""
  points, _ = file.gcps
  if points:
    return f"{len(points)} ground control points"
  if file.rpcs is not None:
    return "rational polynomial coefficients"
  return located_beside(path)


def located_beside(path: str) -> str:
  """The file beside an image that georeferences it, as in "the world file x.tfw", or "" if none."""
  stem, suffix = os.path.splitext(path)
  kinds = {**dict.fromkeys(_WORLD.get(suffix.lower(), ()), "world file"), **_TABLES}
  for ending, kind in kinds.items():
    for candidate in (ending, ending.upper()):
      if os.path.isfile(stem + candidate):
        return f"the {kind} {stem + candidate}"
  content = _side_file(path)
  for tag, kind in _PLACES.items():
    if re.search(rf"<{tag}[\s>]", content):
      return f"the {kind} in {path}.aux.xml"
  return ""


def check_side_file(path: str, nodata: float | None) -> None:
  """Refuse an image whose .aux.xml declares something about the values that the image does not.

  Raises:
    ImageError: it declares nodata, a scale or an offset.
  """
  content = _side_file(path)
  for text in re.findall(r"<NoDataValue[^>]*>\s*([^<\s]+)\s*<", content):
    value = _side_number(path, "NoDataValue", text)
    if not math.isnan(value) and value != nodata:  # NaN counts as nodata in any case
      _refuse_side_file(path, f"nodata {value:g}")
  for tag, plain in (("Scale", 1.0), ("Offset", 0.0)):
    for text in re.findall(rf"<{tag}>\s*([^<\s]+)\s*<", content):
      if _side_number(path, tag, text) != plain:
        _refuse_side_file(path, f"{tag.lower()} {text}")


def _side_number(path: str, tag: str, text: str) -> float:
  """Parse a number of a GDAL side file; C libraries on Windows write NaN as -1.#IND."""
  text = re.sub(r"1\.#(IND|QNAN|SNAN|NAN)\w*", "nan", text)
  try:
    return float(re.sub(r"1\.#INF\w*", "inf", text))
  except ValueError:
    raise ImageError(
      f"{path}.aux.xml: its <{tag}> is {text!r}, expected a number. Correct it there, or remove "
      "the file if nothing in it is needed."
    ) from None


def rewriting(path: str, tool: str, what: str) -> str:
  """A command that writes a repaired copy of an image into a sibling of its folder.

  In the same folder, the importer for folders would find both copies.
  """
  folder, name = os.path.split(path)
  new = f"{folder}_{what}" if folder else what
  return f"mkdir -p {new} && {tool} {path} {new}/{os.path.splitext(name)[0]}.tif"


def _refuse_side_file(path: str, what: str) -> None:
  raise ImageError(
    f"{path}.aux.xml: declares {what}, which {os.path.basename(path)} does not; files beside an "
    "image are not read. Write it into the image, and name the new one: "
    f"{rewriting(path, 'gdal_translate', 'whole')}"
  )


def _side_file(path: str) -> str:
  """The text of an image's .aux.xml, or "" if there is none."""
  try:
    with open(path + ".aux.xml", encoding="utf-8", errors="replace") as file:
      return file.read(_LARGEST_SIDE_FILE)
  except FileNotFoundError:
    return ""
  except OSError as error:
    raise ImageError(f"{path}.aux.xml: cannot be read ({error.strerror}).") from error


@contextlib.contextmanager
def open_png(path: str, max_pixels: int) -> Iterator[Opened]:
  """Open a PNG that Pillow can read as it is stored: 8 bits, or 16 bits in one band."""
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
  check_side_file(path, None)
  alpha = count if colour in _PNG_ALPHA else 0
  header = RasterHeader(
    path, (height, width), count, "uint8" if depth == 8 else "uint16", alpha=alpha,
    masked=bool(alpha) or _png_has_transparency(path), located_by=located_beside(path),
  )  # fmt: skip
  yield header, lambda: _png_values(path, header)


@contextlib.contextmanager
def open_npy(path: str, max_pixels: int) -> Iterator[Opened]:
  """Open an array of shape (H, W) or (H, W, C)."""
  with open(path, "rb") as file:
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0
    if version != (1, 0):
      read_header = np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    _check_dtype(path, dtype.name)  # an array of objects would be a pickle
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
    yield header, lambda: (np.load(file, allow_pickle=False), None)


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
  if file.transform.is_identity:  # rasterio's default for a file without a transform
    return NO_TRANSFORM
  transform = tuple(file.transform)[:6]
  if not (all(map(math.isfinite, transform)) and file.transform.determinant != 0):
    raise ImageError(f"{path}: its transform {transform} maps pixels to no area.")
  return transform


def _png_has_transparency(path: str) -> bool:
  """Whether the file declares a transparent colour, in a tRNS chunk before the pixels."""
  with open(path, "rb") as file:
    file.seek(8)
    while len(head := file.read(8)) == 8:
      length, kind = struct.unpack(">I4s", head)
      if kind in (b"tRNS", b"IDAT"):
        return kind == b"tRNS"
      file.seek(length + 4, os.SEEK_CUR)
  return False


def _png_values(path: str, header: RasterHeader) -> Loaded:
  try:
    from PIL import Image
  except ImportError as error:
    raise ImageError("PNG needs Pillow: pip install xjepa_jax[geo]") from error
  with warnings.catch_warnings():
    # `open_png` has already applied our own limit to the size.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    with Image.open(path, formats=["PNG"]) as image:
      image.verify()  # checks the CRC of every chunk, which decoding does not
    with Image.open(path, formats=["PNG"]) as image:
      values = np.asarray(image)
      transparent = image.info.get("transparency")
  hidden = None
  if transparent is not None:
    same = values == np.asarray(transparent)
    hidden = same.all(axis=-1) if values.ndim == 3 else same
  return values, hidden if hidden is not None and hidden.any() else None
