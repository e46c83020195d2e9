"""Imports SSL4EO-S12 v1.1 in its Zarr release: one zip holds 64 places on four dates.

`{train,val}/{S1GRD,S2L2A,S2L1C}/ssl4eos12_<split>_seasonal_data_NNNNNN.zarr.zip`, each a Zarr
version 2 group at the root of the zip (README and zarr_dataset.py of DLR-MF-DAS/SSL4EO-S12-v1.1):

  bands                    (sample, time, band, y, x): int16 for Sentinel-2, float16 dB else
  band                     (band), "B01" ... "B8A" ... or "vv", "vh": bands are found by these names
  sample_id                (sample, time), "0080717_0"
  center_lat, center_lon   (sample), degrees
  crs                      (sample), an EPSG code
  time_                    (sample, time), whole numbers with CF units "... since ..."
  x_, y_                   (sample, x), (sample, y), map coordinates, taken to be of pixel centres

In this release both Sentinel-2 levels carry the +1000 of processing baseline 04.00 on every date.
The later release as WebDataset (`ssl4eos12_shard_*.tar`) does not, and is another layout.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from xjepa_jax.data.archive import Archive, Entry, Skip
from xjepa_jax.data.grids import align
from xjepa_jax.data.pairs import NO_TRANSFORM, Observation, Pair
from xjepa_jax.data.raster import Raster
from xjepa_jax.errors import ArchiveError, DataError, ImageError
from xjepa_jax.sensor_presets import preset
from xjepa_jax.sensors import Sensor

SUMMARY = "SSL4EO-S12 v1.1, Zarr release: Sentinel-1 GRD with Sentinel-2 L2A or L1C on four dates"
EXAMPLE = (
  "python -m xjepa_jax.data.importers ssl4eo_s12 --src ssl4eo-s12 --out data/ssl4eo "
  "--sensors S1GRD,S2L2A --dates 0,2"
)

KEYS = {"S1GRD": "s1", "S2L2A": "s2", "S2L1C": "s2_l1c"}  # folder -> sensor key
_PRESETS = {
  "S1GRD": "sentinel1_grd",
  "S2L2A": "sentinel2_l2a_n0400",
  "S2L1C": "sentinel2_l1c_n0400",
}
_DTYPES = {"S1GRD": "float32", "S2L2A": "int16", "S2L1C": "int16"}
_SPLITS = {"train": "train", "val": "validation"}
_FILE = re.compile(r"ssl4eos12_(?:train|val)_seasonal_data_\d{6}\.zarr\.zip")
_CODECS = ("blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd")  # numcodecs also knows pickle
_MAX_BYTES = 2**31  # of one array as declared; bands of a published zip are 0.43e9 bytes
_LAUNCHED = np.datetime64("2014-04-03")  # Sentinel-1A
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options that only this importer has."""
  parser.add_argument(
    "--sensors", default="S1GRD,S2L2A", help=f"folders, the first one's grid: {', '.join(KEYS)}"
  )
  parser.add_argument("--dates", default="0,1,2,3", help="which of the four dates of each place")


def open_archive(args: argparse.Namespace) -> Archive:
  """Lists every place and date of the zips in `args.src`.

  Every date is a pair of its own, `<sample>_<date>`; all dates of a place are in one split.

  Raises:
    ArchiveError: there is no such zip, an option names an unknown sensor or date, or zarr is not
      installed.
  """
  _zarr()
  folders = _chosen("--sensors", args.sensors, tuple(KEYS))
  dates = [int(date) for date in _chosen("--dates", args.dates, ("0", "1", "2", "3"))]
  sensors = _sensors(folders)
  splits: dict[str, list[Entry]] = {}
  skipped: list[Skip] = []
  for part, split in _SPLITS.items():
    for name in _zip_names(args.src, part, folders):
      try:
        ids = _agreed_ids([os.path.join(args.src, part, each, name) for each in folders])
      except DataError as error:
        skipped.append(Skip(f"{part}/{name}", f"{error} None of its samples was imported."))
        continue
      splits.setdefault(split, []).extend(
        Entry(row[date], (part, name, number, date))
        for number, row in enumerate(ids)
        for date in dates
      )
  if not splits and not skipped:
    raise _nothing_found(args.src, folders)
  return Archive(
    name="ssl4eo_s12",
    sensors=sensors,
    splits=splits,
    read=functools.partial(
      read_pair,
      src=args.src,
      folders=tuple(folders),
      misaligned=args.misaligned,
      resample=args.resample,
    ),
    skipped=skipped,
    notes=(
      "splits: the archive's train and val (as validation); it has no test split",
      "Sentinel-1 comes as float16 and is stored as float32, which holds the same values",
    ),
  )


