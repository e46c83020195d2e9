"""Imports BigEarthNet: 120 x 120 pixels of Sentinel-1 and Sentinel-2 L2A at 10 m, with labels.

v1 (BigEarthNet-MM)  a folder of S2 patches and one of S1 patches, of any names. A patch is a folder
  with `<patch>_<band>.tif` and `<patch>_labels_metadata.json`; an S1 patch's names its S2 patch.
v2 (reBEN)  BigEarthNet-S2/<product>/<patch_id>/<patch_id>_<band>.tif, BigEarthNet-S1 likewise,
  metadata.parquet, and metadata_for_patches_with_snow_cloud_or_shadow.parquet where it was loaded.

Both: S1 dB as float32, S2 as uint16, 12 bands of 120, 60 and 20 pixels a side, no B10 (Sumbul et
al. 2021; Clasen et al. 2024). Times are UTC.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import datetime
import functools
import hashlib
import itertools
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from xjepa_jax.data.archive import Archive, Entry, Skip
from xjepa_jax.data.grids import align
from xjepa_jax.data.pairs import Observation, Pair
from xjepa_jax.data.raster import centre, read_bands
from xjepa_jax.errors import ArchiveError, DataError, ManifestError
from xjepa_jax.sensor_presets import preset

SUMMARY = "BigEarthNet v1, v2 (reBEN) or a subset such as BEN-14K: Sentinel-1 with Sentinel-2 L2A"
EXAMPLE = (
  "python -m xjepa_jax.data.importers bigearthnet --src BigEarthNet --out data/ben14k --labels 19 "
  "--subset train=train.csv --subset validation=val.csv --subset test=test.csv"
)

SENSORS = {"s1": preset("sentinel1_grd"), "s2": preset("sentinel2_l2a")}
# BigEarthNet-19 (Sumbul et al. 2021; label_indices.json of BigEarthNet-S2_19-classes_models): each
# name and the CORINE names of v1 that became it. A class that kept its name stands alone.
BEN19: dict[str, tuple[str, ...]] = {
  "Urban fabric": ("Continuous urban fabric", "Discontinuous urban fabric"),
  "Industrial or commercial units": (),
  "Arable land": ("Non-irrigated arable land", "Permanently irrigated land", "Rice fields"),
  "Permanent crops": (
    "Vineyards",
    "Fruit trees and berry plantations",
    "Olive groves",
    "Annual crops associated with permanent crops",
  ),
  "Pastures": (),
  "Complex cultivation patterns": (),
  "Land principally occupied by agriculture, with significant areas of natural vegetation": (),
  "Agro-forestry areas": (),
  "Broad-leaved forest": (),
  "Coniferous forest": (),
  "Mixed forest": (),
  "Natural grassland and sparsely vegetated areas": (
    "Natural grassland",
    "Sparsely vegetated areas",
  ),
  "Moors, heathland and sclerophyllous vegetation": (
    "Moors and heathland",
    "Sclerophyllous vegetation",
  ),
  "Transitional woodland, shrub": ("Transitional woodland/shrub",),
  "Beaches, dunes, sands": (),
  "Inland wetlands": ("Inland marshes", "Peatbogs"),
  "Coastal wetlands": ("Salt marshes", "Salines"),
  "Inland waters": ("Water courses", "Water bodies"),
  "Marine waters": ("Coastal lagoons", "Estuaries", "Sea and ocean"),
}
BEN19_DROPPED = (
  "Road and rail networks and associated land",
  "Port areas",
  "Airports",
  "Mineral extraction sites",
  "Dump sites",
  "Construction sites",
  "Green urban areas",
  "Sport and leisure facilities",
  "Bare rock",
  "Burnt areas",
  "Intertidal flats",
)

_TO_19: dict[str, str] = {
  **{old: new for new, olds in BEN19.items() for old in olds or (new,)},
  **dict.fromkeys(BEN19_DROPPED, ""),
}
_SPLITS = ("train", "validation", "test")
_SPLIT_NAMES = {**{name: name for name in _SPLITS}, "val": "validation"}
_METADATA = "metadata.parquet"
_SNOW_METADATA = "metadata_for_patches_with_snow_cloud_or_shadow.parquet"
_COLUMNS = ("patch_id", "labels", "split", "s1_name")
_FLAGS = ("contains_seasonal_snow", "contains_cloud_or_shadow")
_JSON = "_labels_metadata.json"
_S1_NAME = re.compile(r"S1[A-D]_IW_GRDH_1SDV_\d{8}T\d{6}_\w{5}_\d+_\d+")
_S2_NAME = re.compile(r"S2[A-D]_MSIL2A_\d{8}T\d{5,6}_\w+")  # v1 has five digits before 10:00


class _Source(NamedTuple):
  """Folders of both patches below --src, and labels, or None where a JSON file holds them."""

  s1: str
  s2: str
  labels: tuple[str, ...] | None


class _Listed(NamedTuple):
  """A pair, the names of its S2 patch in v1 and v2, and its split where no subset says another."""

  entry: Entry
  names: tuple[str, ...]
  split: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options that only this importer has."""
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
  """Lists the pairs of `args.src`, whichever version it holds.

  Raises:
    ArchiveError: the folder is of neither version, or an option does not apply to it.
    ManifestError: a subset cannot be read, or names a patch for two splits.
  """
  subset = _subset(args.subset)
  v2 = os.path.isfile(os.path.join(args.src, _METADATA))
  splits: dict[str, list[Entry]] = {name: [] for name in _SPLITS}
  skipped: list[Skip] = []
  missing = set(subset)
  for one in _list_v2(args) if v2 else _list_v1(args, subset):
    names = (one.pair_id,) if isinstance(one, Skip) else one.names
    named = [name for name in names if name in subset]
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
  """Reads both patches of a pair, every band on the 10 m grid.

  Raises:
    ImageError: an image is missing or damaged, or the grids differ.
    ArchiveError: the labels of a patch of v1 cannot be read.
  """
  source = _Source(*entry.source)
  labels = source.labels
  s1_time, s2_time = (os.path.basename(folder).split("_") for folder in (source.s1, source.s2))
  acquired = {"s1": _time(s1_time[4]), "s2": _time(s2_time[2])}
  if labels is None:
    content = _read_json(src, source.s2)
    labels = tuple(content["labels"])
    # Names of v1 hold no sound time: 09:41:56 is T94161 there.
    acquired["s2"] = _time(str(content.get("acquisition_date", "")))
    if nomenclature == "19":
      labels = _to_19(os.path.join(src, source.s2), labels)
  folders = {"s1": os.path.join(src, source.s1), "s2": os.path.join(src, source.s2)}
  rasters = {
    key: read_bands([_band_path(folders[key], band) for band in sensor.band_names], resample)
    for key, sensor in SENSORS.items()
  }
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


