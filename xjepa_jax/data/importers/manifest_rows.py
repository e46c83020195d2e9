"""The rows of a manifest, checked cell by cell: ids, splits, paths, labels, coordinates, times."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from xjepa_jax.data.archive import Skip
from xjepa_jax.data.band_stack import files_of
from xjepa_jax.data.importing.image_pairs import ImagePair
from xjepa_jax.data.importing.splits import split_name
from xjepa_jax.data.importing.told_places import PLACE_COLUMNS, told_degrees
from xjepa_jax.data.tables import cell_id, cell_names, cell_text
from xjepa_jax.data.unicode_names import quoted, shown
from xjepa_jax.errors import TableError


class Row(NamedTuple):
  """One row: its place in the table ("line 7"), its split ("" if none), and the pair's source."""

  where: str
  split: str
  source: ImagePair


Rows = dict[str, Row]  # by pair_id


def wanted_columns(keys: Sequence[str], split_column: str) -> set[str]:
  """The columns that `check_rows` reads, whether or not the table has them."""
  return {
    "pair_id", split_column, "labels", *PLACE_COLUMNS, *keys, *map(_acquired, keys)
  }  # fmt: skip


def check_rows(
  src: str,
  rows: Iterable[tuple[str, Mapping[str, Any]]],
  keys: Sequence[str],
  split_column: str,
  separator: str,
  locate: Callable[[str], str],
) -> Rows:
  """Extract what an import needs from each row of a table.

  Args:
    src: the table, for messages.
    rows: (place in the table, cells) for each row.
    keys: sensor keys, which name the columns of paths.
    split_column: name of the column of splits, or "".
    separator: separator between names of labels.
    locate: function that raises an error for a path that a table may not name.

  Returns:
    pair_id -> row, in the order of the rows.

  Raises:
    TableError: there are no rows, or some cannot be used; up to ten are listed.
  """
  checked: Rows = {}
  problems: list[str] = []
  for where, row in rows:
    try:
      pair_id = cell_id(row, "pair_id")
      if not pair_id:
        raise ValueError("column 'pair_id' is empty")
      if pair_id in checked:
        raise ValueError(f"pair_id {quoted(pair_id)} occurred before")
      checked[pair_id] = Row(
        where,
        _split(cell_text(row, split_column), split_column) if split_column else "",
        _source(row, keys, separator, locate),
      )
    except ValueError as problem:  # includes the ArchiveError from `locate`
      problems.append(f"{where}: {problem}")
  if problems:
    raise TableError(
      f"{src}: {len(problems)} rows cannot be used: {'; '.join(problems[:10])}"
      f"{'; ...' if len(problems) > 10 else '.'}"
    )
  if not checked:
    raise TableError(f"{src}: has no rows.")
  return checked


def without_files(src: str, rows: Rows, locate: Callable[[str], str]) -> list[Skip]:
  """The pairs whose row names no file, or a file that is missing.

  Args:
    src: the table, for messages.
    rows: rows of the table.
    locate: turns a path into one that can be opened.

  Raises:
    TableError: no pair has its files.
  """
  skipped = []
  for pair_id, (_, _, source) in sorted(rows.items()):
    files = [file for _, path in source.paths for file in files_of(path)]
    absent = [shown(file) for file in files if not os.path.isfile(locate(file))]
    if absent:
      skipped.append(Skip(pair_id, f"there is no file {', '.join(absent)}."))
    elif not source.paths:
      skipped.append(Skip(pair_id, "its row names no file for any sensor."))
  if len(skipped) == len(rows):
    raise TableError(
      f"{src}: no pair has its files. Pair {skipped[0].pair_id!r}: {skipped[0].reason}"
    )
  return skipped


def _source(
  row: Mapping[str, Any], keys: Sequence[str], separator: str, locate: Callable[[str], str]
) -> ImagePair:
  paths = tuple((key, cell_text(row, key)) for key in keys if cell_text(row, key))
  for _, path in paths:
    for file in files_of(path):
      locate(file)
  times = tuple((key, cell_text(row, _acquired(key))) for key in keys)
  for key, time in times:
    try:
      datetime.datetime.fromisoformat(time or "2000-01-01")  # an empty cell is valid
    except ValueError:
      raise ValueError(f"column '{_acquired(key)}': {time!r} is no ISO 8601 time") from None
  longitude, latitude = told_degrees(row)
  acquired = tuple((key, time) for key, time in times if time)
  return ImagePair(paths, acquired, cell_names(row, "labels", separator), longitude, latitude)


def _split(text: str, column: str) -> str:
  try:
    return split_name(text)
  except ValueError as error:
    raise ValueError(f"column {column!r}: {error}") from None


def _acquired(key: str) -> str:
  return f"{key}_acquired"
