"""Reads vectors that other models wrote: Parquet, or CSV with an id and numeric columns.

Files are read with Arrow, which executes nothing from them. Page checksums are verified if there
are any.
"""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from xjepa_jax.data.tables import (
  OF_SPREADSHEETS,
  cell_names,
  cell_text,
  column_values,
  delimiter_of,
)
from xjepa_jax.errors import TableError
from xjepa_jax.paths import StrPath
from xjepa_jax.retrieval.scene_vectors import VectorRows

_LISTS = ("embedding", "vector", "embeddings", "features")
_BLOCK = 1 << 24  # bytes; maximum length of a CSV line


@dataclasses.dataclass(frozen=True)
class Columns:
  """Names of a file's columns.

  Attributes:
    id: column of scene ids; views of one scene by several sensors share an id.
    sensor: column of sensors, or "" if there is none.
    vector: a column of lists, or a pattern such as "f*" for numeric columns. "" detects it: a
      column of lists named embedding or vector, otherwise all remaining columns if their names
      differ only by numbers or are single letters.
    labels: column of lists, or of text separated by semicolons.
    split: column of splits.
  """

  id: str = "id"
  sensor: str = "sensor"
  vector: str = ""
  labels: str = "labels"
  split: str = "split"


def read_vectors(path: StrPath, columns: Columns = Columns(), sensor: str = "") -> VectorRows:
  """Reads a file of vectors.

  Args:
    path: a path that ends in .parquet or .csv.
    columns: names of the columns.
    sensor: sensor of all rows, for a file without such a column.

  Raises:
    TableError: the file cannot be read, a column is missing, it is not clear which columns are the
      vector, or a vector has a number that is not finite or only zeros.
  """
  path = os.fspath(path)
  table = _table(path, columns)
  names = table.column_names
  if columns.id not in names:
    _refuse(path, f"has no column {columns.id!r} (--id-column); it has {_some(names)}.")
  if not sensor and columns.sensor not in names:
    _refuse(
      path, f"has no column {columns.sensor!r} (--sensor-column); name its sensor as SENSOR:{path}."
    )
  count = len(table)
  if not count:
    _refuse(path, f"has a header ({_some(names)}) and no rows.")
  vectors, taken, vector_columns = _vectors(path, table, columns)
  if not np.isfinite(vectors).all():
    row = int(np.argmin(np.isfinite(vectors).all(axis=1)))
    _refuse(path, f"the vector of row {row + 1} is not of finite numbers.")
  if not vectors.any(axis=1).all():
    row = int(np.argmin(vectors.any(axis=1)))
    _refuse(
      path,
      f"the vector of row {row + 1} (id {table.column(columns.id)[row].as_py()!r}) is all zeros, "
      "which is like nothing. Leave such rows out.",
    )
  return VectorRows(
    ids=_texts(path, table, columns.id),
    sensors=[sensor] * count if sensor else _texts(path, table, columns.sensor),
    splits=_texts(path, table, columns.split) if columns.split in names else [""] * count,
    labels=_labels(path, table, columns.labels) if columns.labels in names else [()] * count,
    vectors=vectors,
    taken=taken,
    columns=vector_columns,
  )


def _table(path: str, columns: Columns) -> Any:
  import pyarrow as pa
  from pyarrow import csv, parquet

  suffix = os.path.splitext(path)[1].lower()
  if suffix not in (".csv", ".parquet"):
    _refuse(path, f"unknown suffix {suffix!r}; expected vectors as .csv or .parquet.")
  if not os.path.isfile(path):
    _refuse(path, "there is no such file.")
  # Ids that look like numbers stay text.
  texts = {name: pa.string() for name in (columns.id, columns.sensor, columns.split)}
  try:
    if suffix == ".parquet":
      return parquet.read_table(path, page_checksum_verification=True)
    with open(path, "rb") as file:
      header = file.readline(_BLOCK).decode(errors="replace")
    return csv.read_csv(
      path,
      parse_options=csv.ParseOptions(delimiter=delimiter_of(header, OF_SPREADSHEETS)),
      read_options=csv.ReadOptions(block_size=_BLOCK),
      convert_options=csv.ConvertOptions(column_types={**texts, columns.labels: pa.string()}),
    )
  except (pa.ArrowException, OSError, ValueError) as error:
    raise TableError(f"{path}: cannot be read ({str(error).splitlines()[0]}).") from error


