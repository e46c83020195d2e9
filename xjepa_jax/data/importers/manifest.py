"""Imports pairs that a table names: one row a pair, one column of paths a sensor.

Columns: `pair_id`; one of image paths for each sensor, named on the command line, an empty cell
meaning that the pair lacks that sensor; and, where there are any, `split`, `labels` (names
separated by ";", or lists in Parquet), `lon`, `lat` (degrees, EPSG:4326) and `<sensor>_acquired`
(ISO 8601). Paths are relative to the table's folder and may not leave it unless that is allowed.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import datetime
import functools
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from xjepa_jax.data.archive import Archive, Entry, Skip
from xjepa_jax.data.grids import align
from xjepa_jax.data.pairs import Observation, Pair
from xjepa_jax.data.raster import SUFFIXES, Raster, centre, read_raster
from xjepa_jax.errors import ImageError, ManifestError
from xjepa_jax.sensor_presets import PRESETS, preset
from xjepa_jax.sensors import Sensor, check_key, sensor_from_json

SUMMARY = "pairs of GeoTIFF, PNG or npy images that a CSV or Parquet table names"
EXAMPLE = (
  "python -m xjepa_jax.data.importers manifest --src pairs.csv --out pairs "
  "--sensor s1=sentinel1_grd --sensor s2=sentinel2_l2a --bands s2=B04,B03,B02"
)

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED = ("pair_id", "split", "labels", "lon", "lat")
_SPLITS = ("train", "validation", "test")
_SPLIT_NAMES = {"val": "validation", "valid": "validation", "dev": "validation"}
_MAX_LINE = 2**22  # bytes of a line, so that a file without line ends is not read whole
_MAX_ROWS = 2**26
_LOOKED_AT = 100  # files of a sensor that are tried for one that shows its dtype and nodata


@dataclasses.dataclass(frozen=True)
class _Source:
  """A row, checked: what `_read_pair` needs of it."""

  paths: tuple[tuple[str, str], ...]
  acquired: tuple[tuple[str, str], ...]
  labels: tuple[str, ...]
  longitude: float
  latitude: float


@dataclasses.dataclass(frozen=True)
class _Reading:
  """What all rows are read with. `found` is the dtype of each sensor's files."""

  root: str
  allow_outside: bool
  sensors: dict[str, Sensor]
  found: dict[str, str]
  nodata_given: tuple[str, ...]
  misaligned: str
  resample: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options that only this importer has."""
  add = functools.partial(parser.add_argument, action="append", default=[])
  add("--sensor", metavar="KEY=PRESET", help=f"column KEY holds a sensor: {', '.join(PRESETS)}")
  add("--bands", metavar="KEY=B04,B03", help="which of its bands the files hold, in their order")
  add("--nodata", metavar="KEY=VALUE", help="the stored value for not seen, nan, or none")
  parser.add_argument("--sensors", metavar="FILE.json", help="KEY -> description, for others")
  parser.add_argument("--name", help="of the data set; from the name of the table if not given")
  parser.add_argument("--split-column", help='column of the splits; "split" if there is one')
  parser.add_argument("--label-separator", default=";", help="between names of labels")
  parser.add_argument(
    "--allow-outside", action="store_true", help="let paths leave the folder of the table"
  )


def open_archive(args: argparse.Namespace) -> Archive:
  """Lists the pairs of the table `args.src`.

  Raises:
    ManifestError: the table cannot be read, or names pairs or files that cannot be used; up to ten
      rows are listed.
    SensorError: a sensor's key, preset, bands or nodata value is wrong.
  """
  columns = _columns(args.src)
  if "pair_id" not in columns:
    hint = " Are its cells separated by commas?" if len(columns) == 1 else ""
    names = ", ".join(columns) or "(none)"
    _refuse(args.src, f"has no column 'pair_id'; its columns are {names}.{hint}")
  sensors = _sensors(args, columns)
  split_column = _split_column(args, columns)
  root = os.path.realpath(os.path.dirname(os.path.abspath(args.src)))
  locate = functools.partial(_locate, root, allow_outside=args.allow_outside, real=_remembering())
  rows = _parse(args, columns, tuple(sensors), split_column, locate)
  skipped = _missing(args.src, root, rows)
  lost = {skip.pair_id for skip in skipped}
  rows = {pair_id: row for pair_id, row in sorted(rows.items()) if pair_id not in lost}
  nodata = _nodata(args, sensors)
  sensors, found, notes = _look(args.src, rows, sensors, nodata, locate)
  if not split_column:
    notes.append(
      f"the table has no splits: train, validation and test hold 80, 10 and 10 % of the pairs by a "
      f"hash of pair_id (seed {args.seed}). If neighbours overlap, add a column split."
    )
  splits: dict[str, list[Entry]] = {name: [] for name in _SPLITS}
  for pair_id, (split, source) in rows.items():
    splits.setdefault(split or _hashed_split(pair_id, args.seed), []).append(
      Entry(pair_id, source)
    )
  extra = sorted(set(splits) - set(_SPLITS))
  reading = _Reading(
    root, args.allow_outside, sensors, found, tuple(nodata), args.misaligned, args.resample
  )
  return Archive(
    name=_name(args),
    sensors=sensors,
    splits={name: splits[name] for name in (*_SPLITS, *extra) if splits[name]},
    read=functools.partial(_read_pair, reading=reading),
    skipped=skipped,
    notes=notes,
  )


# Reading one pair


def _read_pair(entry: Entry, reading: _Reading) -> Pair:
  source: _Source = entry.source
  rasters = {}
  for key, path in source.paths:
    raster = read_raster(_locate(reading.root, path, allow_outside=reading.allow_outside))
    _check_bands(key, reading.sensors[key], raster)
    rasters[key] = _stored(key, raster, reading)
  rasters = align(rasters, reading.sensors, reading.misaligned, reading.resample)
  first = next(iter(rasters.values()))
  place = (source.longitude, source.latitude)
  if math.isnan(place[0]):
    located = [raster for raster in rasters.values() if raster.crs and raster.georeferenced]
    place = centre(located[0]) if located else place
  acquired = dict(source.acquired)
  return Pair(
    pair_id=entry.pair_id,
    observations={
      key: Observation(raster.values, acquired.get(key, "")) for key, raster in rasters.items()
    },
    labels=source.labels,
    longitude=place[0],
    latitude=place[1],
    crs=first.crs,
    transform=first.transform,
  )


def _stored(key: str, raster: Raster, reading: _Reading) -> Raster:
  """The image in the data set's dtype, which has to be that of the first pair's file."""
  sensor, dtype = reading.sensors[key], raster.values.dtype.name
  if dtype != reading.found[key]:
    raise ImageError(
      f"{raster.path}: holds {dtype}, but the first file of sensor {key!r} holds "
      f"{reading.found[key]}. Convert it."
    )
  declared = raster.nodata
  if (
    declared is not None
    and key not in reading.nodata_given
    and _representable(declared, sensor.dtype)
    and not _same(declared, sensor.nodata, sensor.dtype)
  ):
    raise ImageError(
      f"{raster.path}: declares the nodata value {declared:g}, but sensor {key!r} has "
      f"{sensor.nodata}. If all files are to have one, give it: --nodata {key}=VALUE."
    )
  with np.errstate(over="ignore"):  # beyond float32 lie only markers; infinite, they stay unseen
    return dataclasses.replace(raster, values=raster.values.astype(sensor.dtype, copy=False))


def _check_bands(key: str, sensor: Sensor, raster: Raster) -> None:
  expected, shape = len(sensor.bands), raster.values.shape
  if shape[2] == expected:
    return
  hint = f"If it holds other bands, name them in their order: --bands {key}=..."
  if raster.path.lower().endswith(".npy") and shape[0] == expected:
    hint = "It seems to have bands first: save it as (H, W, C), as by np.moveaxis(image, 0, -1)."
  raise ImageError(
    f"{raster.path}: has {shape[2]} bands, expected the {expected} of sensor {key!r} "
    f"({', '.join(sensor.band_names)}). {hint}"
  )


# What the sensors are


def _sensors(args: argparse.Namespace, columns: Sequence[str]) -> dict[str, Sensor]:
  sensors = {key: preset(name) for key, name in _options(args.sensor, "--sensor").items()}
  described = _described(args.sensors) if args.sensors else {}
  twice = sorted(set(sensors) & set(described))
  if twice:
    _refuse(args.src, f"--sensor and --sensors both describe {', '.join(twice)}.")
  sensors |= described
  if not sensors:
    _refuse(
      args.src,
      f"which columns hold which sensor? Columns of files may be {_candidates(args.src, columns)}. "
      f"Give --sensor COLUMN=PRESET for each, with a preset of {', '.join(PRESETS)}, or --sensors.",
    )
  for key in sensors:
    check_key(key)
    if key in _RESERVED or key not in columns:
      _refuse(args.src, f"has no column of files {key!r}; its columns are {', '.join(columns)}.")
  for key, names in _options(args.bands, "--bands", sensors).items():
    sensors[key] = sensors[key].select([name.strip() for name in names.split(",")])
  return sensors


def _described(path: str) -> dict[str, Sensor]:
  try:
    with open(path, encoding="utf-8") as file:
      content = json.load(file)
  except (OSError, ValueError, RecursionError) as error:
    raise ManifestError(f"{path}: cannot be read as JSON ({error}).") from error
  if not isinstance(content, dict) or not content:
    _refuse(path, "expected a mapping of sensor keys to descriptions.")
  return {key: sensor_from_json(value, f"{path}: {key}") for key, value in content.items()}


def _nodata(args: argparse.Namespace, sensors: Mapping[str, Sensor]) -> dict[str, float | None]:
  given: dict[str, float | None] = {}
  for key, text in _options(args.nodata, "--nodata", sensors).items():
    try:
      given[key] = None if text.lower() == "none" else float(text)
    except ValueError:
      raise ManifestError(f"--nodata {key}={text}: expected a number, nan or none.") from None
  return given


def _options(
  given: Sequence[str], option: str, known: Mapping[str, Sensor] | None = None
) -> dict[str, str]:
  """KEY=VALUE of a repeated option."""
  values: dict[str, str] = {}
  for text in given:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
      raise ManifestError(f"{option} {text}: expected KEY=VALUE.")
    if key in values:
      raise ManifestError(f"{option} names {key!r} twice.")
    if known is not None and key not in known:
      raise ManifestError(f"{option} {text}: there is no sensor {key!r}, only {', '.join(known)}.")
    values[key] = value
  return values


def _look(
  src: str,
  rows: Mapping[str, tuple[str, _Source]],
  sensors: Mapping[str, Sensor],
  nodata: Mapping[str, float | None],
  locate: Callable[[str], str],
) -> tuple[dict[str, Sensor], dict[str, str], list[str]]:
  """The sensors as the first usable file of each shows them, those files' dtypes, and notes."""
  fitted: dict[str, Sensor] = {}
  found: dict[str, str] = {}
  notes: list[str] = []
  for key, sensor in sensors.items():
    paths = [path for _, source in rows.values() for name, path in source.paths if name == key]
    raster = _first_usable(src, key, sensor, paths[:_LOOKED_AT], locate)
    found[key] = raster.values.dtype.name
    fitted[key] = _fit(key, sensor, raster, nodata, notes)
  return fitted, found, notes


