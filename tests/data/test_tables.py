"""A table says the same whoever wrote it: pandas, GeoPandas, DuckDB, Arrow or a text editor."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xjepa_jax.data.tables import cell_id, cell_names, cell_text, read_columns, read_rows
from xjepa_jax.errors import TableError


def rows(path: Path) -> list[dict[str, Any]]:
  columns = read_columns(str(path))
  return [dict(row) for _, row in read_rows(str(path), columns, set(columns))]


def arrow(path: Path, **columns: pa.Array) -> Path:
  pq.write_table(pa.table(columns), path)
  return path


NOON = datetime.datetime(2017, 6, 13, 12, 0, 0)
TEXTS: dict[str, tuple[pa.Array, str]] = {
  "text": (pa.array(["b"]), "b"),
  "large text": (pa.array(["b"], pa.large_string()), "b"),
  "text view": (pa.array(["b"], pa.string_view()), "b"),
  "bytes of text": (pa.array(["Düne".encode()]), "Düne"),
  "category": (pa.array(["b"]).dictionary_encode(), "b"),
  "large category": (pa.array(["b"], pa.large_string()).dictionary_encode(), "b"),
  "category of times": (pa.array([NOON]).dictionary_encode(), "2017-06-13T12:00:00"),
  "nothing": (pa.nulls(1), ""),
  "integer": (pa.array([7], pa.uint8()), "7"),
  "real": (pa.array([13.25]), "13.25"),
  "half": (pa.array([13.25], pa.float16()), "13.25"),
  "decimal": (pa.array([decimal.Decimal("13.40")]), "13.40"),
  "large decimal": (pa.array([decimal.Decimal("-7")], pa.decimal256(40, 3)), "-7.000"),
  "date": (pa.array([NOON.date()]), "2017-06-13"),
  "date of 64 bits": (pa.array([NOON.date()], pa.date64()), "2017-06-13"),
  "seconds": (pa.array([NOON], pa.timestamp("s")), "2017-06-13T12:00:00"),
  "nanoseconds": (pa.array([1497355200000000001], pa.timestamp("ns")), "2017-06-13T12:00:00"),
  "zone": (pa.array([NOON], pa.timestamp("ms", "Europe/Berlin")), "2017-06-13T12:00:00+00:00"),
  "offset": (pa.array([NOON], pa.timestamp("ns", "+02:00")), "2017-06-13T12:00:00+00:00"),
  "unknown zone": (pa.array([NOON], pa.timestamp("us", "Mars/Base")), "2017-06-13T12:00:00+00:00"),
  "identifier": (
    pa.array([uuid.UUID(int=5).bytes], pa.uuid()),
    "00000000-0000-0000-0000-000000000005",
  ),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_a_cell_of_any_type_is_its_text(kind: str, tmp_path: Path) -> None:
  cells, expected = TEXTS[kind]
  (row,) = rows(arrow(tmp_path / "t.parquet", cell=cells))
  assert cell_text(row, "cell") == expected


NAMES: dict[str, tuple[pa.Array, tuple[str, ...]]] = {
  "text": (pa.array(["water; ice"]), ("water", "ice")),
  "list": (pa.array([["water", "ice"]]), ("water", "ice")),
  "large list": (pa.array([["water"]], pa.large_list(pa.large_string())), ("water",)),
  "list of fixed size": (pa.array([["water", "ice"]], pa.list_(pa.string(), 2)), ("water", "ice")),
  "list of categories": (
    pa.array([["water", "ice"]], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
    ("water", "ice"),
  ),
  "a class": (pa.array([3], pa.int8()), ("3",)),
  "class 0": (pa.array([0]), ("0",)),
  "a class among empty cells": (pa.array([3.0]), ("3",)),
  "classes": (pa.array([[3, 0]], pa.list_(pa.uint8())), ("3", "0")),
  "classes as reals": (pa.array([[3.0, 0.5]]), ("3", "0.5")),
  "empty list": (pa.array([[]], pa.list_(pa.string())), ()),
  "no list": (pa.array([None], pa.list_(pa.string())), ()),
  "nothing": (pa.nulls(1), ()),
  "not a number": (pa.array([float("nan")]), ()),
}


@pytest.mark.parametrize("kind", NAMES)
def test_labels_of_any_type_are_names(kind: str, tmp_path: Path) -> None:
  cells, expected = NAMES[kind]
  (row,) = rows(arrow(tmp_path / "t.parquet", labels=cells))
  assert cell_names(row, "labels", ";") == expected


@pytest.mark.parametrize("value", [["a", None], ["a", "a"], ["a", ""], [[1]], [True], [{"a": 1}]])
def test_labels_that_are_no_names_are_refused_by_column(value: Any) -> None:
  with pytest.raises(ValueError, match="column 'labels'"):
    cell_names({"labels": value}, "labels", ";")


def test_one_accented_letter_is_one_name_in_either_spelling() -> None:
  row = {"id": "Du\u0308ne", "labels": ["Wa\u0308lder"]}
  assert cell_id(row, "id") == "D\xfcne"
  assert cell_names(row, "labels", ";") == ("W\xe4lder",)
  with pytest.raises(ValueError, match="one twice"):
    cell_names({"labels": ["W\xe4lder", "Wa\u0308lder"]}, "labels", ";")


def test_a_time_beyond_the_calendar_names_row_and_column(tmp_path: Path) -> None:
  forever = pa.array([0, 2**63 - 1], pa.timestamp("us"))
  with pytest.raises(TableError, match=r"t.parquet: row 2: column 'until' holds what is no time"):
    rows(arrow(tmp_path / "t.parquet", until=forever))


def expected_row(row: dict[str, Any]) -> None:
  assert cell_text(row, "pair_id") == "a"
  assert float(cell_text(row, "lon")) == 13.4
  time = datetime.datetime.fromisoformat(cell_text(row, "s1_acquired"))
  assert time.replace(tzinfo=None) == datetime.datetime(2017, 6, 13, 12, 0, 0, 123456)
  assert cell_names(row, "labels", ";") == ("3", "5")
  assert cell_text(row, "split") == "train"
  assert cell_text(row, "s2_acquired") == ""


def by_pandas(path: Path) -> None:
  pandas = pytest.importorskip("pandas")
  pandas.DataFrame(
    {
      "pair_id": pandas.array(["a"], dtype="string"),
      "lon": [13.4],
      "s1_acquired": pandas.to_datetime(["2017-06-13T12:00:00.123456789"]),
      "labels": [[3, 5]],
      "split": pandas.Categorical(["train"]),
      "s2_acquired": [pandas.NaT],
    },
    index=["first"],
  ).to_parquet(path)


def by_geopandas(path: Path) -> None:
  geopandas = pytest.importorskip("geopandas")
  shapely = pytest.importorskip("shapely")
  by_pandas(path)
  pandas = pytest.importorskip("pandas")
  frame = pandas.read_parquet(path)
  frame["s1_acquired"] = frame["s1_acquired"].dt.tz_localize("UTC")
  place = [shapely.Point(13.4, 52.1)]
  geopandas.GeoDataFrame(frame, geometry=place, crs=4326).to_parquet(path)


def by_duckdb(path: Path) -> None:
  duckdb = pytest.importorskip("duckdb")
  duckdb.sql(
    "copy (select 'a'::blob as pair_id, 13.4 as lon, "
    "timestamp_ns '2017-06-13 12:00:00.123456789' as s1_acquired, [3::utinyint, 5] as labels, "
    "'train'::enum('test', 'train') as split, null as s2_acquired, map {'k': 1} as more, "
    f"{{'a': 1}} as most) to '{path}' (format parquet)"
  )


@pytest.mark.parametrize("write", [by_pandas, by_geopandas, by_duckdb])
def test_a_table_of_another_program_says_what_was_written(
  write: Callable[[Path], None], tmp_path: Path
) -> None:
  write(tmp_path / "t.parquet")
  (row,) = rows(tmp_path / "t.parquet")
  expected_row(row)


def test_damage_is_still_told_apart_from_types(tmp_path: Path) -> None:
  path = arrow(tmp_path / "t.parquet", pair_id=pa.array([f"p{i}" for i in range(9999)]))
  content = bytearray(path.read_bytes())
  content[2000:2100] = bytes(100)
  path.write_bytes(content)
  with pytest.raises(TableError, match="damaged after row|cannot be read as Parquet"):
    rows(path)