def read_pair(
  entry: Entry, src: str, folders: Sequence[str], misaligned: str, resample: str
) -> Pair:
  """Reads one place on one date, of all sensors.

  Raises:
    ImageError: a zip is damaged, or the sensors' grids differ and are to be refused.
  """
  part, name, number, date = entry.source
  rasters: dict[str, Raster] = {}
  acquired: dict[str, str] = {}
  sensors = _sensors(folders)
  for folder in folders:
    path, key = os.path.join(src, part, folder, name), KEYS[folder]
    with _reading(path):
      found = _ids(path)[number][date]
      if found != entry.pair_id:
        raise ImageError(f"{path}: sample {number} is {found!r}, expected {entry.pair_id!r}.")
      rasters[key] = _raster(path, number, date, sensors[key])
      acquired[key] = _time(path, number, date)
  first = os.path.join(src, part, folders[0], name)
  with _reading(first):
    longitude, latitude = (float(_read(first, n)[number]) for n in ("center_lon", "center_lat"))
  rasters = align(rasters, sensors, misaligned, resample)
  reference = next(iter(rasters.values()))
  return Pair(
    pair_id=entry.pair_id,
    observations={key: Observation(r.values, acquired[key]) for key, r in rasters.items()},
    longitude=longitude,
    latitude=latitude,
    crs=reference.crs,
    transform=reference.transform,
  )


# Listing


def _sensors(folders: Sequence[str]) -> dict[str, Sensor]:
  return {KEYS[name]: preset(_PRESETS[name], dtype=_DTYPES[name]) for name in folders}


def _chosen(option: str, text: str, known: Sequence[str]) -> list[str]:
  names = [name.strip() for name in text.split(",")]
  if not set(names) <= set(known) or len(set(names)) != len(names):
    raise ArchiveError(
      f"{option} {text!r}: expected some of {', '.join(known)}, each once, separated by commas."
    )
  return names


def _zip_names(src: str, part: str, folders: Sequence[str]) -> list[str]:
  """Names of the zips that any of the sensors has in this part of the archive."""
  names = {name for folder in folders for name in _listed(src, part, folder)}
  return sorted(name for name in names if _FILE.fullmatch(name))


def _listed(*parts: str) -> list[str]:
  try:
    return os.listdir(os.path.join(*parts))
  except OSError:  # not there, or not to be read: the caller says what was looked for
    return []


def _agreed_ids(paths: Sequence[str]) -> list[list[str]]:
  """Ids of all samples and dates, the same in the zips of all sensors."""
  first: list[list[str]] = []
  for path in paths:
    if not os.path.isfile(path):
      raise ImageError(f"{path}: there is no such file; every sensor needs its zip.")
    with _reading(path):
      ids = _ids(path)
    first = first or ids
    if ids != first:
      row = next(i for i in range(len(ids) + 1) if ids[i : i + 1] != first[i : i + 1])
      raise ImageError(
        f"{path}: its samples are not those of {paths[0]}: sample {row} is {ids[row : row + 1]}, "
        f"there it is {first[row : row + 1]}. Copy both again."
      )
  return first


