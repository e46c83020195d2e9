"""Imports the pairs listed in a table: one row per pair, one column of paths per sensor.

Columns: `pair_id`; a column of image paths for each sensor, named on the command line, in which an
empty cell means that the pair lacks the sensor; and optionally `split`, `labels` (names separated
by ";", or lists in Parquet), `lon`, `lat` or `longitude`, `latitude` (degrees, EPSG:4326) or a
GeoParquet `geometry`, which are refused if the image's georeference contradicts them, and
`<sensor>_acquired` (ISO 8601). A cell may name one file per band of the sensor, in their order:
"B02.tif;B03.tif". Paths are relative to the table's folder and may not leave it unless allowed.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
from collections.abc import Iterator, Sequence

from xjepa_jax.data.archive import Archive, Entry
from xjepa_jax.data.importers.manifest_rows import (
  Rows,
  check_rows,
  wanted_columns,
  without_files,
)
from xjepa_jax.data.importing.file_sensors import meet_files
from xjepa_jax.data.importing.headers import Headers, read_headers, without_pixels
from xjepa_jax.data.importing.image_pairs import Reading, pair_sizes, read_pair
from xjepa_jax.data.importing.pairing_report import pairing_report
from xjepa_jax.data.importing.sensor_options import (
  add_sensor_arguments,
  dataset_name,
  key_values,
  named_sensors,
  nodata_values,
  told_bands,
)
from xjepa_jax.data.importing.splits import by_split, hash_note, hashed_split
from xjepa_jax.data.importing.told_places import PLACE_COLUMNS, ToldPlace, check_places
from xjepa_jax.data.raster import SUFFIXES
from xjepa_jax.data.safe_paths import locate, remembering_realpath
from xjepa_jax.data.tables import commas_hint, read_columns, read_rows
from xjepa_jax.errors import OptionError, TableError
from xjepa_jax.sensor_presets import PRESETS
from xjepa_jax.sensors import Sensor

SUMMARY = "pairs of GeoTIFF, JPEG 2000, PNG or npy images that a CSV or Parquet table names"
EXAMPLE = (
  "python -m xjepa_jax.data.importers manifest --src pairs.csv --out pairs "
  "--sensor s1=sentinel1_grd --sensor s2=sentinel2_l2a --bands s2=B04,B03,B02"
)
_RESERVED = ("pair_id", "split", "labels", *sorted(PLACE_COLUMNS))


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Add the options specific to this importer."""
  add_sensor_arguments(parser, "KEY=PRESET", "column KEY holds a sensor")
  parser.add_argument("--split-column", help='column of the splits; "split" if there is one')
  parser.add_argument("--label-separator", default=";", help="between names of labels")
  parser.add_argument(
    "--allow-outside", action="store_true", help="let paths leave the folder of the table"
  )


