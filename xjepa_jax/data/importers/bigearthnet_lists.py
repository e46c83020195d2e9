"""Lists the pairs of a BigEarthNet: v1 by its JSON files, v2 by its metadata; and reads subsets."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from xjepa_jax.data.archive import Entry, Skip
from xjepa_jax.data.importing.splits import SPLITS, hashed_split
from xjepa_jax.data.tables import read_cells, read_columns, read_rows
from xjepa_jax.errors import ArchiveError, DataError, OptionError, TableError
from xjepa_jax.paths import user_path

_SPLIT_NAMES = {**{name: name for name in SPLITS}, "val": "validation"}
METADATA = "metadata.parquet"
_SNOW_METADATA = "metadata_for_patches_with_snow_cloud_or_shadow.parquet"
_COLUMNS = ("patch_id", "labels", "split", "s1_name")
FLAGS = ("contains_seasonal_snow", "contains_cloud_or_shadow")
_JSON = "_labels_metadata.json"
_S1_NAME = re.compile(r"S1[A-D]_IW_GRDH_1SDV_\d{8}T\d{6}_\w{5}_\d+_\d+")
_S2_NAME = re.compile(r"S2[A-D]_MSIL2A_\d{8}T\d{5,6}_\w+")  # v1 has five time digits before 10:00


class Source(NamedTuple):
  """Folders of both patches below --src, and labels, or None if a JSON file holds them."""

  s1: str
  s2: str
  labels: tuple[str, ...] | None


class Listed(NamedTuple):
  """A pair, its S2 patch's names in v1 and v2, and its split unless a subset assigns another."""

  entry: Entry
  names: tuple[str, ...]
  split: str


# Version 1


def list_v1(args: argparse.Namespace, subset: Mapping[str, str]) -> Iterator[Listed | Skip]:
  """The pairs of v1, and the patches without a counterpart. Raises ArchiveError."""
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
      content = read_json(args.src, os.path.join(s1_root, name))
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
    source = Source(os.path.join(s1_root, name), os.path.join(s2_root, patch), None)
    scene = f"{name.split('_')[-3]}_{patch.split('_')[2][:8]}"
    yield Listed(Entry(patch, tuple(source)), (patch,), hashed_split(scene, args.seed))
  for patch in unpaired:
    yield Skip(patch, "no S1 patch names it.")


def _roots(src: str) -> tuple[str, str]:
  """The folders of S1 and of S2 patches below `src`, distinguished by the contents of a patch."""
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
      f"(v1), or {METADATA} (v2); found {found['s1'] or 'none'} of S1 and "
      f"{found['s2'] or 'none'} of S2."
    )
  return found["s1"][0], found["s2"][0]


def _kind(src: str, folder: str) -> str:
  """The kind of v1 patches in the folder, "s1" or "s2", by the first readable one; else ""."""
  for patch in _folders(os.path.join(src, folder), 20):
    path = os.path.join(folder, patch)
    if os.path.isfile(_json_path(src, path)):
      with contextlib.suppress(DataError):
        return "s1" if "corresponding_s2_patch" in read_json(src, path) else "s2"
  return ""


def _folders(path: str, most: int) -> list[str]:
  """Names of at most `most` folders in a folder, since it may hold hundreds of thousands."""
  try:
    with os.scandir(path) as entries:
      return sorted(itertools.islice((e.name for e in entries if e.is_dir()), most))
  except OSError as error:
    raise ArchiveError(f"{path}: cannot be listed ({error.strerror}).") from error


def _json_path(src: str, patch: str) -> str:
  return os.path.join(src, patch, os.path.basename(patch) + _JSON)


def read_json(src: str, patch: str) -> dict[str, Any]:
  """The labels and metadata of a v1 patch; `labels` is a list of names."""
  path = _json_path(src, patch)
  try:
    with open(path, "rb") as file:
      content = json.load(file)  # from bytes, since json.load then handles a byte-order mark
  except (OSError, ValueError, RecursionError) as error:
    raise ArchiveError(f"{path}: cannot be read as JSON ({error}). Copy it again.") from error
  labels = content.get("labels") if isinstance(content, dict) else None
  if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
    raise ArchiveError(f"{path}: holds no list of labels, expected {{'labels': [...], ...}}.")
  return content