def _nothing_found(src: str, folders: Sequence[str]) -> ArchiveError:
  place = os.path.join(src, "{train,val}", "{" + ",".join(folders) + "}")
  names = [name for part in _SPLITS for folder in folders for name in _listed(src, part, folder)]
  hint = ""
  if any(name.endswith(".tar") for name in names):
    hint = (
      " The tar files there are the WebDataset release, in which Sentinel-2 lacks the +1000; this "
      "importer reads the Zarr release."
    )
  return ArchiveError(
    f"{place}: holds no ssl4eos12_<split>_seasonal_data_NNNNNN.zarr.zip. Give --src the folder "
    f"that holds train and val.{hint}"
  )


# Reading a zip


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
  try:
    yield
  except DataError:
    raise
  except Exception as error:  # zipfile, zarr, numcodecs and json each have their own
    reason = str(error) or type(error).__name__
    raise ImageError(
      f"{path}: cannot be read as a Zarr version 2 zip, it is damaged ({reason}). Copy it again."
    ) from error


def _zarr() -> Any:
  try:
    import zarr.storage
  except ImportError as error:
    raise ArchiveError("SSL4EO-S12 needs zarr: pip install xjepa_jax[geo]") from error
  return zarr


def _zip(path: str) -> _Zip:
  return _opened(path, os.getpid())


@functools.lru_cache(maxsize=8)
def _opened(path: str, process: int) -> _Zip:
  """A zip opened once a process: a handle shared with a parent would share its position too."""
  return _Zip(zipfile.ZipFile(path), _zarr().storage.ZipStore(path, mode="r"))


def _array(path: str, name: str) -> Any:
  """One array of the zip, once its description is found to be harmless."""
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
  return _zarr().open_array(opened.store, path=name, mode="r", zarr_format=2)


@functools.lru_cache(maxsize=64)
def _kept(path: str, name: str, process: int) -> np.ndarray:
  return np.asarray(_array(path, name)[...])


def _read(path: str, name: str) -> np.ndarray:
  """A small array of the zip, kept for the next sample."""
  return _kept(path, name, os.getpid())


def _ids(path: str) -> list[list[str]]:
  """Id of each sample and date."""
  ids = _read(path, "sample_id")
  if ids.ndim == 1:
    return [[f"{sample}_{date}" for date in range(4)] for sample in ids]
  if ids.ndim != 2 or ids.shape[1] != 4:
    raise ImageError(f"{path}: sample_id is {ids.shape}, expected (samples, 4 dates).")
  return [[str(one) for one in row] for row in ids]


def _raster(path: str, number: int, date: int, sensor: Sensor) -> Raster:
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
    values = values.astype(np.float32)
  if values.dtype != sensor.dtype:
    raise ImageError(f"{path}: bands is {values.dtype}, expected {sensor.dtype}.")
  order = [names.index(name) for name in sensor.band_names]
  return Raster(
    values=np.ascontiguousarray(np.moveaxis(values[order], 0, -1)),
    path=path,
    crs=f"EPSG:{int(_read(path, 'crs')[number])}",
    transform=_transform(path, number, values.shape[1:]),
  )


def _transform(path: str, number: int, size: tuple[int, int]) -> tuple[float, ...]:
  """The grid's transform from the coordinates of the centres of its columns and rows."""
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


def _time(path: str, number: int, date: int) -> str:
  """ISO 8601, UTC, or "" where the archive holds none: a few published times are negative."""
  moment = _read(path, "time_")[number, date]
  if not isinstance(moment, np.datetime64):
    units = str(_array(path, "time_").attrs.get("units", "nanoseconds since 1970-01-01"))
    step, _, epoch = units.partition(" since ")
    start = np.datetime64(epoch.strip().replace(" ", "T")[:19])
    moment = start + np.timedelta64(int(moment), _STEPS[step])
  if not moment > _LAUNCHED:  # NaT included
    return ""
  return f"{np.datetime_as_string(moment, unit='s')}Z"
