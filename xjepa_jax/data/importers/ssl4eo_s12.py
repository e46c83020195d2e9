"""Imports SSL4EO-S12 v1.1 in its Zarr release: one zip holds 64 places on four dates.

`{train,val}/{S1GRD,S2L2A,S2L1C}/ssl4eos12_<split>_seasonal_data_NNNNNN.zarr.zip`; `ssl4eo_s12_zip`
describes the content of a zip.

In this release both Sentinel-2 levels carry the +1000 of processing baseline 04.00 on every date.
The later WebDataset release (`ssl4eos12_shard_*.tar`) does not, and has another layout, which this
importer does not read.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
from collections.abc import Sequence

from xjepa_jax.data.archive import Archive, Entry, Skip
from xjepa_jax.data.grids import align
from xjepa_jax.data.importers.ssl4eo_s12_zip import (
  import_zarr,
  read_image,
  read_place,
  read_time,
  reading,
  sample_ids,
)
from xjepa_jax.data.pairs import Observation, Pair
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
_PRESETS = {  # n0400: with the +1000, see the module's docstring
  "S1GRD": "sentinel1_grd",
  "S2L2A": "sentinel2_l2a_n0400",
  "S2L1C": "sentinel2_l1c_n0400",
}
_DTYPES = {"S1GRD": "float32", "S2L2A": "int16", "S2L1C": "int16"}
_SAMPLES = 64  # places per zip
_SPLITS = {"train": "train", "val": "validation"}
_FILE = re.compile(r"ssl4eos12_(?:train|val)_seasonal_data_\d{6}\.zarr\.zip")


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Add the options specific to this importer."""
  parser.add_argument(
    "--sensors", default="S1GRD,S2L2A", help=f"folders, the first one's grid: {', '.join(KEYS)}"
  )
  parser.add_argument("--dates", default="0,1,2,3", help="which of the four dates of each place")


def open_archive(args: argparse.Namespace) -> Archive:
  """List every place and date of the zips in `args.src`.

  Every date is a pair of its own, `<sample>_<date>`; all dates of a place are in one split.

  Raises:
    ArchiveError: there is no such zip, an option names an unknown sensor or date, or zarr is not
      installed.
  """
  import_zarr()
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
        skipped.append(
          Skip(
            f"{part}/{name}", f"{error} None of its samples was imported.", _SAMPLES * len(dates)
          )
        )
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
  """Read one place on one date, with all sensors.

  Raises:
    ImageError: a zip is damaged, or the sensors' grids differ and are to be refused.
  """
  part, name, number, date = entry.source
  rasters: dict[str, Raster] = {}
  acquired: dict[str, str] = {}
  sensors = _sensors(folders)
  for folder in folders:
    path, key = os.path.join(src, part, folder, name), KEYS[folder]
    with reading(path):
      found = sample_ids(path)[number][date]
      if found != entry.pair_id:  # the zip was replaced after it was listed
        raise ImageError(f"{path}: sample {number} is {found!r}, expected {entry.pair_id!r}.")
      rasters[key] = read_image(path, number, date, sensors[key])
      acquired[key] = read_time(path, number, date)
  first = os.path.join(src, part, folders[0], name)
  with reading(first):
    longitude, latitude = read_place(first, number)
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
  """Names of the zips that at least one of the sensors has in this part of the archive."""
  names = {name for folder in folders for name in _listed(src, part, folder)}
  return sorted(name for name in names if _FILE.fullmatch(name))


def _listed(*parts: str) -> list[str]:
  try:
    return os.listdir(os.path.join(*parts))
  except OSError:  # missing or unreadable; the caller's message names what was expected
    return []


def _agreed_ids(paths: Sequence[str]) -> list[list[str]]:
  """Ids of all samples and dates, which must be equal in the zips of all sensors."""
  first: list[list[str]] = []
  for path in paths:
    if not os.path.isfile(path):
      raise ImageError(f"{path}: there is no such file; every sensor needs its zip.")
    with reading(path):
      ids = sample_ids(path)
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