def _first_usable(
  src: str, key: str, sensor: Sensor, paths: Sequence[str], locate: Callable[[str], str]
) -> Raster:
  reasons = []
  for path in paths:
    try:
      raster = read_raster(locate(path))
      _check_bands(key, sensor, raster)
      return raster
    except ImageError as error:
      reasons.append(str(error))
  if not paths:
    _refuse(src, f"no pair has a file for sensor {key!r}. Leave it out of the import.")
  _refuse(src, f"none of the first {len(paths)} files of sensor {key!r} can be used: {reasons[0]}")


def _fit(
  key: str,
  sensor: Sensor,
  raster: Raster,
  given: Mapping[str, float | None],
  notes: list[str],
) -> Sensor:
  """The sensor with the dtype and the nodata value of its files."""
  found = raster.values.dtype.name
  dtype = "float32" if found == "float64" else found
  if found == "float64":
    notes.append(f"{key}: the files hold float64; values are stored as float32.")
  elif dtype != sensor.dtype:
    notes.append(f"{key}: the files hold {found}, not {sensor.dtype}; values stay {found}.")
  nodata, declared = sensor.nodata, raster.nodata
  if key in given:
    nodata = given[key]
    if declared is not None and not _same(declared, nodata, dtype):
      notes.append(f"{key}: the files declare nodata {declared:g}; {nodata} is used, as told.")
  elif declared is not None and not _representable(declared, dtype):
    notes.append(f"{key}: the files declare nodata {declared:g}, which is no {dtype}; ignored.")
  elif declared is not None and not _same(declared, nodata, dtype):
    notes.append(f"{key}: the files declare nodata {declared:g}, not {nodata}; theirs is used.")
    nodata = declared
  if key not in given and nodata is not None and not _representable(nodata, dtype):
    notes.append(f"{key}: the sensor's nodata {nodata} is no {dtype}; there is none now.")
    nodata = None
  if nodata is not None and dtype == "float32":
    with np.errstate(over="ignore"):
      nodata = float(np.float32(nodata))  # as it is in the values; -1.8e308 becomes -inf
  return dataclasses.replace(sensor, dtype=dtype, nodata=nodata)


