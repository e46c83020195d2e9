"""Reads windows of GeoTIFF, JPEG 2000, PNG and npy images, with one file per image or per band.

A window of a GeoTIFF is read without the rest of the file, so scenes may be larger than memory.
Only the files that were named, and a mask beside one, are opened. GDAL is restricted to its drivers
for the first two formats: no VRT, no /vsi.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from xjepa_jax.data.band_stack import factor_of
from xjepa_jax.data.image_formats import GDAL_DRIVERS, driver_of, hidden_by_mask
from xjepa_jax.data.orientation import north_up
from xjepa_jax.data.raster import (
  GDAL_OPTIONS,
  MAX_PIXELS,
  Raster,
  RasterHeader,
  import_rasterio,
  raster_of,
  read_header,
  read_raster,
)
from xjepa_jax.errors import ImageError
from xjepa_jax.retrieval.embedding.conforming import Fit, fit_values
from xjepa_jax.retrieval.embedding.items import BandFile, Item, Window

MAX_SCENE = 2**33  # pixels x bands that a header may declare: 13 bands of 25,000 x 25,000
_OPEN = 16  # files that a thread keeps open
_BANDS = re.compile(r"#(\d+(?:,\d+)*)\Z")
_SPECIAL = re.compile("[%;#]")  # characters that `source_of` encodes
_ENCODED = re.compile("%(25|3B|23)")  # only these, as older sources have a literal "%20" unencoded


def header_of(path: str) -> RasterHeader:
  """The header of an image file.

  Raises:
    ImageError: it cannot be read, or declares more than is ever read: `MAX_SCENE` for a GeoTIFF,
      `MAX_PIXELS` for a file that is read whole.
  """
  large = path.lower().endswith(tuple(GDAL_DRIVERS))
  return read_header(path, MAX_SCENE if large else MAX_PIXELS)


@dataclasses.dataclass(frozen=True)
class Stack:
  """The files of an image, whose grid is that of the finest file.

  Attributes:
    finest: header of the finest file.
    factors: path -> number of finest pixels along one pixel of that file.
  """

  finest: RasterHeader
  factors: Mapping[str, int]


def stack_of(headers: Sequence[RasterHeader]) -> Stack:
  """Relates the grids of one image's files.

  Raises:
    ImageError: they do not cover the same area in whole pixels of the finest.
  """
  finest = max(headers, key=lambda header: header.shape[0] * header.shape[1])
  if len(headers) == 1:
    return Stack(finest, {finest.path: 1})
  return Stack(
    finest,
    {header.path: factor_of(_one_band(header), _one_band(finest)) for header in headers},
  )


def source_of(files: Sequence[BandFile]) -> str:
  """A row's `source` from paths and bands: "a.tif", "a.tif#4,3,2", "b02.tif;b03.tif".

  If no bands are written, a single file has all of them in order, and each of several files its
  first. "%", ";" and "#" in paths are percent-encoded.
  """
  groups = _grouped(files)
  found = []
  for path, bands in groups:
    plain = list(range(1, len(bands) + 1)) if len(groups) == 1 else [1]
    name = _SPECIAL.sub(lambda match: f"%{ord(match[0]):02X}", path)
    found.append(name if bands == plain else f"{name}#{','.join(map(str, bands))}")
  return ";".join(found)


def files_of(source: str, count: int) -> tuple[BandFile, ...]:
  """Inverse of `source_of`, for an image of `count` bands."""
  paths = source.split(";")
  files: list[BandFile] = []
  for path in paths:
    match = _BANDS.search(path)
    name = path[: match.start()] if match else path
    plain = range(1, count + 1) if len(paths) == 1 else [1]
    bands = map(int, match[1].split(",")) if match else plain
    name = _ENCODED.sub(lambda match: chr(int(match[1], 16)), name)
    files += [BandFile(name, band) for band in bands]
  return tuple(files)


class WindowReader:
  """Reads windows of images; one reader per thread, because a GDAL file belongs to one thread.

  Args:
    locate: turns a path, as the archive writes it, into one that can be opened.
    fits: sensor -> conversion of its values to the encoder's.
    declared: sensor -> nodata value, which overrides what the files declare.
  """

  def __init__(
    self,
    locate: Callable[[str], str],
    fits: Mapping[str, Fit],
    declared: Mapping[str, float | None],
  ):
    self._locate = locate
    self._fits = fits
    self._declared = declared
    self._open: collections.OrderedDict[str, _Opened] = collections.OrderedDict()

  def read(self, item: Item, window: Window) -> tuple[np.ndarray, float]:
    """See `Reader`."""
    bands: list[np.ndarray] = []
    hidden: list[np.ndarray | None] = []
    declared: list[float | None] = []
    for path, numbers in _grouped(item.files):
      opened = self._opened(path)
      factor = item.width // opened.width
      bands += opened.bands(numbers, window, factor)
      hidden += [opened.hidden(numbers, window, factor)] * len(numbers)
      declared += [opened.nodata] * len(numbers)
    told = [value for value in declared if value is not None]
    # Files may declare different values; one that all share is passed as a single number.
    own = declared if len(set(told)) > 1 else (told[0] if told else None)
    nodata = self._declared.get(item.sensor, own)
    values = np.stack(bands, axis=-1)
    fitted, seen = fit_values(
      self._fits[item.sensor], values, nodata, item.source, _stacked(hidden, values.shape[:2])
    )
    turned = north_up(item.transform, *fitted.shape[:2])
    if turned.swapped and fitted.shape[0] != fitted.shape[1]:
      raise ImageError(
        f"{item.source}: is stored on its side, and the encoder's images are not square. Turn it "
        "north up: gdalwarp in.tif out.tif"
      )
    return turned(fitted), seen

  def close(self) -> None:
    """See `Reader`."""
    for opened in self._open.values():
      opened.close()
    self._open.clear()

  def _opened(self, path: str) -> _Opened:
    if path not in self._open:
      full = self._locate(path)
      large = full.lower().endswith(tuple(GDAL_DRIVERS))
      self._open[path] = _GeoTiff(full) if large else _Whole(full)
      if len(self._open) > _OPEN:
        # The least recently used file is closed.
        self._open.popitem(last=False)[1].close()
    self._open.move_to_end(path)
    return self._open[path]


class _GeoTiff:
  """A GeoTIFF, read window by window."""

  def __init__(self, path: str):
    header = header_of(path)
    rasterio = import_rasterio()
    self._path, self._header = path, header
    self.width, self.nodata, self._dtype = header.shape[1], header.nodata, header.dtype
    try:
      with warnings.catch_warnings(), rasterio.Env(**GDAL_OPTIONS):
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        self._file = rasterio.open(os.path.abspath(path), driver=driver_of(path))
    except Exception as error:
      raise ImageError(f"{path}: cannot be read as GeoTIFF ({error}).") from error

  def bands(self, numbers: Sequence[int], window: Window, factor: int) -> list[np.ndarray]:
    where, inside = _coarser(window, factor)
    try:
      read = self._file.read(
        list(numbers),
        window=((where.row, where.row + where.height), (where.column, where.column + where.width)),
      )
    except Exception as error:  # rasterio puts GDAL's reason into the cause
      raise ImageError(
        f"{self._path}: {tuple(window)} cannot be read, the file is damaged "
        f"({error.__cause__ or error})."
      ) from error
    expected = (len(numbers), where.height, where.width)
    if read.shape != expected or read.dtype != self._dtype:
      raise ImageError(f"{self._path}: gave {read.shape}, expected {expected}; it was changed.")
    return [_enlarged(band, factor, inside) for band in read]

  def hidden(self, numbers: Sequence[int], window: Window, factor: int) -> np.ndarray | None:
    """(H, W) bool: pixels of some bands' window that a mask hides; None if there are none."""
    where, inside = _coarser(window, factor)
    place = ((where.row, where.row + where.height), (where.column, where.column + where.width))
    transparent = self._header.alpha not in numbers
    rasterio = import_rasterio()
    try:
      with warnings.catch_warnings(), rasterio.Env(**GDAL_OPTIONS):
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        found = hidden_by_mask(self._header, self._file, place, transparent)
    except ImageError:
      raise
    except Exception as error:
      raise ImageError(
        f"{self._path}: the mask of {tuple(window)} cannot be read, it is damaged "
        f"({error.__cause__ or error})."
      ) from error
    return None if found is None else _enlarged(found, factor, inside)

  def close(self) -> None:
    self._file.close()