def _to_19(where: str, labels: tuple[str, ...]) -> tuple[str, ...]:
  """Names of BigEarthNet-19, each once, without those that it dropped."""
  for label in labels:
    if label not in _TO_19:
      raise ArchiveError(f"{where}: the label {label!r} is not one of BigEarthNet's 43.")
  return tuple(name for name in dict.fromkeys(_TO_19[label] for label in labels) if name)


def _time(text: str) -> str:
  """ISO 8601 in UTC, or "" where the text is no time."""
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


# Version 1


def _list_v1(args: argparse.Namespace, subset: Mapping[str, str]) -> Iterator[_Listed | Skip]:
  if args.drop_snow_and_cloud:
    raise ArchiveError(
      f"{args.src}: --drop-snow-and-cloud needs v2, whose metadata flags such patches; for v1, "
      "name the patches to be kept with --subset."
    )
  s1_root, s2_root = _roots(args.src)
  optical = set(os.listdir(os.path.join(args.src, s2_root)))
  unpaired = {name for name in optical if _S2_NAME.fullmatch(name)}
  for name in sorted(os.listdir(os.path.join(args.src, s1_root))):
    if not _S1_NAME.fullmatch(name):
      continue
    try:
      content = _read_json(args.src, os.path.join(s1_root, name))
    except DataError as error:
      yield Skip(name, str(error))
      continue
    patch = content.get("corresponding_s2_patch")
    if not isinstance(patch, str) or patch not in optical:
      yield Skip(patch if isinstance(patch, str) else name, f"{name} has no S2 patch {patch!r}.")
      continue
    unpaired.discard(patch)
    if subset and patch not in subset:
      continue
    source = _Source(os.path.join(s1_root, name), os.path.join(s2_root, patch), None)
    scene = f"{name.split('_')[-3]}_{patch.split('_')[2][:8]}"
    yield _Listed(Entry(patch, tuple(source)), (patch,), _hashed_split(scene, args.seed))
  for patch in unpaired:
    yield Skip(patch, "no S1 patch names it.")