def _representable(value: float, dtype: str) -> bool:
  if dtype.startswith("float"):
    return True
  limits = np.iinfo(dtype)
  return float(value).is_integer() and limits.min <= value <= limits.max


def _same(a: float, b: float | None, dtype: str) -> bool:
  if b is None or not (_representable(a, dtype) and _representable(b, dtype)):
    return False
  with np.errstate(over="ignore"):
    first, second = (np.float64(value).astype(dtype) for value in (a, b))
  return bool(np.array_equal(first, second, equal_nan=True))


# What the rows say


def _parse(
  args: argparse.Namespace,
  columns: Sequence[str],
  keys: Sequence[str],
  split_column: str,
  locate: Callable[[str], str],
) -> dict[str, tuple[str, _Source]]:
  """pair_id -> split and source, in the order of the rows."""
  if not args.label_separator:
    raise ManifestError("--label-separator is empty; give at least one character.")
  acquired = tuple(f"{key}_acquired" for key in keys)
  wanted = {"pair_id", split_column, "labels", "lon", "lat", *keys, *acquired}
  rows: dict[str, tuple[str, _Source]] = {}
  problems: list[str] = []
  for where, row in _rows(args.src, columns, wanted):
    try:
      pair_id = _text(row, "pair_id")
      if not pair_id:
        raise ValueError("column 'pair_id' is empty")
      if pair_id in rows:
        raise ValueError(f"pair_id {pair_id!r} occurred before")
      rows[pair_id] = (
        _split(_text(row, split_column), split_column) if split_column else "",
        _source(row, keys, args.label_separator, locate),
      )
    except ValueError as problem:  # ManifestError of `locate` included
      problems.append(f"{where}: {problem}")
  if problems:
    _refuse(
      args.src,
      f"{len(problems)} rows cannot be used: {'; '.join(problems[:10])}"
      f"{'; ...' if len(problems) > 10 else '.'}",
    )
  if not rows:
    _refuse(args.src, "has no rows.")
  return rows