class _Whole:
  """A PNG or npy file, read whole."""

  def __init__(self, path: str):
    raster = read_raster(path)
    self._values, self._raster = raster.values, raster
    self.width, self.nodata = self._values.shape[1], raster.nodata

  def bands(self, numbers: Sequence[int], window: Window, factor: int) -> list[np.ndarray]:
    where, inside = _coarser(window, factor)
    rows = slice(where.row, where.row + where.height)
    columns = slice(where.column, where.column + where.width)
    cut = self._values[rows, columns]
    return [_enlarged(cut[..., number - 1], factor, inside) for number in numbers]

  def hidden(self, numbers: Sequence[int], window: Window, factor: int) -> np.ndarray | None:
    """See `_GeoTiff.hidden`."""
    raster, parts = self._raster, []
    if raster.hidden is not None:
      parts.append(raster.hidden[..., 0])
    if raster.alpha and raster.alpha not in numbers:
      parts.append(raster.values[..., raster.alpha - 1] == 0)
    if not parts:
      return None
    where, inside = _coarser(window, factor)
    rows = slice(where.row, where.row + where.height)
    columns = slice(where.column, where.column + where.width)
    return _enlarged(np.any(parts, axis=0)[rows, columns], factor, inside)

  def close(self) -> None:
    """Does nothing, since no file is kept open."""