def _roots(src: str) -> tuple[str, str]:
  """Folders of the S1 and of the S2 patches below `src`, told apart by what a patch holds."""
  found: dict[str, list[str]] = {"s1": [], "s2": []}
  below = _folders(src, 1000)
  deeper = [os.path.join(one, two) for one in below for two in _folders(os.path.join(src, one), 20)]
  for folder in [*below, *deeper]:
    kind = _kind(src, folder)
    if kind:
      found[kind].append(folder)
  if [len(folders) for folders in found.values()] != [1, 1]:
    raise ArchiveError(
      f"{src}: expected one folder of S1 patches and one of S2 patches with *{_JSON} in them "
      f"(v1), or {_METADATA} (v2); found {found['s1'] or 'none'} of S1 and "
      f"{found['s2'] or 'none'} of S2."
    )
  return found["s1"][0], found["s2"][0]


def _kind(src: str, folder: str) -> str:
  """ "s1" or "s2" if the folder holds patches of v1, going by the first that can be read."""
  for patch in _folders(os.path.join(src, folder), 20):
    path = os.path.join(folder, patch)
    if os.path.isfile(_json_path(src, path)):
      with contextlib.suppress(DataError):
        return "s1" if "corresponding_s2_patch" in _read_json(src, path) else "s2"
  return ""


def _folders(path: str, most: int) -> list[str]:
  """Names of folders in a folder, of `most` of them, for it may hold hundreds of thousands."""
  try:
    with os.scandir(path) as entries:
      return sorted(itertools.islice((e.name for e in entries if e.is_dir()), most))
  except OSError as error:
    raise ArchiveError(f"{path}: cannot be listed ({error.strerror}).") from error


def _json_path(src: str, patch: str) -> str:
  return os.path.join(src, patch, os.path.basename(patch) + _JSON)


def _read_json(src: str, patch: str) -> dict[str, Any]:
  """The labels and metadata of a patch of v1; `labels` is a list of names."""
  path = _json_path(src, patch)
  try:
    with open(path, encoding="utf-8") as file:
      content = json.load(file)
  except (OSError, ValueError, RecursionError) as error:
    raise ArchiveError(f"{path}: cannot be read as JSON ({error}). Copy it again.") from error
  labels = content.get("labels") if isinstance(content, dict) else None
  if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
    raise ArchiveError(f"{path}: holds no list of labels, expected {{'labels': [...], ...}}.")
  return content


def _hashed_split(scene: str, seed: int) -> str:
  digest = hashlib.sha256(f"{seed}:{scene}".encode()).digest()
  share = int.from_bytes(digest[:8], "big") / 2**64
  return "train" if share < 0.8 else "validation" if share < 0.9 else "test"


# Version 2