def _vectors(path: str, table: Any, columns: Columns) -> tuple[np.ndarray, str, tuple[str, ...]]:
  """(N, K) float32, a description of their columns, and the names of one column per number."""
  import pyarrow.compute as pc

  names = table.column_names
  lists = [
    name
    for name in ([columns.vector] if columns.vector else _LISTS)
    if name in names and _is_list(table.schema.field(name).type)
  ]
  if lists:
    column = table.column(lists[0])
    flat = pc.list_flatten(column)
    count = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(count) != 1 or count == [None]:
      _refuse(path, f"the vectors of column {lists[0]!r} are not all of one size: {_some(count)}.")
    return _numbers(path, flat, lists[0]).reshape(len(table), -1), f"column {lists[0]}", ()
  others = {columns.id, columns.sensor, columns.labels, columns.split}
  pattern = columns.vector or "*"
  chosen = [name for name in names if name not in others and fnmatch.fnmatchcase(name, pattern)]
  if not chosen:
    _refuse(path, f"has no column of vectors (--vector {pattern!r}); it has {_some(names)}.")
  if "" in chosen:
    _refuse(
      path,
      "has a column without a name, as pandas writes its index. Write the file without it "
      f"(to_csv(..., index=False)), or name the vector's columns: --vector {_suggested(chosen)!r}.",
    )
  vectors = np.stack([_numbers(path, table.column(name), name) for name in chosen], axis=1)
  if not columns.vector and {name.lower() for name in chosen} <= {"x", "y", "z"}:
    _refuse(
      path,
      f"are its only numbers, {_some(chosen)}, a vector? They read as coordinates. If they are "
      f"one, name them: --vector '[{''.join(chosen)}]'.",
    )
  if not columns.vector and len({_family(name) for name in chosen}) > 1:
    _refuse(
      path,
      f"which columns are the vector? {_some(chosen)} differ by more than numbers. Name them: "
      f"--vector {_suggested(chosen)!r}.",
    )
  return vectors, f"columns {_some(chosen)}", tuple(chosen)


def _family(name: str) -> str:
  """What a vector's column names have in common: all but numbers, or being a single letter."""
  return "?" if re.fullmatch("[A-Za-z]", name) else re.sub("[0-9]+", "0", name)


def _suggested(names: Sequence[str]) -> str:
  """A pattern that matches the largest family of columns."""
  families = collections.Counter(map(_family, filter(None, names)))
  family = families.most_common(1)[0][0] if families else "f0"
  return family.replace("0", "[0-9]*")


def _numbers(path: str, values: Any, name: str) -> np.ndarray:
  import pyarrow as pa

  kind = values.type
  if pa.types.is_boolean(kind):
    _refuse(
      path,
      f"column {name!r} holds true and false, not numbers. Leave it out of the file, or write 0 "
      "and 1.",
    )
  if pa.types.is_string(kind) or pa.types.is_large_string(kind):
    text = next((each for each in values.to_pylist() if each), "")
    if re.match(r"\s*[\[(]", text):
      _refuse(
        path,
        f"column {name!r} holds lists as text, such as {text[:24]!r}. Write the table as Parquet "
        "(to_parquet), where lists stay lists, or each number into a column of its own: f0, "
        "f1, and so on.",
      )
    if "," in text and re.fullmatch(r"[+-]?[\d., ]+([eE][+-]?\d+)?", text.strip()):
      _refuse(
        path,
        f"column {name!r} holds numbers with a comma, such as {text!r}. Write them with a decimal "
        "point and no other mark (of pandas, to_csv(..., decimal='.')).",
      )
  if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
    _refuse(
      path,
      f"column {name!r} holds {kind}, not numbers. Name the columns of the vector with --vector, a "
      "pattern such as 'f*'.",
    )
  return np.asarray(values.to_numpy(), np.float32)


def _is_list(kind: Any) -> bool:
  import pyarrow as pa

  return bool(
    pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
  )


def _texts(path: str, table: Any, name: str) -> list[str]:
  return [_of_row(path, row, cell_text, name) for row in _rows(path, table, name)]


def _labels(path: str, table: Any, name: str) -> list[tuple[str, ...]]:
  return [_of_row(path, row, cell_names, name, ";") for row in _rows(path, table, name)]


def _rows(path: str, table: Any, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
  for number, value in enumerate(column_values(path, name, table.column(name)), 1):
    yield number, {name: value}


def _of_row(path: str, row: tuple[int, dict[str, Any]], read: Callable[..., Any], *how: str) -> Any:
  try:
    return read(row[1], *how)
  except ValueError as error:
    raise TableError(f"{path}: row {row[0]}: {error}.") from error


def _some(names: Any) -> str:
  shown = [str(name) or "(no name)" for name in names]
  return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")


def _refuse(path: str, what: str) -> Any:
  raise TableError(f"{path}: {what}")
