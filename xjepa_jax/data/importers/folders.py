"""Imports pairs from folders: one folder of images per sensor, matched by their names.

Each folder is searched recursively. The id of an image's pair is its path below the sensor's folder
without the suffix, or the part of it that `--pair-id` matches; images with equal ids form a pair.
Hidden files are ignored, and links to folders are not followed.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from xjepa_jax.data.archive import Archive, Entry, Skip
from xjepa_jax.data.image_folders import walk_images
from xjepa_jax.data.importing.file_sensors import meet_files
from xjepa_jax.data.importing.headers import read_headers
from xjepa_jax.data.importing.image_pairs import ImagePair, Reading, pair_sizes, read_pair
from xjepa_jax.data.importing.pairing_report import copies, pairing_report
from xjepa_jax.data.importing.sensor_options import (
  add_sensor_arguments,
  dataset_name,
  key_values,
  named_sensors,
  nodata_values,
  told_bands,
)
from xjepa_jax.data.importing.splits import by_split, hash_note, hashed_split
from xjepa_jax.data.raster import SUFFIXES
from xjepa_jax.data.safe_paths import locate, remembering_realpath
from xjepa_jax.data.unicode_names import composed, quoted, shown
from xjepa_jax.errors import ArchiveError
from xjepa_jax.sensor_presets import PRESETS
from xjepa_jax.sensors import Sensor

SUMMARY = (
  "pairs of GeoTIFF, JPEG 2000, PNG or npy images in one folder a sensor, matched by their names"
)
EXAMPLE = (
  "python -m xjepa_jax.data.importers folders --src scenes --out pairs "
  "--sensor s1=sentinel1_grd:S1 --sensor s2=sentinel2_l2a:S2 --pair-id '_(\\d+)$'"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Add the options specific to this importer."""
  add_sensor_arguments(parser, "KEY=PRESET:FOLDER", "FOLDER below --src holds a sensor's images")
  parser.add_argument(
    "--pair-id",
    metavar="REGEX",
    help="its one group takes the pair's id out of an image's path below FOLDER, without suffix; "
    "all of that if not given",
  )
  parser.add_argument(
    "--allow-missing", action="store_true", help="keep pairs that lack a sensor's image"
  )
  parser.add_argument(
    "--allow-outside", action="store_true", help="let folders and links leave --src"
  )


def open_archive(args: argparse.Namespace) -> Archive:
  """List the pairs in the folders below `args.src`.

  Raises:
    ArchiveError: a folder is missing or holds no images, a path leads out of `args.src`, images of
      one sensor share an id (the first ten are listed), no id has an image of every sensor, or no
      image of a sensor fits it.
    OptionError: an option is malformed.
    SensorError: a sensor's key, preset, bands or nodata value is wrong.
  """
  pattern = _pattern(args.pair_id)
  root = os.path.realpath(args.src)
  if not os.path.isdir(root):
    raise ArchiveError(f"{args.src}: there is no such folder.")
  sensors, folders = _sensors(args, root)
  find = functools.partial(
    locate, root, allow_outside=args.allow_outside, real=remembering_realpath()
  )
  _check_apart({key: find(folder) for key, folder in folders.items()})
  folders = {key: os.path.relpath(find(folder), root) for key, folder in folders.items()}
  images = {key: list(_images(key, root, folder, find)) for key, folder in folders.items()}
  skipped: list[Skip] = []
  named = {key: _by_id(key, folders[key], paths, pattern, skipped) for key, paths in images.items()}
  pairs = _match(named)
  whole = {pair_id: paths for pair_id, paths in pairs.items() if len(paths) == len(sensors)}
  if not (whole or (args.allow_missing and pairs)):
    raise ArchiveError(f"{args.src}: no id has an image of every sensor. {_first_ids(named)}")
  if not args.allow_missing:
    skipped += [
      _lacking(pair_id, pairs[pair_id], named) for pair_id in pairs if pair_id not in whole
    ]
    pairs = whole
  headers = read_headers((path for paths in images.values() for path in paths), find)
  of_sensor = {key: [paths[key] for paths in pairs.values() if key in paths] for key in sensors}
  met = meet_files(
    args.src,
    sensors,
    nodata_values(args, sensors),
    # Sensors adapt to files with the usual dtype and nodata, not to a first one that may be odd.
    {key: headers.usual_first(paths) for key, paths in of_sensor.items()},
    find,
    told_bands(args, sensors),
  )
  reading = Reading(
    root,
    args.allow_outside,
    met,
    args.misaligned,
    args.resample,
    args.ungeoreferenced,
    args.any_resolution,
  )
  return Archive(
    name=dataset_name(args.name, os.path.basename(root)),
    sensors=met.sensors,
    splits=by_split(
      (hashed_split(pair_id, args.seed), Entry(pair_id, ImagePair(tuple(paths.items()))))
      for pair_id, paths in pairs.items()
    ),
    read=functools.partial(read_pair, reading=reading),
    sizes=functools.partial(pair_sizes, reading=reading, headers=headers),
    skipped=skipped,
    notes=[
      *pairing_report(images, whole, headers),
      copies(root, headers.read),
      *met.notes,
      f"{hash_note(args.seed)} import a manifest with a column split.",
    ],
  )