# Version 2


def list_v2(args: argparse.Namespace) -> Iterator[Listed | Skip]:
  """The pairs in v2's metadata. Raises ArchiveError, TableError."""
  if args.labels == "43":
    raise ArchiveError(f"{args.src}: --labels 43 needs v1; v2 has BigEarthNet-19 only.")
  for folder in ("BigEarthNet-S1", "BigEarthNet-S2"):
    if not os.path.isdir(os.path.join(args.src, folder)):
      raise ArchiveError(f"{args.src}: holds {METADATA} but no folder {folder}; unpack it there.")
  for row in _metadata(args.src):
    if args.drop_snow_and_cloud and any(row.get(flag) for flag in FLAGS):
      continue
    patch, s1 = str(row["patch_id"]), str(row["s1_name"])
    labels, split = row["labels"], _SPLIT_NAMES.get(str(row["split"]))
    # These names become paths, so anything that is not exactly a name is rejected.
    if not (_S2_NAME.fullmatch(patch) and _S1_NAME.fullmatch(s1)):
      yield Skip(patch, f"{patch!r} and {s1!r} are no names of an S2 and an S1 patch.")
    elif split is None or not isinstance(labels, list) or None in labels:
      yield Skip(patch, f"has the split {row['split']!r} and the labels {labels!r}.")
    else:
      source = Source(
        s1=os.path.join("BigEarthNet-S1", s1.rsplit("_", 3)[0], s1),
        s2=os.path.join("BigEarthNet-S2", patch.rsplit("_", 2)[0], patch),
        labels=tuple(sys.intern(str(label)) for label in labels),  # 19 names in 0.5 M rows
      )
      yield Listed(Entry(patch, tuple(source)), (patch, str(row.get("s2v1_name"))), split)


def _metadata(src: str) -> Iterator[Mapping[str, Any]]:
  for name in (METADATA, _SNOW_METADATA):
    path = os.path.join(src, name)
    if name == _SNOW_METADATA and not os.path.isfile(path):
      return
    columns = read_columns(path)
    if not set(_COLUMNS) <= set(columns):
      raise TableError(
        f"{path}: has the columns {', '.join(columns)}; expected at least {', '.join(_COLUMNS)}."
      )
    for _, row in read_rows(path, columns, {*_COLUMNS, "s2v1_name", *FLAGS}):
      yield row


# Subsets


def read_subset(options: list[str]) -> dict[str, str]:
  """S2 name -> split, or "" if the options name no splits. Raises OptionError, TableError."""
  subset: dict[str, str] = {}
  for option in options:
    split, found, path = option.partition("=")
    if not found:
      split, path = "", option
    elif split not in _SPLIT_NAMES:
      raise OptionError(f"--subset {option!r}: expected CSV, or SPLIT=CSV with {SPLITS}.")
    split, path = _SPLIT_NAMES.get(split, ""), user_path(path)
    for name in _names(path):
      if subset.setdefault(name, split) != split:
        raise TableError(f"{path}: {name} is named for {subset[name] or 'no'} split already.")
  if "" in subset.values() and any(subset.values()):
    raise OptionError("--subset: give every file a split, as in train=CSV, or none of them.")
  if options and not subset:
    raise OptionError(f"--subset {', '.join(options)}: names no S2 patch.")
  return subset


def _names(path: str) -> Iterator[str]:
  """The first cell of each row that is an S2 name; the first row may be a header."""
  for number, (where, row) in enumerate(read_cells(path)):
    names = [cell.strip() for cell in row if _S2_NAME.fullmatch(cell.strip())]
    if names:
      yield names[0]
    elif number:
      raise TableError(f"{path}: {where}, {row!r}, holds no name of an S2 patch.")
