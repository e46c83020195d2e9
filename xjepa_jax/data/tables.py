"""A table of text, CSV or Parquet, that nobody vouches for: its header, and its rows one by one.

Lines, rows and cells are limited in size, so that no file is read whole before it is refused.
"""

from __future__ import annotations

import csv
import datetime
import io
import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from xjepa_jax.errors import TableError
from xjepa_jax.paths import StrPath

_MAX_LINE = 2**22  # bytes of a line, so that a file without line ends is not read whole
_MAX_ROWS = 2**26
OF_SPREADSHEETS = ",;\t"  # what parts cells in the CSV files that these write


def read_columns(src: StrPath, delimiters: str = ",") -> list[str]:
  """The names of the table's columns.

  Args:
    src: the table.
    delimiters: that may part the cells of a CSV, see `delimiter_of`.

  Raises:
    TableError: the file is no .csv or .parquet that can be read, or two columns share a name.
  """
  src = os.fspath(src)
  suffix = os.path.splitext(src)[1].lower()
  if suffix not in (".csv", ".parquet"):
    _refuse(src, f"unknown suffix {suffix!r}; expected a table as .csv or .parquet.")
  if not os.path.isfile(src):
    _refuse(src, "there is no such file.")
  if suffix == ".csv":
    columns = [name.strip() for name in next(read_cells(src, delimiters), ("", []))[1]]
  else:
    with _parquet(src) as table:
      columns = list(table.schema_arrow.names)
  twice = sorted({name for name in columns if name and columns.count(name) > 1})
  if twice:
    _refuse(src, f"has more than one column {', '.join(twice)}.")
  return columns


def read_rows(
  src: StrPath, columns: Sequence[str], wanted: set[str], delimiters: str = ","
) -> Iterator[tuple[str, Mapping[str, Any]]]:
  """Reads the table's rows.

  Args:
    src: the table.
    columns: all of its columns, from `read_columns`.
    wanted: those that are of interest; others are not decoded where the format allows.
    delimiters: as `read_columns` was given them.

  Yields:
    Where a row is ("line 7" of a CSV, "row 7" of a Parquet file), and its wanted cells.

  Raises:
    TableError: the table is damaged, or a row has more or fewer cells than there are columns.
  """
  src = os.fspath(src)
  if src.lower().endswith(".parquet"):
    yield from _parquet_rows(src, [name for name in columns if name in wanted])
    return
  rows = read_cells(src, delimiters)
  next(rows, None)
  for where, cells in rows:
    if len(cells) != len(columns):
      _refuse(src, f"{where} has {len(cells)} cells, expected {len(columns)} as in the first line.")
    yield where, {name: cell for name, cell in zip(columns, cells, strict=True) if name in wanted}


def cell_text(row: Mapping[str, Any], column: str) -> str:
  """A cell as text without spaces around it, "" if there is none; times are ISO 8601.

  Raises:
    ValueError: the cell holds something that is no text, number or time.
  """
  value = row.get(column)
  if value is None or (isinstance(value, float) and math.isnan(value)):
    return ""
  if isinstance(value, datetime.date):  # a datetime is one
    return value.isoformat()
  if isinstance(value, bool) or not isinstance(value, str | int | float):
    raise ValueError(f"column {column!r} holds a {type(value).__name__}, expected text")
  return str(value).strip()


def read_cells(src: str, delimiters: str = ",") -> Iterator[tuple[str, list[str]]]:
  """Reads the rows of a CSV file (RFC 4180, UTF-8), the first one, which may be a header, included.

  Args:
    src: the file.
    delimiters: that may part cells, see `delimiter_of`.

  Yields:
    Where a row is, "line 7", and its cells. Lines without any are left out.

  Raises:
    TableError: the file cannot be read, or is malformed.
  """
  try:
    with open(src, "rb") as file:
      lines = _lines(src, file)
      first = next(lines, "")
      reader = csv.reader(
        itertools.chain([first], lines),
        delimiter=delimiter_of(first, delimiters),
        strict=True,
        skipinitialspace=True,
      )
      for cells in reader:
        if cells:  # an empty line is no row
          yield f"line {reader.line_num}", cells
  except csv.Error as error:
    raise TableError(f"{src}: line {reader.line_num} is malformed ({error}).") from error
  except OSError as error:
    raise TableError(f"{src}: cannot be read ({error}).") from error


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
  """Rows as the text of a CSV file."""
  # Before Python 3.13 csv quotes a cell only for the line ends that it writes itself.
  line = io.StringIO()
  writer = csv.writer(line, lineterminator="\r\n")
  found = []
  for row in rows:
    writer.writerow(row)
    found.append(line.getvalue().removesuffix("\r\n") + "\n")
    line.seek(0)
    line.truncate()
  return "".join(found)


def delimiter_of(header: str, delimiters: str) -> str:
  """The first of some delimiters that a CSV's first line has; the very first if it has none.

  Spreadsheets write ; where numbers have commas. Where cells are lists parted by ; it is no choice.
  """
  return next((each for each in delimiters if each in header), delimiters[0])


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
    raise TableError(f"{src}: needs pyarrow: pip install xjepa_jax[geo]") from error
  try:
    return ParquetFile(src, page_checksum_verification=True)
  except Exception as error:  # pyarrow's own errors, OSError, and more for damaged bytes
    raise TableError(f"{src}: cannot be read as Parquet ({error}).") from error


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
        raise TableError(f"{src}: damaged after row {number} ({error}).") from error
      for row in rows:
        number += 1
        yield f"row {number}", row


def _refuse(src: str, what: str) -> NoReturn:
  raise TableError(f"{src}: {what}")