_Opened = Any  # _GeoTiff | _Whole, named before they are defined


def _coarser(window: Window, factor: int) -> tuple[Window, Window]:
  """The window in pixels `factor` times as large, and the position of the finer one within it."""
  column, row = window.column // factor, window.row // factor
  right = -(-(window.column + window.width) // factor)
  bottom = -(-(window.row + window.height) // factor)
  inside = window._replace(column=window.column - column * factor, row=window.row - row * factor)
  return Window(column, row, right - column, bottom - row), inside


def _enlarged(band: np.ndarray, factor: int, inside: Window) -> np.ndarray:
  """Repeats each pixel `factor` times, and crops to the requested window."""
  if factor > 1:
    band = band.repeat(factor, axis=0).repeat(factor, axis=1)
  return band[inside.row : inside.row + inside.height, inside.column : inside.column + inside.width]


def _stacked(hidden: Sequence[np.ndarray | None], shape: tuple[int, ...]) -> np.ndarray | None:
  """(H, W, C) bool: hidden pixels of each band; None if nothing is hidden."""
  if all(each is None for each in hidden):
    return None
  return np.stack([np.zeros(shape, bool) if each is None else each for each in hidden], axis=-1)


def _grouped(files: Sequence[BandFile]) -> list[tuple[str, list[int]]]:
  """(path, bands) for runs of consecutive bands in one file."""
  found: list[tuple[str, list[int]]] = []
  for path, band in files:
    if found and found[-1][0] == path:
      found[-1][1].append(band)
    else:
      found.append((path, [band]))
  return found


def _one_band(header: RasterHeader) -> Raster:
  """The header as a `Raster` for `band_stack`; its zeros are a broadcast and take no memory."""
  values = np.broadcast_to(np.zeros((), header.dtype), (*header.shape, 1))
  return raster_of(header, values)
