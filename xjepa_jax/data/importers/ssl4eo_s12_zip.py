"""One zip of SSL4EO-S12 v1.1's Zarr release: images of 64 places on four dates, from one sensor.

A Zarr version 2 group at the root of the zip (README and zarr_dataset.py of
DLR-MF-DAS/SSL4EO-S12-v1.1), with the arrays

  bands                    (sample, time, band, y, x): int16 for Sentinel-2, otherwise float16 dB
  band                     (band), "B01" ... "B8A" ... or "vv", "vh": names by which bands are found
  sample_id                (sample, time), "0080717_0"
  center_lat, center_lon   (sample), degrees
  crs                      (sample), an EPSG code
  time_                    (sample, time), integers with CF units "... since ..."
  x_, y_                   (sample, x), (sample, y), map coordinates, assumed to be of pixel centres
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from xjepa_jax.data.pairs import NO_TRANSFORM
from xjepa_jax.data.raster import Raster
from xjepa_jax.errors import ArchiveError, DataError, ImageError
from xjepa_jax.sensors import Sensor

_CODECS = ("blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd")  # numcodecs also knows pickle
_MAX_BYTES = 2**31  # declared size of one array; the bands of a published zip are 0.43e9 bytes
_LAUNCHED = np.datetime64("2014-04-03")  # launch of Sentinel-1A; earlier times are wrong
_STEPS: dict[str, Any] = {
  "days": "D",
  "hours": "h",
  "minutes": "m",
  "seconds": "s",
  "milliseconds": "ms",
  "microseconds": "us",
  "nanoseconds": "ns",
}


class _Zip(NamedTuple):
  members: zipfile.ZipFile
  store: Any


def import_zarr() -> Any:
  """The zarr module. Raises an ArchiveError if it is not installed."""
  try:
    import zarr.storage
  except ImportError as error:
    raise ArchiveError("SSL4EO-S12 needs zarr: pip install xjepa_jax[geo]") from error
  return zarr


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
  """Turn any error from reading the zip into an ImageError, except this package's own."""
  try:
    yield
  except DataError:
    raise
  except Exception as error:  # zipfile, zarr, numcodecs and json each have their own errors
    reason = str(error) or type(error).__name__
    raise ImageError(
      f"{path}: cannot be read as a Zarr version 2 zip, it is damaged ({reason}). Copy it again."
    ) from error


def sample_ids(path: str) -> list[list[str]]:
  """Id of each sample on each of the four dates. Raises an ImageError."""
  ids = _read(path, "sample_id")
  if ids.ndim == 1:
    return [[f"{sample}_{date}" for date in range(4)] for sample in ids]
  if ids.ndim != 2 or ids.shape[1] != 4:
    raise ImageError(f"{path}: sample_id is {ids.shape}, expected (samples, 4 dates).")
  return [[str(one) for one in row] for row in ids]


def read_image(path: str, number: int, date: int, sensor: Sensor) -> Raster:
  """One sample on one date, with the bands in the sensor's order. Raises an ImageError."""
  bands = _array(path, "bands")
  names = [str(name).upper() for name in _read(path, "band")]
  missing = [name for name in sensor.band_names if name not in names]
  if missing or len(bands.shape) != 5 or bands.shape[2] != len(names):
    raise ImageError(
      f"{path}: bands is {tuple(bands.shape)} with the bands {', '.join(names)}; expected "
      f"(sample, time, band, y, x) with {', '.join(sensor.band_names)}."
    )
  values = bands[number, date]
  if values.dtype == np.float16:
    values = values.astype(np.float32)  # which holds the same values
  if values.dtype != sensor.dtype:
    raise ImageError(f"{path}: bands is {values.dtype}, expected {sensor.dtype}.")
  order = [names.index(name) for name in sensor.band_names]
  return Raster(
    values=np.ascontiguousarray(np.moveaxis(values[order], 0, -1)),
    path=path,
    crs=f"EPSG:{int(_read(path, 'crs')[number])}",
    transform=_transform(path, number, values.shape[1:]),
  )


def read_place(path: str, number: int) -> tuple[float, float]:
  """Longitude and latitude of a sample's centre in degrees."""
  return float(_read(path, "center_lon")[number]), float(_read(path, "center_lat")[number])


def read_time(path: str, number: int, date: int) -> str:
  """Time as ISO 8601 in UTC, or "" if it is not plausible: a few published times are negative."""
  moment = _read(path, "time_")[number, date]
  if not isinstance(moment, np.datetime64):
    units = str(_array(path, "time_").attrs.get("units", "nanoseconds since 1970-01-01"))
    step, _, epoch = units.partition(" since ")
    start = np.datetime64(epoch.strip().replace(" ", "T")[:19])
    moment = start + np.timedelta64(int(moment), _STEPS[step])
  if not moment > _LAUNCHED:  # written so that NaT counts as implausible
    return ""
  return f"{np.datetime_as_string(moment, unit='s')}Z"


def _zip(path: str) -> _Zip:
  return _opened(path, os.getpid())


@functools.lru_cache(maxsize=8)
def _opened(path: str, process: int) -> _Zip:
  """A zip opened once per process, since a handle shared with a parent would share its position."""
  return _Zip(zipfile.ZipFile(path), import_zarr().storage.ZipStore(path, mode="r"))


def _array(path: str, name: str) -> Any:
  """One array of the zip, after its metadata has been checked to be harmless."""
  opened = _zip(path)
  try:
    description = json.loads(opened.members.read(f"{name}/.zarray"))
  except KeyError:
    raise ImageError(f"{path}: holds no array {name!r}, expected one.") from None
  dtype = np.dtype(description["dtype"])
  codec = description["compressor"]
  if dtype.hasobject or description["filters"] or (codec and codec["id"] not in _CODECS):
    raise ImageError(
      f"{path}: array {name!r} is of type {dtype} with the codecs {codec}, "
      f"{description['filters']}; expected plain numbers or text, compressed by one of "
      f"{', '.join(_CODECS)}."
    )
  for key in ("shape", "chunks"):
    if math.prod(description[key]) * dtype.itemsize > _MAX_BYTES:
      raise ImageError(f"{path}: array {name!r} declares {key} {description[key]}, too large.")
  return import_zarr().open_array(opened.store, path=name, mode="r", zarr_format=2)


@functools.lru_cache(maxsize=64)
def _kept(path: str, name: str, process: int) -> np.ndarray:
  return np.asarray(_array(path, name)[...])


def _read(path: str, name: str) -> np.ndarray:
  """A small array of the zip, cached for the next sample."""
  return _kept(path, name, os.getpid())


def _transform(path: str, number: int, size: tuple[int, int]) -> tuple[float, ...]:
  """The grid's transform, from the coordinates of the centres of its columns and rows."""
  if "x_/.zarray" not in _zip(path).members.NameToInfo:
    return NO_TRANSFORM
  x, y = _read(path, "x_")[number].astype(float), _read(path, "y_")[number].astype(float)
  if (len(y), len(x)) != size:
    raise ImageError(f"{path}: x_ and y_ are {len(x)} and {len(y)} long for {size} pixels.")
  dx, dy = (x[-1] - x[0]) / (len(x) - 1), (y[-1] - y[0]) / (len(y) - 1)
  transform = (dx, 0.0, x[0] - dx / 2, 0.0, dy, y[0] - dy / 2)
  if dx * dy == 0 or not all(map(math.isfinite, transform)):
    raise ImageError(f"{path}: x_ and y_ of sample {number} are no grid of pixels.")
  return tuple(map(float, transform))