def _source(
  row: Mapping[str, Any], keys: Sequence[str], separator: str, locate: Callable[[str], str]
) -> _Source:
  paths = tuple((key, _text(row, key)) for key in keys if _text(row, key))
  for _, path in paths:
    locate(path)
  times = tuple((key, _text(row, f"{key}_acquired")) for key in keys)
  for key, time in times:
    try:
      datetime.datetime.fromisoformat(time or "2000-01-01")
    except ValueError:
      raise ValueError(f"column '{key}_acquired': {time!r} is no ISO 8601 time") from None
  longitude, latitude = _degrees(row, "lon", 180), _degrees(row, "lat", 90)
  if math.isnan(longitude) != math.isnan(latitude):
    raise ValueError("only one of the columns 'lon' and 'lat' has a value")
  acquired = tuple((key, time) for key, time in times if time)
  return _Source(paths, acquired, _labels(row, separator), longitude, latitude)


def _text(row: Mapping[str, Any], column: str) -> str:
  value = row.get(column)
  if value is None or (isinstance(value, float) and math.isnan(value)):
    return ""
  if isinstance(value, datetime.date):  # a datetime is one
    return value.isoformat()
  if isinstance(value, bool) or not isinstance(value, str | int | float):
    raise ValueError(f"column {column!r} holds a {type(value).__name__}, expected text")
  return str(value).strip()


