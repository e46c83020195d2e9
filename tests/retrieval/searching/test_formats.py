"""Ids that nobody vouches for: one line each in a table, and no formula in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xjepa_jax.data.plain_text import for_spreadsheet, from_spreadsheet, one_line
from xjepa_jax.retrieval.searching.answers import Answer, Hit, Query
from xjepa_jax.retrieval.searching.formats import as_csv, as_json, as_table

IDS = [
  "=1+1", "+49", "-7.2", "@SUM(A1)", "\t=1", "\r=1", " =1", "'quoted", "a\nb", "\x1b[31mred",
  "plain",
]  # fmt: skip


def answer(*ids: str) -> Answer:
  hits = tuple(
    Hit(
      rank=rank, row=rank, id=each, sensor="radar", score=-0.5, confidence=None, longitude=-7.5,
      latitude=1.0, footprint=None, time=None, source=each, window=None, labels=(each,),
      valid_fraction=1.0,
    )
    for rank, each in enumerate(ids, 1)
  )  # fmt: skip
  return Answer(Query(ids[0], "radar", np.zeros(2, np.float32)), hits, len(ids))


def test_no_cell_of_text_is_a_formula_and_each_can_be_had_back() -> None:
  rows = list(csv.DictReader(io.StringIO(as_csv([answer(*IDS)]), newline="")))
  for name in ("id", "source", "labels"):
    assert not any(row[name].lstrip()[:1] in tuple("=+-@") for row in rows)
    assert [row[name].removeprefix("'") for row in rows] == IDS
  assert rows[0]["query"] == "'=1+1" and rows[-1]["id"] == "plain"
  assert {(row["score"], row["longitude"]) for row in rows} == {("-0.5", "-7.5")}  # numbers stay


@given(st.text())
def test_text_comes_back_from_a_spreadsheet_and_begins_no_formula(text: str) -> None:
  cell = for_spreadsheet(text)
  assert from_spreadsheet(cell) == text
  assert cell.lstrip()[:1] not in tuple("=+-@")


def test_json_has_ids_as_they_are() -> None:
  (found,) = json.loads(as_json([answer(*IDS)]))
  assert [hit["id"] for hit in found["hits"]] == IDS


def test_a_table_has_a_line_a_hit_whatever_is_in_ids() -> None:
  lines = as_table([answer(*IDS)]).split("\n")
  assert len(lines) == 2 + len(IDS)
  assert "a\\nb" in lines[-3] and "\\x1b[31mred" in lines[-2]
  assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
  ("text", "shown"),
  [("a\u2028b", "a\\u2028b"), ("Zürich 東京 ☂", "Zürich 東京 ☂"), ("a\tb", "a\\tb")],
)
def test_letters_of_all_scripts_are_shown_as_they_are(text: str, shown: str) -> None:
  assert one_line(text) == shown