# Options


def _pattern(text: str | None) -> re.Pattern[str]:
  try:
    pattern = re.compile("(.*)" if text is None else composed(text), re.DOTALL)
  except re.error as error:
    raise ArchiveError(f"--pair-id {text}: is no regular expression ({error}).") from error
  if pattern.groups != 1:
    raise ArchiveError(
      f"--pair-id {text}: has {pattern.groups} groups, expected one around the pair's id; others "
      "can be written (?:...)."
    )
  return pattern


def _sensors(args: argparse.Namespace, root: str) -> tuple[dict[str, Sensor], dict[str, str]]:
  """The sensors by key, and their folders; the default folder of a sensor is named by its key."""
  if not (args.sensor or args.sensors):
    _, below, _ = next(os.walk(root), ("", [], []))
    names = ", ".join(sorted(below)) or "(none)"
    raise ArchiveError(
      f"{args.src}: which folders hold which sensor? There are {names}. Give "
      f"--sensor KEY=PRESET:FOLDER for each, with a preset of {', '.join(PRESETS)}."
    )
  presets: dict[str, str] = {}
  folders: dict[str, str] = {}
  for key, text in key_values(args.sensor, "--sensor").items():
    name, _, folder = text.partition(":")
    folders[key] = folder or key
    if name:  # KEY=:FOLDER is a sensor that --sensors describes
      presets[key] = name
  sensors = named_sensors(args, presets)
  for key in folders:
    if key not in sensors:
      raise ArchiveError(f"--sensor {key}=:{folders[key]}: names no preset, nor does --sensors.")
  folders |= {key: key for key in sensors if key not in folders}
  return {key: sensors[key] for key in folders}, folders


def _check_apart(folders: Mapping[str, str]) -> None:
  real = {key: os.path.join(os.path.realpath(folder), "") for key, folder in folders.items()}
  # Images in a folder within another's would count for both sensors.
  for key, folder in real.items():
    for other, around in real.items():
      if key != other and folder.startswith(around):
        raise ArchiveError(
          f"the folder of sensor {key!r} is in that of sensor {other!r}, {around}. Give each "
          "sensor a folder of its own."
        )


# Folders


def _images(key: str, root: str, folder: str, find: Callable[[str], str]) -> Iterator[str]:
  """Paths of the images in and below a folder, relative to the root, in order."""
  top = find(folder)
  if not os.path.isdir(top):
    raise ArchiveError(f"sensor {key!r}: there is no folder {top}.")
  found = False
  for full in walk_images(top):
    path = os.path.relpath(full, root)
    if not path.isprintable():  # also catches bytes that are not UTF-8
      raise ArchiveError(f"{path!r}: is no name for people; rename the file.")
    find(path)  # raises an ArchiveError if a link leads out of --src
    found = True
    yield path
  if not found:
    raise ArchiveError(f"sensor {key!r}: there is no {', '.join(SUFFIXES)} file below {top}.")


def _by_id(
  key: str, folder: str, paths: Sequence[str], pattern: re.Pattern[str], skipped: list[Skip]
) -> dict[str, str]:
  """Pair id -> path. Paths without an id are added to `skipped`."""
  named: dict[str, list[str]] = {}
  for path in paths:
    stem = composed(os.path.splitext(os.path.relpath(path, folder))[0].replace(os.sep, "/"))
    match = pattern.search(stem)
    if match and match[1]:
      named.setdefault(match[1], []).append(path)
    else:
      skipped.append(Skip(path, f"--pair-id finds no id in {stem!r}."))
  twice = [
    f"{quoted(name)} ({', '.join(map(shown, group))})"
    for name, group in named.items()
    if len(group) > 1
  ]
  if twice:
    raise ArchiveError(
      f"sensor {key!r}: {len(twice)} ids have several images: {'; '.join(twice[:10])}"
      f"{'; ...' if len(twice) > 10 else '.'} Remove copies, or let --pair-id tell them apart."
    )
  return {name: group[0] for name, group in named.items()}


def _match(named: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
  """Pair id -> sensor key -> path, sorted by id."""
  ids = sorted({pair_id for by_id in named.values() for pair_id in by_id})
  return {
    pair_id: {key: by_id[pair_id] for key, by_id in named.items() if pair_id in by_id}
    for pair_id in ids
  }


def _lacking(pair_id: str, paths: Mapping[str, str], keys: Iterable[str]) -> Skip:
  missing = " or ".join(repr(key) for key in keys if key not in paths)
  return Skip(
    pair_id,
    f"no image of sensor {missing} has the id {quoted(pair_id)}, only "
    f"{', '.join(map(shown, paths.values()))}.",
  )


def _first_ids(named: Mapping[str, Mapping[str, str]]) -> str:
  ids = "; ".join(
    f"{key!r} has {', '.join(map(quoted, sorted(by_id)[:3])) or 'none'}"
    for key, by_id in named.items()
  )
  return f"Sensor {ids}. Give --pair-id, a regular expression with one group around the id."
