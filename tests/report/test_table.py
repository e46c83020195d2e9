"""The table of results as text and Markdown, and a number's name and form."""

from __future__ import annotations

import numpy as np
import pytest

from xjepa_jax.report.findings import Findings, measure
from xjepa_jax.report.table import cells, markdown_table, number, text_table

ROWS = [
  {"name": "X|JEPA", "direction": "a->b", "recall@1": 0.213, "mrr": 0.4, "queries": 1500},
  {"name": "X|JEPA", "direction": "b->a", "recall@1": 0.19, "mrr": float("nan"), "queries": 1500},
  {"name": "chance", "direction": "a->b", "recall@1": 1 / 1500, "queries": 1500},
]


def test_text_is_aligned_in_per_cent_with_each_name_once() -> None:
  assert text_table(ROWS).splitlines() == [
    "        Direction    R@1    MRR  Queries",
    "──────  ─────────  ─────  ─────  ───────",
    "X|JEPA  a → b      21.3%  40.0%    1,500",
    "        b → a      19.0%      –    1,500",
    "chance  a → b      0.07%      –    1,500",
  ]


def test_markdown_marks_the_best_of_each_direction_and_escapes() -> None:
  assert markdown_table(ROWS).splitlines() == [
    "|  | Direction | R@1 | MRR | Queries |",
    "|---|---|---:|---:|---:|",
    "| X\\|JEPA | a → b | **21.3%** | 40.0% | 1,500 |",
    "| X\\|JEPA | b → a | 19.0% | – | 1,500 |",
    "| chance | a → b | 0.07% | – | 1,500 |",
  ]


def test_no_rows_make_no_table() -> None:
  assert text_table([]) == "" and markdown_table([]) == ""


def test_rows_without_a_headline_measure_are_shown_whole() -> None:
  rows = [{"name": "x", "direction": "a->a", "ndcg@7": 0.5, "own": 1.5}]
  assert cells(rows).header == ("", "Direction", "nDCG@7", "own")


def test_graded_gain_is_shown_of_one_sensor_where_no_scene_is_looked_for() -> None:
  within = {"direction": "a->a", "ndcg@10": 0.7, "map_reachable@10": 1.0}
  assert cells([within]).header[2:] == ("nDCG@10", "mAP@10 (reachable)")
  across = {"direction": "a->b", "recall@1": 0.5}
  assert cells([within, across]).header[2:] == ("R@1", "mAP@10 (reachable)")


def test_a_tie_is_the_best_twice() -> None:
  rows = [{"direction": "a->b", "mrr": 0.5}, {"direction": "a->b", "mrr": 0.5}]
  assert cells(rows).best == {(0, 2), (1, 2)}


@pytest.mark.parametrize(
  ("key", "name"),
  [
    ("recall@10", "R@10"),
    ("mrr", "MRR"),
    ("precision@5", "P@5"),
    ("map_reachable@10", "mAP@10 (reachable)"),
    ("f1_csmae@5", "F1@5 (CSMAE)"),
    ("RankMe", "RankMe"),
  ],
)
def test_measures_have_the_names_of_the_field(key: str, name: str) -> None:
  assert measure(key) == name


@pytest.mark.parametrize(
  ("key", "value", "text"),
  [
    ("recall@1", 0.0, "0.0%"),
    ("recall@1", np.float32(0.5), "50.0%"),
    ("recall@1", (0.1, 0.2), "10.0% to 20.0%"),
    ("gap", 0.12344, "0.1234"),
    ("gap", None, "–"),
    ("gap", np.float64("nan"), "–"),
    ("seconds", 12345.6, "12,346"),
    ("device", "2 x cpu", "2 x cpu"),
  ],
)
def test_numbers_read_well(key: str, value: object, text: str) -> None:
  assert number(key, value) == text


def test_rows_of_an_evaluation_become_rows_of_the_table(findings: Findings) -> None:
  first, *_, last = findings.summary
  assert first["name"] == "X-JEPA, layout" and first["direction"] == "optical->radar"
  assert first["queries"] == 1500 and first["recall@5"] == 0.5
  assert last["name"] == "chance" and "recall@5" not in last
