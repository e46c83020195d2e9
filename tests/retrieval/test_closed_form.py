"""The rows that need no training, fitted on a run's own pairs, and what a network is told."""

from __future__ import annotations

import dataclasses

import jax
import pytest

from tests.training.conftest import small_config
from xjepa_jax.config import resolve
from xjepa_jax.data.import_plan import plan_import
from xjepa_jax.data.simulate import simulated_archive
from xjepa_jax.data.writer import write_dataset
from xjepa_jax.retrieval.closed_form import (
  GRADIENTS,
  LINEAR,
  ClosedForm,
  closed_form,
  finds_less,
  without_network,
)
from xjepa_jax.retrieval.directions import Row
from xjepa_jax.retrieval.protocols import protocol_of
from xjepa_jax.training.experiment import Experiment, open_experiment

pytestmark = pytest.mark.usefixtures("compiled", "compiled_quickly")
PROTOCOL = protocol_of("paired-recall").in_splits({"test": "test"})


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
  """Of a small network, not trained, on 100 pairs of 32 pixels, 10 of them to search among."""
  directory = str(tmp_path_factory.mktemp("closed") / "pairs")
  plan = plan_import(simulated_archive(100, 32), shard_bytes=1_000_000, encoding="bytes")
  write_dataset(plan, directory)
  config = small_config(directory)
  config.training.batch = 20
  config.heads.layout.prefixes = (12,)
  return open_experiment(resolve(config), jax.devices()[:1])


@pytest.fixture(scope="module")
def plain(experiment: Experiment) -> ClosedForm:
  return closed_form(experiment, PROTOCOL)


def test_both_find_clearly_more_than_chance_in_both_directions(plain: ClosedForm) -> None:
  across = {
    (row.method, f"{row.query}->{row.archive}"): row
    for row in plain.rows
    if row.query != row.archive
  }
  ways = ("s1->s2", "s2->s1")
  least = {LINEAR: 0.6, GRADIENTS: 0.4, f"{LINEAR}, first 12": 0.2}  # as the network is judged
  assert set(across) == {(method, way) for method in least for way in ways}
  for (method, _), row in across.items():
    assert row.archive_size == 10 and row.chance["recall@1"] == pytest.approx(0.1)
    assert row.metrics["recall@1"] >= least[method]


def test_the_table_says_what_made_them(plain: ClosedForm) -> None:
  assert set(plain.protocol) == {LINEAR, GRADIENTS}
  assert "1,020 numbers" in plain.protocol[LINEAR]
  assert "fitted in closed form on 80 training pairs in" in plain.protocol[LINEAR]
  assert "576 numbers" in plain.protocol[GRADIENTS]


def test_a_run_without_a_network_is_one_of_them_and_gets_no_rows(experiment: Experiment) -> None:
  config = without_network(experiment.config)
  assert closed_form(dataclasses.replace(experiment, config=config), PROTOCOL) == ClosedForm()


def rows(plain: ClosedForm, recall: float) -> list[Row]:
  """Of a network that finds so many in both directions."""
  return [
    dataclasses.replace(row, method="descriptors", metrics={**row.metrics, "recall@1": recall})
    for row in plain.rows
    if row.method == LINEAR and row.query != row.archive
  ]


def test_a_network_that_finds_less_is_told_so_with_what_to_do(plain: ClosedForm) -> None:
  linear = [
    row.metrics["recall@1"]
    for row in plain.rows
    if row.method == LINEAR and row.query != row.archive
  ]
  mean = sum(linear) / len(linear)
  said = finds_less(rows(plain, mean - 0.05), plain.rows)
  assert f"R@1 {mean - 0.05:.1%} against {mean:.1%}" in said
  assert "configs/linear.py" in said and "pooling 'canonical'" in said and "\n" not in said


def test_nothing_is_said_of_a_network_that_finds_as_much_or_where_nothing_compares(
  plain: ClosedForm,
) -> None:
  assert finds_less(rows(plain, 1.0), plain.rows) == ""
  assert finds_less([], plain.rows) == "" == finds_less(rows(plain, 0.0), ())
  gradients = [row for row in plain.rows if row.method == GRADIENTS]
  assert finds_less(rows(plain, 0.0), gradients) == ""
  labelled = [dataclasses.replace(row, metrics={"map@10": 0.0}) for row in rows(plain, 0.0)]
  assert finds_less(labelled, plain.rows) == ""
