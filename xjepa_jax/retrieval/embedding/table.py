"""A table of images: one row per image or pair of images, one column of paths per sensor.

Columns are `id` or `pair_id`; one column of paths for each sensor, where an empty cell means no
image and several paths separated by ";" are one file per band in the order of the encoder's bands;
and optionally `split`, `labels`, `datetime` or `<sensor>_acquired`, and `lon` and `lat`, which have
to agree with the images. `python -m xjepa_jax.data.importers manifest` imports the same table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from xjepa_jax.data.importing.splits import split_name
from xjepa_jax.data.importing.told_places import (
  PLACE_COLUMNS,
  ToldPlace,
  check_places,
  told_degrees,
)
from xjepa_jax.data.tables import (
  cell_id,
  cell_names,
  cell_text,
  commas_hint,
  read_columns,
  read_rows,
)
from xjepa_jax.data.unicode_names import quoted
from xjepa_jax.errors import ArchiveError, OptionError, TableError
from xjepa_jax.retrieval.embedding.images import Named
from xjepa_jax.retrieval.embedding.items import Item
from xjepa_jax.retrieval.embedding.times import instant

_SHOWN = 10  # unusable rows that a message lists
_IDS = ("id", "pair_id")


class Told(NamedTuple):
  """Coordinates that a row states: the row itself ("line 7"), and degrees."""

  where: str
  longitude: float
  latitude: float


def name_rows(
  table: str, keys: Sequence[str], splits: Sequence[str], locate: Callable[[str], str]
) -> tuple[list[Named], dict[str, Told]]:
  """The images that a table lists, and the coordinates that it states by image id.

  Args:
    table: .csv or .parquet.
    keys: keys of the requested sensors.
    splits: splits whose rows are taken; empty for all.
    locate: refuses paths that a table may not name.

  Raises:
    TableError: the table cannot be read, or has unusable rows, some of which are listed.
    OptionError: the table has no column for any of the sensors, or no splits.
  """
  columns = read_columns(table)
  id_column = next((name for name in _IDS if name in columns), "")
  if not id_column:
    raise TableError(
      f"{table}: has no column 'id' or 'pair_id'; it has {', '.join(columns)}."
      f"{commas_hint(columns)}"
    )
  known = [key for key in keys if key in columns]
  if not known:
    raise OptionError(
      f"{table}: has no column of paths {', '.join(keys)}, which are the sensors to be described; "
      f"it has {', '.join(columns)}."
    )
  if splits and "split" not in columns:
    raise OptionError(f"{table}: has no column 'split', so --split takes nothing.")
  wanted = {id_column, "split", "labels", "datetime", *PLACE_COLUMNS}
  wanted |= {*known, *(f"{key}_acquired" for key in known)}
  named: list[Named] = []
  told: dict[str, Told] = {}
  problems: list[str] = []
  seen: set[str] = set()
  for where, row in read_rows(table, columns, wanted):
    try:
      name = cell_id(row, id_column)
      if not name or name in seen:
        raise ValueError(f"column {id_column!r}: {quoted(name)} is empty or occurred before")
      seen.add(name)
      if not splits or split_name(cell_text(row, "split")) in splits:
        named += _images(name, row, known, locate)
        longitude, latitude = told_degrees(row)
        if not math.isnan(longitude):
          told[name] = Told(where, longitude, latitude)
    except ValueError as problem:  # includes the ArchiveError that `locate` raises
      problems.append(f"{where}: {problem}")
  if problems:
    raise TableError(
      f"{table}: {len(problems)} rows cannot be used: {'; '.join(problems[:_SHOWN])}"
      f"{'; ...' if len(problems) > _SHOWN else '.'}"
    )
  if not named:
    raise ArchiveError(f"{table}: names no image{' of ' + ', '.join(splits) if splits else ''}.")
  return named, told


def check_told(table: str, told: Mapping[str, Told], items: Sequence[Item]) -> None:
  """Refuses a table whose coordinates disagree with those of its images.

  Args:
    table: path of the table, for the message.
    told: id -> coordinates that the table states.
    items: the images.

  Raises:
    TableError: see `check_places`.
  """
  places = [
    ToldPlace(
      told[item.id].where, item.id, told[item.id].longitude, told[item.id].latitude, item.source,
      item.crs, item.transform, item.height, item.width,
    )
    for item in {item.id: item for item in reversed(items)}.values()  # one image per row
    if item.id in told
  ]  # fmt: skip
  check_places(table, places)


def _images(
  name: str, row: Mapping[str, Any], keys: Sequence[str], locate: Callable[[str], str]
) -> list[Named]:
  labels = cell_names(row, "labels", ";")
  found = []
  for key in keys:
    paths = tuple(path.strip() for path in cell_text(row, key).split(";") if path.strip())
    if not paths:
      continue
    for path in paths:
      locate(path)
    time = cell_text(row, f"{key}_acquired") or cell_text(row, "datetime")
    if time and instant(time) is None:
      raise ValueError(f"{time!r} is no ISO 8601 time")
    found.append(Named(name, key, paths, time=time, labels=labels))
  return found
