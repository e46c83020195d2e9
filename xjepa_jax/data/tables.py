"""Reads text tables from untrusted sources, CSV or Parquet: the header, and the rows one by one.

Lines, rows and cells are limited in size, so that a huge file is refused before it is read whole.
"""

from __future__ import annotations

import csv
import datetime
import decimal
import io
import itertools
import math
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from xjepa_jax.data.unicode_names import composed
from xjepa_jax.errors import TableError
from xjepa_jax.paths import StrPath

_MAX_LINE = 2**22  # bytes per line, so that a file without line ends is not read whole
_MAX_ROWS = 2**26
_TOLD = re.compile(r"sep=(.)[\r\n]*")  # first line by which Excel declares the delimiter
OF_SPREADSHEETS = ",;\t"  # delimiters of the CSV files that spreadsheets write


def read_columns(src: StrPath, delimiters: str = ",") -> list[str]:
  """The names of the table's columns.

  Args:
    src: the table.
    delimiters: characters that may separate the cells of a CSV file, see `delimiter_of`.

  Raises:
    TableError: the file is not a readable .csv or .parquet, or two columns share a name.
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
  """Read the table's rows.

  Args:
    src: the table.
    columns: all of its columns, from `read_columns`.
    wanted: columns to return; others are not decoded where the format allows.
    delimiters: as passed to `read_columns`.

  Yields:
    The place of a row ("line 7" of a CSV file, "row 7" of a Parquet file), and its wanted cells.

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
  """A cell as stripped text, "" if it is empty; times are ISO 8601.

  Raises:
    ValueError: the cell holds something that is not text, a number or a time.
  """
  return _text(row.get(column), column)


def cell_id(row: Mapping[str, Any], column: str) -> str:
  """Like `cell_text`, in the Unicode form in which names are compared."""
  return composed(cell_text(row, column))


def cell_names(row: Mapping[str, Any], column: str, separator: str) -> tuple[str, ...]:
  """The names in a cell, such as labels: from a list, or from text split at `separator`.

  Class numbers are names too. Both 3 and 3.0 become "3", because pandas turns the integers of a
  column into floats if another cell is empty.

  Raises:
    ValueError: as in `cell_text`; or a name is empty or occurs twice.
  """
  value = row.get(column)
  if not isinstance(value, list):
    value = value.split(separator) if isinstance(value, str) and value.strip() else [value]
    value = [each for each in value if _text(each, column) or len(value) > 1]
  whole = [int(each) if isinstance(each, float) and each.is_integer() else each for each in value]
  names = tuple(composed(_text(each, column)) for each in whole)
  if "" in names or len(set(names)) != len(names):
    raise ValueError(f"column {column!r}: {value!r} has an empty name, or one twice")
  return names


def _text(value: Any, column: str) -> str:
  if value is None or (isinstance(value, float) and math.isnan(value)):
    return ""
  if isinstance(value, datetime.date):  # includes datetime
    return value.isoformat()
  if isinstance(value, decimal.Decimal):  # DuckDB's type for a literal such as 13.4
    return format(value, "f")
  if isinstance(value, uuid.UUID):
    return str(value)
  if isinstance(value, bytes):  # Parquet text that was written without the string type
    try:
      return value.decode().strip()
    except UnicodeDecodeError:
      raise ValueError(f"column {column!r} holds a bytes that is no UTF-8, no text") from None
  if isinstance(value, bool) or not isinstance(value, str | int | float):
    raise ValueError(f"column {column!r} holds a {type(value).__name__}, expected text")
  return str(value).strip()


def column_values(src: str, name: str, column: Any, before: int = 0) -> list[Any]:
  """A column's cells as Python objects; times lose their nanoseconds and named time zones.

  Args:
    src: the table, for messages.
    name: name of the column.
    column: the Arrow column.
    before: number of rows before it in the table.

  Raises:
    TableError: Python cannot represent the values.
  """
  import pyarrow as pa
  import pyarrow.compute as pc

  try:
    plain = _plain(column.type)
    if not column.type.equals(plain):
      options = pc.CastOptions(plain, allow_time_truncate=True)
      column = pc.cast(_storage(column), options=options)
  except (pa.ArrowException, ValueError, OverflowError) as error:
    raise TableError(
      f"{src}: column {name!r} of {column.type} cannot be taken ({error}). Write it as text, "
      "numbers or times."
    ) from error
  try:
    values = list(column.to_pylist())
    if pa.types.is_map(column.type):  # Arrow returns a map as a list of pairs
      values = [None if value is None else dict(value) for value in values]
    return values
  except (ValueError, OverflowError, KeyError):
    for place, value in enumerate(column, before + 1):  # find the cell, such as a year after 9999
      try:
        value.as_py()
      except (ValueError, OverflowError, KeyError) as error:
        _refuse(src, f"row {place}: column {name!r} holds what is no {column.type} here ({error}).")
    raise