def open_archive(args: argparse.Namespace) -> Archive:
  """List the pairs of the table `args.src`.

  Raises:
    TableError: the table cannot be read, or has rows that cannot be used, of which up to ten are
      listed.
    ArchiveError: no image of a sensor fits it.
    OptionError: an option is malformed, or names a column that does not exist.
    SensorError: a sensor's key, preset, bands or nodata value is wrong.
  """
  if not args.label_separator:
    raise OptionError("--label-separator is empty; give at least one character.")
  columns = _columns(args.src)
  sensors = _sensors(args, columns)
  split_column = _split_column(args, columns)
  root = os.path.realpath(os.path.dirname(os.path.abspath(args.src)))
  find = functools.partial(
    locate, root, allow_outside=args.allow_outside, real=remembering_realpath()
  )
  keys = tuple(sensors)
  rows = check_rows(
    args.src,
    read_rows(args.src, columns, wanted_columns(keys, split_column)),
    keys,
    split_column,
    args.label_separator,
    find,
  )
  skipped = without_files(args.src, rows, find)
  lost = {skip.pair_id for skip in skipped}
  # Sorted by id, so that the order of the rows does not change the shards.
  rows = {pair_id: row for pair_id, row in sorted(rows.items()) if pair_id not in lost}
  pairs = {pair_id: dict(row.source.paths) for pair_id, row in rows.items()}
  paths = {key: [each[key] for each in pairs.values() if key in each] for key in keys}
  headers = read_headers((path for each in paths.values() for path in each), find)
  check_places(args.src, list(_told_places(rows, headers)))
  # Sensors adapt to files with the usual dtype and nodata, not to a first one that may be odd.
  usual = {key: headers.usual_first(each) for key, each in paths.items()}
  told = told_bands(args, sensors)
  met = meet_files(args.src, sensors, nodata_values(args, sensors), usual, find, told)
  reading = Reading(
    root,
    args.allow_outside,
    met,
    args.misaligned,
    args.resample,
    args.ungeoreferenced,
    args.any_resolution,
  )
  whole = {pair_id: each for pair_id, each in pairs.items() if len(each) == len(keys)}
  notes = [*pairing_report(paths, whole, headers), *met.notes]
  if not split_column:
    notes.append(f"the table has no splits: {hash_note(args.seed)} add a column split.")
  return Archive(
    name=dataset_name(args.name, os.path.splitext(os.path.basename(args.src))[0]),
    sensors=met.sensors,
    splits=by_split(
      (row.split or hashed_split(pair_id, args.seed), Entry(pair_id, row.source))
      for pair_id, row in rows.items()
    ),
    read=functools.partial(read_pair, reading=reading),
    sizes=functools.partial(pair_sizes, reading=reading, headers=headers),
    skipped=skipped,
    notes=notes,
  )


def _told_places(rows: Rows, headers: Headers) -> Iterator[ToldPlace]:
  """The table's place of each pair, with the grid of its first georeferenced image."""
  for pair_id, row in rows.items():
    source = row.source
    found = (headers.read[path] for _, path in source.paths if path in headers.read)
    first = next((each for each in found if without_pixels(each).georeferenced), None)
    if first and not math.isnan(source.longitude):
      yield ToldPlace(
        row.where, pair_id, source.longitude, source.latitude, first.path, first.crs,
        first.transform, *first.shape,
      )  # fmt: skip


def _columns(src: str) -> list[str]:
  columns = read_columns(src)
  if "pair_id" not in columns:
    names = ", ".join(columns) or "(none)"
    raise TableError(
      f"{src}: has no column 'pair_id'; its columns are {names}.{commas_hint(columns)}"
    )
  return columns


def _sensors(args: argparse.Namespace, columns: Sequence[str]) -> dict[str, Sensor]:
  if not (args.sensor or args.sensors):
    raise OptionError(
      f"{args.src}: which columns hold which sensor? Columns of files may be "
      f"{_candidates(args.src, columns)}. Give --sensor COLUMN=PRESET for each, with a preset of "
      f"{', '.join(PRESETS)}, or --sensors."
    )
  sensors = named_sensors(args, key_values(args.sensor, "--sensor"))
  for key in sensors:
    if key in _RESERVED or key not in columns:
      raise OptionError(
        f"{args.src}: has no column of files {key!r}; its columns are {', '.join(columns)}."
      )
  return sensors


def _candidates(src: str, columns: Sequence[str]) -> str:
  """Columns whose first cell is the name of an image, or else all columns that may be."""
  others = [name for name in columns if name and name not in _RESERVED]
  _, row = next(read_rows(src, columns, set(others)), ("", {}))
  files = [name for name in others if str(row.get(name)).lower().endswith(SUFFIXES)]
  return ", ".join(files or others) or "(none)"


def _split_column(args: argparse.Namespace, columns: Sequence[str]) -> str:
  if args.split_column and args.split_column not in columns:
    raise OptionError(
      f"{args.src}: has no column {args.split_column!r}; its columns are {', '.join(columns)}."
    )
  return args.split_column or ("split" if "split" in columns else "")