def _list_v2(args: argparse.Namespace) -> Iterator[_Listed | Skip]:
  if args.labels == "43":
    raise ArchiveError(f"{args.src}: --labels 43 needs v1; v2 has BigEarthNet-19 only.")
  for folder in ("BigEarthNet-S1", "BigEarthNet-S2"):
    if not os.path.isdir(os.path.join(args.src, folder)):
      raise ArchiveError(f"{args.src}: holds {_METADATA} but no folder {folder}; unpack it there.")
  for row in _metadata(args.src):
    if args.drop_snow_and_cloud and any(row.get(flag) for flag in _FLAGS):
      continue
    patch, s1 = str(row["patch_id"]), str(row["s1_name"])
    labels, split = row["labels"], _SPLIT_NAMES.get(str(row["split"]))
    # Names become paths, so nothing but a name may pass.
    if not (_S2_NAME.fullmatch(patch) and _S1_NAME.fullmatch(s1)):
      yield Skip(patch, f"{patch!r} and {s1!r} are no names of an S2 and an S1 patch.")
    elif split is None or not isinstance(labels, list) or None in labels:
      yield Skip(patch, f"has the split {row['split']!r} and the labels {labels!r}.")
    else:
      source = _Source(
        s1=os.path.join("BigEarthNet-S1", s1.rsplit("_", 3)[0], s1),
        s2=os.path.join("BigEarthNet-S2", patch.rsplit("_", 2)[0], patch),
        labels=tuple(sys.intern(str(label)) for label in labels),  # half a million rows, 19 names
      )
      yield _Listed(Entry(patch, tuple(source)), (patch, str(row.get("s2v1_name"))), split)


def _metadata(src: str) -> Iterator[dict[str, Any]]:
  try:
    from pyarrow import parquet
  except ImportError as error:
    raise ArchiveError(f"{src}: needs pyarrow: pip install pyarrow") from error
  for name in (_METADATA, _SNOW_METADATA):
    path = os.path.join(src, name)
    if name == _SNOW_METADATA and not os.path.isfile(path):
      return
    try:
      with parquet.ParquetFile(path, page_checksum_verification=True) as file:
        columns = file.schema_arrow.names
        wanted = [column for column in (*_COLUMNS, "s2v1_name", *_FLAGS) if column in columns]
        if not set(_COLUMNS) <= set(columns):
          raise ArchiveError(
            f"{path}: has the columns {', '.join(columns)}; expected at least "
            f"{', '.join(_COLUMNS)}."
          )
        for batch in file.iter_batches(batch_size=4096, columns=wanted):
          yield from batch.to_pylist()
    except (DataError, GeneratorExit):
      raise
    except Exception as error:  # pyarrow's own errors, OSError, and more for damaged bytes
      raise ArchiveError(f"{path}: cannot be read as Parquet ({error}). Copy it again.") from error


# Subsets


def _subset(options: list[str]) -> dict[str, str]:
  """S2 name -> split, or "" where the options name none."""
  subset: dict[str, str] = {}
  for option in options:
    split, found, path = option.partition("=")
    if not found:
      split, path = "", option
    elif split not in _SPLIT_NAMES:
      raise ManifestError(f"--subset {option!r}: expected CSV, or SPLIT=CSV with {_SPLITS}.")
    split = _SPLIT_NAMES.get(split, "")
    for name in _names(path):
      if subset.setdefault(name, split) != split:
        raise ManifestError(f"{path}: {name} is named for {subset[name] or 'no'} split already.")
  if "" in subset.values() and any(subset.values()):
    raise ManifestError("--subset: give every file a split, as in train=CSV, or none of them.")
  if options and not subset:
    raise ManifestError(f"--subset {', '.join(options)}: names no S2 patch.")
  return subset


def _names(path: str) -> Iterator[str]:
  """The first cell of each row that is an S2 name; the first row may be a header."""
  try:
    with open(path, encoding="utf-8-sig", newline="") as file:
      for number, row in enumerate(csv.reader(file), 1):
        names = [cell.strip() for cell in row if _S2_NAME.fullmatch(cell.strip())]
        if names:
          yield names[0]
        elif row and number > 1:
          raise ManifestError(f"{path}, row {number}: {row!r} holds no name of an S2 patch.")
  except (OSError, ValueError, csv.Error) as error:
    if isinstance(error, DataError):
      raise
    raise ManifestError(f"{path}: cannot be read as CSV ({error}).") from error