def read_cells(src: str, delimiters: str = ",") -> Iterator[tuple[str, list[str]]]:
  """Read the rows of a CSV file (RFC 4180, UTF-8), including the first, which may be a header.

  Args:
    src: the file.
    delimiters: characters that may separate cells, see `delimiter_of`.

  Yields:
    The place of a row, "line 7", and its cells. Empty lines are skipped.

  Raises:
    TableError: the file cannot be read, or is malformed.
  """
  try:
    with open(src, "rb") as file:
      lines = _lines(src, file)
      first, delimiter, above = next(lines, ""), "", 0
      if (told := _TOLD.fullmatch(first)) and told[1] in delimiters:
        first, delimiter, above = next(lines, ""), told[1], 1
      reader = csv.reader(
        itertools.chain([first], lines),
        delimiter=delimiter or delimiter_of(first, delimiters),
        strict=True,
        skipinitialspace=True,
      )
      for cells in reader:
        if cells:  # skip empty lines
          yield f"line {reader.line_num + above}", cells
  except csv.Error as error:
    raise TableError(f"{src}: line {reader.line_num + above} is malformed ({error}).") from error
  except OSError as error:
    raise TableError(f"{src}: cannot be read ({error}).") from error


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
  """Rows as the text of a CSV file."""
  # Before Python 3.13, csv quotes a cell with a line end only if its own line terminator contains
  # that character. So it writes "\r\n" here, which is replaced by "\n".
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
  """The first of `delimiters` that occurs in a CSV file's first line; the very first if none does.

  Spreadsheets write ";" where numbers have decimal commas. A caller whose cells are lists joined by
  ";" leaves it out of `delimiters`.
  """
  return next((each for each in delimiters if each in header), delimiters[0])


def commas_hint(columns: Sequence[str]) -> str:
  """A hint for the end of an error message if a CSV file seems to have a single column."""
  return " Are its cells separated by commas?" if len(columns) == 1 else ""


def _lines(src: str, file: Any) -> Iterator[str]:
  for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE), b""), 1):
    if len(line) == _MAX_LINE:
      _refuse(src, f"line {number} is longer than {_MAX_LINE} bytes.")
    if number > _MAX_ROWS:
      _refuse(src, f"has more than {_MAX_ROWS} lines; cut it into several tables.")
    if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
      _refuse(src, f"is in UTF-16. {_as_utf8(src, 'UTF-16')}")
    if b"\0" in line:
      _refuse(src, f"line {number} holds a zero at byte {line.index(0) + 1}; it is no text.")
    try:
      yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
      _refuse(
        src,
        f"line {number} is not UTF-8 at byte {error.start + 1} ({error.reason}). If it is Latin-1, "
        f"as spreadsheets save it: {_as_utf8(src, 'LATIN1')}",
      )


def _as_utf8(src: str, encoding: str) -> str:
  stem, suffix = os.path.splitext(src)
  return f"Save it as UTF-8: iconv -f {encoding} -t UTF-8 {src} > {stem}_utf8{suffix}"


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
        batch = next(batches)
      except StopIteration:
        return
      except Exception as error:
        raise TableError(f"{src}: damaged after row {number} ({error}).") from error
      found = {name: column_values(src, name, batch.column(name), number) for name in columns}
      for place in range(len(batch)):
        number += 1
        yield f"row {number}", {name: values[place] for name, values in found.items()}


def _storage(column: Any) -> Any:
  """The column in its storage type, without an extension type."""
  import pyarrow as pa

  return column.storage if isinstance(column.type, pa.BaseExtensionType) else column


def _plain(kind: Any) -> Any:
  """The type to which values of a type are cast: itself if Python can represent its values."""
  import pyarrow as pa

  types = pa.types
  if isinstance(kind, pa.BaseExtensionType):
    return kind if kind.extension_name == "arrow.uuid" else _plain(kind.storage_type)
  if types.is_dictionary(kind):
    return _plain(kind.value_type)
  if types.is_timestamp(kind):
    return pa.timestamp("us", tz="UTC" if kind.tz else None)
  if types.is_time64(kind):
    return pa.time64("us")
  if types.is_duration(kind):
    return pa.duration("us")
  if types.is_struct(kind):
    return pa.struct(
      [kind.field(i).with_type(_plain(kind.field(i).type)) for i in range(len(kind))]
    )
  if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
    return pa.list_(_plain(kind.value_type))
  return kind


def _refuse(src: str, what: str) -> NoReturn:
  raise TableError(f"{src}: {what}")