def _degrees(row: Mapping[str, Any], column: str, limit: float) -> float:
  text = _text(row, column)
  try:
    value = float(text or "nan")
  except ValueError:
    value = math.inf
  if abs(value) > limit or (text and math.isnan(value)):
    raise ValueError(f"column {column!r}: {text!r} is no number from -{limit} to {limit}")
  return value


def _labels(row: Mapping[str, Any], separator: str) -> tuple[str, ...]:
  value = row.get("labels")
  if not isinstance(value, list):
    text = _text(row, "labels")
    value = text.split(separator) if text else []
  names = tuple(name.strip() if isinstance(name, str) else "" for name in value)
  if "" in names or len(set(names)) != len(names):
    raise ValueError(f"column 'labels': {value!r} has an empty name, or one twice")
  return names


def _split(text: str, column: str) -> str:
  name = _SPLIT_NAMES.get(text.lower(), text.lower())
  if not _NAME.fullmatch(name):
    raise ValueError(f"column {column!r}: {text!r} cannot name a split, as train or test can")
  return name


def _hashed_split(pair_id: str, seed: int) -> str:
  digit = int.from_bytes(hashlib.sha256(f"{seed}:{pair_id}".encode()).digest()[:8]) % 10
  return _SPLITS[max(digit - 7, 0)]


def _split_column(args: argparse.Namespace, columns: Sequence[str]) -> str:
  if args.split_column and args.split_column not in columns:
    _refuse(
      args.src, f"has no column {args.split_column!r}; its columns are {', '.join(columns)}."
    )
  return args.split_column or ("split" if "split" in columns else "")


def _locate(
  root: str, path: str, allow_outside: bool, real: Callable[[str], str] = os.path.realpath
) -> str:
  """The path of a file that the table names, if the table may name it."""
  if "://" in path or re.match(r"[\\/]+vsi", path) or "\0" in path:
    raise ManifestError(f"{path!r} is no file of this machine; copy it to disk and name it there")
  full = os.path.join(root, path)
  try:
    inside = os.path.join(real(full), "").startswith(os.path.join(root, ""))
  except (OSError, ValueError) as error:
    raise ManifestError(f"{path!r} is no path ({error})") from error
  if not (inside or allow_outside):
    raise ManifestError(
      f"{path!r} leads out of the folder of the table; if it is meant to, add --allow-outside"
    )
  return full


def _remembering() -> Callable[[str], str]:
  """`os.path.realpath` that resolves each folder once: a table names thousands of files in one."""
  folder = functools.lru_cache(maxsize=1024)(os.path.realpath)

  def real(path: str) -> str:
    head, name = os.path.split(path)
    if name in ("", ".", "..") or os.path.islink(path):
      return os.path.realpath(path)
    return os.path.join(folder(head), name)

  return real


def _missing(src: str, root: str, rows: Mapping[str, tuple[str, _Source]]) -> list[Skip]:
  skipped = []
  for pair_id, (_, source) in sorted(rows.items()):
    absent = [path for _, path in source.paths if not os.path.isfile(os.path.join(root, path))]
    if absent:
      skipped.append(Skip(pair_id, f"there is no file {', '.join(absent)}."))
    elif not source.paths:
      skipped.append(Skip(pair_id, "its row names no file for any sensor."))
  if len(skipped) == len(rows):
    _refuse(src, f"no pair has its files. Pair {skipped[0].pair_id!r}: {skipped[0].reason}")
  return skipped


def _name(args: argparse.Namespace) -> str:
  if args.name is None:
    stem = os.path.splitext(os.path.basename(args.src))[0].lower()
    name = re.sub(r"[^a-z0-9]+", "_", stem).strip("_")
    return name if _NAME.fullmatch(name) else f"pairs_{name}".strip("_")
  if not _NAME.fullmatch(args.name):
    raise ManifestError(
      f"--name {args.name!r}: expected a lower-case letter, then letters, digits or underscores."
    )
  return args.name


