"""Imports So2Sat LCZ42: 32 x 32 pixels of both sensors and one of 17 local climate zones.

`training.h5`, `validation.h5` and `testing.h5`, each with `sen1` (N, 32, 32, 8) and `sen2`
(N, 32, 32, 10), float64, and `label` (N, 17), one-hot (README of So2Sat LCZ42,
mediatum.ub.tum.de/1483140; the first version has no testing.h5, or one without labels). Both
sensors are on one 10 m grid. Sentinel-1 is complex amplitude and intensity, linear and not in dB;
Sentinel-2 is reflectance from 0 to about 1. The files contain neither places nor times.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from xjepa_jax.data.archive import Archive, Entry, Skip
from xjepa_jax.data.pairs import Observation, Pair
from xjepa_jax.errors import ArchiveError, DataError, ImageError
from xjepa_jax.sensor_presets import preset
from xjepa_jax.sensors import Band, Channel, Scaling, Sensor

SUMMARY = "So2Sat LCZ42: Sentinel-1 and Sentinel-2 of 32 x 32 pixels, 17 local climate zones"
EXAMPLE = "python -m xjepa_jax.data.importers so2sat --src so2sat --out data/so2sat"

SEN1 = Sensor(
  product="Sentinel-1 of So2Sat LCZ42, complex amplitude and Lee-filtered intensity",
  bands=(
    Band("VH_real", 10, polarisation="VH"),
    Band("VH_imag", 10, polarisation="VH"),
    Band("VV_real", 10, polarisation="VV"),
    Band("VV_imag", 10, polarisation="VV"),
    Band("VH_lee", 10, polarisation="VH"),
    Band("VV_lee", 10, polarisation="VV"),
    Band("covariance_real", 10),
    Band("covariance_imag", 10),
  ),
  dtype="float32",
  units="linear",
  scaling=Scaling(),
  display=(Channel("VV_lee", 0, 0.5),),
)
SEN2 = preset(
  "sentinel2_ben14k",
  product="Sentinel-2 of So2Sat LCZ42",
  dtype="float32",
  units="reflectance",
  nodata=None,
  scaling=Scaling(),
  display=(Channel("B04", 0, 0.3), Channel("B03", 0, 0.3), Channel("B02", 0, 0.3)),
).select(("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"))
SENSORS = {"s1": SEN1, "s2": SEN2}
# In the order of the one-hot label: LCZ 1 to 10, then A to G.
ZONES = (
  "Compact high-rise",
  "Compact mid-rise",
  "Compact low-rise",
  "Open high-rise",
  "Open mid-rise",
  "Open low-rise",
  "Lightweight low-rise",
  "Large low-rise",
  "Sparsely built",
  "Heavy industry",
  "Dense trees",
  "Scattered trees",
  "Bush, scrub",
  "Low plants",
  "Bare rock or paved",
  "Bare soil or sand",
  "Water",
)

_FILES = {"train": "training.h5", "validation": "validation.h5", "test": "testing.h5"}
_PUBLISHED = {"train": 352366, "validation": 24119, "test": 24188}  # patches per published file
_DATASETS = {"s1": "sen1", "s2": "sen2"}
_SIZE = 32
_MAX_PAIRS = 2**23  # the published training.h5 holds 352,366


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Add nothing: this importer has no options of its own."""


def open_archive(args: argparse.Namespace) -> Archive:
  """List the patches of the h5 files in `args.src`.

  A file that cannot be read, or that lacks a sensor, becomes one row of `skipped`.

  Raises:
    ArchiveError: none of the three files exists, or h5py is not installed.
  """
  _h5py()
  splits: dict[str, list[Entry]] = {}
  skipped: list[Skip] = []
  unlabelled: list[str] = []
  for split, name in _FILES.items():
    path = os.path.join(args.src, name)
    if not os.path.isfile(path):
      continue
    try:
      with _reading(path):
        count, labelled = _count(path)
    except DataError as error:
      skipped.append(Skip(split, f"{error} None of its patches was imported.", _PUBLISHED[split]))
      continue
    splits[split] = [Entry(f"{split}_{row:06d}", (name, row)) for row in range(count)]
    if not labelled:
      unlabelled.append(name)
  if not splits and not skipped:
    raise _nothing_found(args.src)
  notes = ["values were float64 and are stored as float32; splits are the archive's"]
  if unlabelled:
    notes.append(f"{', '.join(unlabelled)} has no labels")
  return Archive(
    name="so2sat_lcz42",
    sensors=SENSORS,
    splits=splits,
    read=functools.partial(read_pair, src=args.src),
    skipped=skipped,
    notes=notes,
  )


