"""The score that picks the best checkpoint, by hand-computed means."""

from __future__ import annotations

import numpy as np
import pytest

from xjepa_jax.retrieval.describe import Described
from xjepa_jax.retrieval.directions import Row, evaluate_directions
from xjepa_jax.retrieval.evaluation import Evaluation, scalars_by_encoder
from xjepa_jax.retrieval.quantise import cut
from xjepa_jax.retrieval.validation_score import validation_score

CUTS = (1, 5, 10)


def rows(
  sensors: dict[str, np.ndarray], labels: np.ndarray | None, k: tuple[int, ...] = CUTS
) -> list[Row]:
  present = {key: np.ones(len(values), bool) for key, values in sensors.items()}
  return evaluate_directions(sensors, present, labels, k)


def test_across_sensors_it_is_the_mean_of_recalls_whatever_the_labels_say() -> None:
  here = np.eye(12, 12, dtype=np.float32)
  there = np.roll(here, 1, axis=1)  # every scene looks like its neighbour
  same = rows({"a": here, "b": here}, None)
  assert validation_score(same, CUTS) == 1
  labelled = rows({"a": here, "b": there}, np.ones((12, 3), bool))
  recalls = [
    row.metrics[f"recall@{k}"] for row in labelled if row.query != row.archive for k in CUTS
  ]
  assert len(recalls) == 6
  assert validation_score(labelled, CUTS) == pytest.approx(sum(recalls) / 6)


def test_the_score_of_a_run_is_the_mean_over_a_head_and_its_beginnings_and_no_other_head() -> None:
  rng = np.random.default_rng(0)
  whole = {key: rng.normal(size=(12, 4)).astype(np.float32) for key in "ab"}
  other = {key: np.eye(12, dtype=np.float32) for key in "ab"}
  by_name = {"layout": whole, "layout, first 2": {key: cut(x, 2) for key, x in whole.items()}}
  evaluation = Evaluation(
    described=Described((), (), {}, {}),
    centre={},
    descriptors={},
    rows={name: rows(each, None) for name, each in {**by_name, "semantic": other}.items()},
    geometry={},
  )
  found = scalars_by_encoder({"trained": evaluation}, "layout")
  scores = [validation_score(evaluation.rows[name], CUTS) for name in by_name]
  assert found["validation/trained/score"] == pytest.approx(np.mean(np.array(scores, float)))
  for name, key in (("layout", ""), ("layout, first 2", "layout/2/"), ("semantic", "semantic/")):
    for row in evaluation.rows[name]:
      way = f"validation/trained/{key}{row.query}->{row.archive}"
      assert found[f"{way}/recall@5"] == row.metrics["recall@5"]


def test_of_one_sensor_it_is_the_gain_by_labels_without_the_query_itself() -> None:
  # On a circle by angle, so each is nearest to its neighbours; itself it would always find.
  angles = np.array([0.0, 0.1, 0.25, 3.0, 3.1, 3.25])
  around = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
  labels = np.zeros((6, 2), bool)
  labels[[0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 1, 1]] = True
  assert validation_score(rows({"a": around}, labels), CUTS) == pytest.approx(1)
  # Labels across the circle: the nearest are of the other one.
  crossed = labels[[0, 3, 4, 1, 2, 5]]
  (row,) = rows({"a": around}, crossed)
  assert validation_score([row], CUTS) == row.metrics["ndcg@5"] < 1  # 5 answers: no cut at 10


def test_where_nothing_can_be_ranked_there_is_none() -> None:
  vectors = np.eye(4, dtype=np.float32)
  assert validation_score(rows({"a": vectors}, None), CUTS) is None
  assert validation_score([], CUTS) is None