# Tables


def _columns(src: str) -> list[str]:
  suffix = os.path.splitext(src)[1].lower()
  if suffix not in (".csv", ".parquet"):
    _refuse(src, f"unknown suffix {suffix!r}; expected a table as .csv or .parquet.")
  if not os.path.isfile(src):
    _refuse(src, "there is no such file.")
  if suffix == ".csv":
    columns = [name.strip() for name in next(_csv_rows(src), ("", []))[1]]
  else:
    with _parquet(src) as table:
      columns = list(table.schema_arrow.names)
  twice = sorted({name for name in columns if name and columns.count(name) > 1})
  if twice:
    _refuse(src, f"has more than one column {', '.join(twice)}.")
  return columns


def _rows(
  src: str, columns: Sequence[str], wanted: set[str]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
  """Where a row is and its wanted cells, of a table whose header has been checked."""
  if src.lower().endswith(".parquet"):
    yield from _parquet_rows(src, [name for name in columns if name in wanted])
    return
  rows = _csv_rows(src)
  next(rows)
  for where, cells in rows:
    if len(cells) != len(columns):
      _refuse(src, f"{where} has {len(cells)} cells, expected {len(columns)} as in the first line.")
    yield where, {name: cell for name, cell in zip(columns, cells, strict=True) if name in wanted}


def _csv_rows(src: str) -> Iterator[tuple[str, list[str]]]:
  """Where a row is, and its cells, the header first (RFC 4180, UTF-8)."""
  try:
    with open(src, "rb") as file:
      reader = csv.reader(_lines(src, file), strict=True, skipinitialspace=True)
      for cells in reader:
        if cells:  # an empty line is no row
          yield f"line {reader.line_num}", cells
  except csv.Error as error:
    raise ManifestError(f"{src}: line {reader.line_num} is malformed ({error}).") from error
  except OSError as error:
    raise ManifestError(f"{src}: cannot be read ({error}).") from error


def _lines(src: str, file: Any) -> Iterator[str]:
  for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE), b""), 1):
    if len(line) == _MAX_LINE:
      _refuse(src, f"line {number} is longer than {_MAX_LINE} bytes.")
    if number > _MAX_ROWS:
      _refuse(src, f"has more than {_MAX_ROWS} lines; cut it into several tables.")
    if b"\0" in line:
      _refuse(src, f"line {number} holds a zero at byte {line.index(0) + 1}; it is no text.")
    try:
      yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
      _refuse(src, f"line {number} is not UTF-8 at byte {error.start + 1} ({error.reason}).")


def _parquet(src: str) -> Any:
  try:
    from pyarrow.parquet import ParquetFile
  except ImportError as error:
    raise ManifestError(f"{src}: needs pyarrow: pip install xjepa_jax[geo]") from error
  try:
    return ParquetFile(src, page_checksum_verification=True)
  except Exception as error:  # pyarrow's own errors, OSError, and more for damaged bytes
    raise ManifestError(f"{src}: cannot be read as Parquet ({error}).") from error


def _parquet_rows(src: str, columns: list[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
  number = 0
  with _parquet(src) as table:
    if table.metadata.num_rows > _MAX_ROWS:
      _refuse(src, f"has more than {_MAX_ROWS} rows; cut it into several tables.")
    batches = table.iter_batches(batch_size=4096, columns=columns)
    while True:
      try:
        rows = next(batches).to_pylist()
      except StopIteration:
        return
      except Exception as error:
        raise ManifestError(f"{src}: damaged after row {number} ({error}).") from error
      for row in rows:
        number += 1
        yield f"row {number}", row


def _candidates(src: str, columns: Sequence[str]) -> str:
  """Columns whose first cell is the name of an image, or all that may be."""
  others = [name for name in columns if name and name not in _RESERVED]
  _, row = next(_rows(src, columns, set(others)), ("", {}))
  files = [name for name in others if str(row.get(name)).lower().endswith(SUFFIXES)]
  return ", ".join(files or others) or "(none)"


def _refuse(src: str, what: str) -> NoReturn:
  raise ManifestError(f"{src}: {what}")