def read_pair(entry: Entry, src: str) -> Pair:
  """Read one patch of both sensors and its zone.

  Raises:
    ImageError: the file is damaged at this patch, or its label is not one-hot.
  """
  name, row = entry.source
  path = os.path.join(src, name)
  with _reading(path):
    observations = {
      key: Observation(np.asarray(_dataset(path, dataset)[row], np.float32))
      for key, dataset in _DATASETS.items()
    }
    label = _dataset(path, "label")[row] if "label" in _file(path) else None
  return Pair(
    entry.pair_id, observations, labels=() if label is None else (_zone(path, row, label),)
  )


def _zone(path: str, row: int, label: np.ndarray) -> str:
  (classes,) = np.nonzero(label)
  if label.shape != (len(ZONES),) or len(classes) != 1 or label[classes[0]] != 1:
    raise ImageError(f"{path}: label {row} is {label.tolist()}, expected a single 1 among 17.")
  return ZONES[classes[0]]


def _nothing_found(src: str) -> ArchiveError:
  packed = [f"{name}.gz" for name in _FILES.values()]
  hint = ""
  if any(os.path.isfile(os.path.join(src, name)) for name in packed):
    hint = " Unpack the .h5.gz files there first, with gunzip."
  return ArchiveError(
    f"{src}: holds none of {', '.join(_FILES.values())}. Give --src the folder that does.{hint}"
  )


# Reading an h5 file


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
  try:
    yield
  except DataError:
    raise
  except Exception as error:  # h5py raises OSError, KeyError, RuntimeError and ValueError
    reason = str(error) or type(error).__name__
    raise ImageError(
      f"{path}: cannot be read as HDF5, it is damaged ({reason}). Copy it again."
    ) from error


def _h5py() -> Any:
  try:
    import h5py
  except ImportError as error:
    raise ArchiveError("So2Sat LCZ42 needs h5py: pip install xjepa_jax[geo]") from error
  return h5py


def _file(path: str) -> Any:
  return _opened(path, os.getpid())


@functools.lru_cache(maxsize=8)
def _opened(path: str, process: int) -> Any:
  """A file opened once per process, because HDF5 handles do not survive a fork."""
  return _h5py().File(path, "r", locking="best-effort")  # allows read-only disks


def _dataset(path: str, name: str) -> Any:
  """A data set stored in the file itself; links, which could point to any file, are refused."""
  h5py, file = _h5py(), _file(path)
  link = file.get(name, getlink=True)
  if link is None:
    raise ImageError(f"{path}: holds no data set {name!r}, only {', '.join(file) or 'nothing'}.")
  found = file[name] if isinstance(link, h5py.HardLink) else None
  if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
    raise ImageError(f"{path}: {name!r} is no data set with values of its own.")
  return found


def _count(path: str) -> tuple[int, bool]:
  """Number of patches, and whether they have labels, after checking all shapes."""
  expected: dict[str, tuple[int, ...]] = {
    dataset: (_SIZE, _SIZE, len(SENSORS[key].bands)) for key, dataset in _DATASETS.items()
  }
  labelled = "label" in _file(path)
  if labelled:
    expected["label"] = (len(ZONES),)
  count = _dataset(path, "sen1").shape[:1]
  for name, shape in expected.items():
    found = _dataset(path, name)
    numbers = found.dtype.kind == "f" or (name == "label" and found.dtype.kind in "iu")
    if found.shape != (*count, *shape) or not numbers:
      raise ImageError(
        f"{path}: {name!r} is {found.shape} {found.dtype}, expected "
        f"({', '.join(map(str, (*(count or ('N',)), *shape)))}) of floating-point numbers."
      )
  if not 0 < count[0] <= _MAX_PAIRS:
    raise ImageError(f"{path}: declares {count[0]} patches, expected 1 to {_MAX_PAIRS}.")
  return count[0], labelled
