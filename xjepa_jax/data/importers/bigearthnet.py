"""Imports BigEarthNet: 120 x 120 pixels of Sentinel-1 and Sentinel-2 L2A at 10 m, with labels.

v1 (BigEarthNet-MM)  a folder of S2 patches and one of S1 patches, with any names. A patch is a
  folder with `<patch>_<band>.tif` and `<patch>_labels_metadata.json`; that of S1 names its S2
  patch.
v2 (reBEN)  BigEarthNet-S2/<product>/<patch_id>/<patch_id>_<band>.tif, BigEarthNet-S1 likewise,
  metadata.parquet, and metadata_for_patches_with_snow_cloud_or_shadow.parquet if downloaded.

Both: S1 in dB as float32, S2 as uint16, 12 bands of 120, 60 and 20 pixels a side, no B10 (Sumbul et
al. 2021; Clasen et al. 2024). Times are UTC.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import os
from collections.abc import Mapping

from xjepa_jax.data.archive import Archive, Entry, Skip
from xjepa_jax.data.band_stack import read_bands
from xjepa_jax.data.grids import align
from xjepa_jax.data.importers.bigearthnet_labels import to_19
from xjepa_jax.data.importers.bigearthnet_lists import (
  METADATA,
  Source,
  list_v1,
  list_v2,
  read_json,
  read_subset,
)
from xjepa_jax.data.importing.file_sensors import as_told
from xjepa_jax.data.importing.splits import SPLITS
from xjepa_jax.data.pairs import Observation, Pair
from xjepa_jax.data.raster import centre
from xjepa_jax.sensor_presets import preset

SUMMARY = "BigEarthNet v1, v2 (reBEN) or a subset such as BEN-14K: Sentinel-1 with Sentinel-2 L2A"
EXAMPLE = (
  "python -m xjepa_jax.data.importers bigearthnet --src BigEarthNet --out data/ben14k --labels 19 "
  "--subset train=train.csv --subset validation=val.csv --subset test=test.csv"
)

SENSORS = {"s1": preset("sentinel1_grd"), "s2": preset("sentinel2_l2a")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Add the options specific to this importer."""
  parser.add_argument(
    "--subset",
    metavar="[SPLIT=]CSV",
    action="append",
    default=[],
    help="only S2 patches named there, one a row; train=CSV, validation=CSV, test=CSV give splits",
  )
  parser.add_argument("--labels", choices=("19", "43"), help="v1: 43 if not given; v2 has only 19")
  parser.add_argument(
    "--drop-snow-and-cloud", action="store_true", help="leave out what v2's metadata flags"
  )


def open_archive(args: argparse.Namespace) -> Archive:
  """List the pairs of `args.src`, in either version.

  Raises:
    ArchiveError: the folder is of neither version, or an option does not apply to it.
    TableError, OptionError: a subset or the metadata cannot be read, or a subset assigns a patch to
      two splits.
  """
  subset = read_subset(args.subset)
  v2 = os.path.isfile(os.path.join(args.src, METADATA))
  splits: dict[str, list[Entry]] = {name: [] for name in SPLITS}
  skipped: list[Skip] = []
  missing = set(subset)
  for one in list_v2(args) if v2 else list_v1(args, subset):
    names = (one.pair_id,) if isinstance(one, Skip) else one.names
    named = [name for name in names if name in subset]  # by the name in v1 or in v2
    if subset and not named:
      continue
    missing.difference_update(named)
    if isinstance(one, Skip):
      skipped.append(one)
    else:
      split = subset[named[0]] if named else ""
      splits[split or one.split].append(one.entry)
  skipped += [Skip(name, "is named by --subset, but not in the archive.") for name in missing]
  return Archive(
    name="bigearthnet_v2" if v2 else "bigearthnet_v1",
    sensors=SENSORS,
    splits={name: sorted(each, key=_pair_id) for name, each in splits.items() if each},
    read=functools.partial(
      read_pair,
      src=args.src,
      nomenclature="19" if v2 else args.labels or "43",
      misaligned=args.misaligned,
      resample=args.resample,
    ),
    skipped=sorted(skipped, key=_pair_id),
    notes=_notes(args, v2, subset),
  )


def read_pair(entry: Entry, src: str, nomenclature: str, misaligned: str, resample: str) -> Pair:
  """Read both patches of a pair, with every band on the 10 m grid.

  Raises:
    ImageError: an image is missing or damaged, or the grids differ.
    ArchiveError: the labels of a v1 patch cannot be read.
  """
  source = Source(*entry.source)
  labels = source.labels
  s1_time, s2_time = (os.path.basename(folder).split("_") for folder in (source.s1, source.s2))
  acquired = {"s1": _time(s1_time[4]), "s2": _time(s2_time[2])}
  if labels is None:
    content = read_json(src, source.s2)
    labels = tuple(content["labels"])
    # Times in v1's patch names are not reliable: 09:41:56 is written T94161.
    acquired["s2"] = _time(str(content.get("acquisition_date", "")))
    if nomenclature == "19":
      labels = to_19(os.path.join(src, source.s2), labels)
  folders = {"s1": os.path.join(src, source.s1), "s2": os.path.join(src, source.s2)}
  rasters = {}
  for key, sensor in SENSORS.items():
    paths = [_band_path(folders[key], band) for band in sensor.band_names]
    rasters[key] = as_told(key, sensor, read_bands(paths, resample))
  rasters = align(rasters, SENSORS, misaligned, resample)
  longitude, latitude = centre(rasters["s1"])
  return Pair(
    pair_id=entry.pair_id,
    observations={key: Observation(r.values, acquired[key]) for key, r in rasters.items()},
    labels=labels,
    longitude=longitude,
    latitude=latitude,
    crs=rasters["s1"].crs,
    transform=rasters["s1"].transform,
  )


def _band_path(folder: str, band: str) -> str:
  return os.path.join(folder, f"{os.path.basename(folder)}_{band}.tif")


def _time(text: str) -> str:
  """A time as ISO 8601 in UTC, or "" if the text is not a time."""
  try:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=None).isoformat() + "Z"
  except ValueError:
    return ""


def _pair_id(one: Entry | Skip) -> str:
  return one.pair_id


def _notes(args: argparse.Namespace, v2: bool, subset: Mapping[str, str]) -> list[str]:
  notes = [f"20 m and 60 m bands were brought to 10 m by {args.resample!r}"]
  if any(subset.values()):
    notes.append("splits: those of --subset")
  elif v2:
    notes.append("splits: the archive's")
  else:
    notes.append(
      "splits: train, validation and test hold about 80, 10 and 10 % of the scenes by a hash of "
      f"tile and date of the S2 patch (seed {args.seed})"
    )
  if args.drop_snow_and_cloud:
    notes.append("patches flagged for seasonal snow, cloud or shadow were left out")
  return notes
