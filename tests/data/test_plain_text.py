"""Pairs whose ids nobody vouches for: `skipped.csv` has a row each, and no formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xjepa_jax.data import writer
from xjepa_jax.data.archive import Skip
from xjepa_jax.data.tables import csv_text
from xjepa_jax.retrieval.embedding import run
from xjepa_jax.retrieval.embedding.items import LeftOut

IDS = ["=cmd|' /C calc'!A0", "@a", "+1", "-1", "a\nb", "a\rb", 'a "b", c', "plain"]


@pytest.mark.parametrize(
  "written",
  [
    lambda ids: writer._skipped_csv([Skip(each, "is damaged") for each in ids]),
    lambda ids: run._skipped_csv([LeftOut(each, "radar", "a.tif", "is damaged") for each in ids]),
  ],
  ids=["import", "embed"],
)
def test_what_was_skipped_is_a_row_each_and_no_formula(
  written: Callable[[list[str]], bytes],
) -> None:
  _, *rows = csv.reader(io.StringIO(written(IDS).decode(), newline=""))
  assert [row[0].removeprefix("'") for row in rows] == IDS
  assert not any(row[0][0] in "=+-@" for row in rows)


@given(st.lists(st.lists(st.text(), min_size=1, max_size=3), max_size=5))
def test_rows_are_read_as_they_were_written(rows: list[list[str]]) -> None:
  assert list(csv.reader(io.StringIO(csv_text(rows), newline=""))) == rows
