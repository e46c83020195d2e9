"""Protocols on scenes made by hand: who asks, who is searched, what is left out, every number."""

from __future__ import annotations

import dataclasses
import typing

import numpy as np
import pytest
import pytrec_eval

from xjepa_jax.config import EvaluationConfig
from xjepa_jax.errors import EvaluationError
from xjepa_jax.retrieval.directions import Row
from xjepa_jax.retrieval.protocol_rows import PREDICTED, duplicate_rate, protocol_rows
from xjepa_jax.retrieval.protocols import PROTOCOLS, Protocol, protocol_of
from xjepa_jax.retrieval.scene_vectors import SceneVectors

NAMES = ("water", "forest", "field", "town")


@pytest.fixture(scope="module")
def scenes() -> SceneVectors:
  """60 scenes of three splits, two sensors that partly agree; some lack one or have no label."""
  rng = np.random.default_rng(4)
  ground = rng.normal(size=(60, 5))

  def units(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)

  present = {sensor: rng.random(60) < 0.9 for sensor in ("radar", "optical")}
  vectors = {sensor: units(ground + rng.normal(size=(60, 5))) for sensor in present}
  for sensor, there in present.items():
    vectors[sensor][~there] = 0
  return SceneVectors(
    ids=tuple(f"scene {number}" for number in range(60)),
    splits=np.array(["train", "validation", "test"], object)[rng.integers(0, 3, 60)],
    labels=tuple(tuple(name for name in NAMES if rng.random() < 0.35) for _ in range(60)),
    present=present,
    vectors=vectors,
    predicted={"radar->optical": vectors["optical"].copy()},
  )


def row(rows: list[Row], query: str, archive: str, method: str = "descriptors") -> Row:
  return next(r for r in rows if (r.query, r.archive, r.method) == (query, archive, method))


def rankings(
  protocol: Protocol, scenes: SceneVectors, query: str, archive: str
) -> list[tuple[int, list[int]]]:
  """(who asks, all answers best first), by a loop that knows the published rules."""
  found = []
  for asker in range(60):
    if scenes.splits[asker] != protocol.queries or not scenes.present[query][asker]:
      continue
    answers = [
      answer
      for answer in range(60)
      if scenes.splits[answer] == protocol.archive
      and scenes.present[archive][answer]
      and not (query == archive and answer == asker)
    ]
    scores = scenes.vectors[archive] @ scenes.vectors[query][asker]
    found.append((asker, sorted(answers, key=lambda answer: -scores[answer])))
  return found


def p_and_r(scenes: SceneVectors, asker: int, answer: int) -> tuple[float, float]:
  q, r = set(scenes.labels[asker]), set(scenes.labels[answer])
  return (len(q & r) / len(r) if r else 0.0), len(q & r) / len(q)


WAYS = [("radar", "optical"), ("optical", "radar"), ("radar", "radar")]


@pytest.mark.parametrize("way", WAYS)
def test_csmae_lets_validation_ask_and_searches_test_with_one_f1_of_means(
  scenes: SceneVectors, way: tuple[str, str]
) -> None:
  protocol = protocol_of("csmae-f1@10")
  assert (protocol.queries, protocol.archive) == ("validation", "test")
  pairs = [
    p_and_r(scenes, asker, answer)
    for asker, answers in rankings(protocol, scenes, *way)
    if scenes.labels[asker]
    for answer in answers[:10]
  ]
  precision, recall = np.mean(pairs, axis=0)
  found = row(protocol_rows(protocol, scenes, resamples=0), *way)
  expected = 2 * precision * recall / (precision + recall)
  assert found.metrics[protocol.headline[0]] == pytest.approx(expected, abs=1e-9)
  assert protocol.headline[0] == "f1_csmae@10" and found.co_located == 0


@pytest.mark.parametrize("way", WAYS)
def test_ben14k_is_the_f1_of_five_items_and_leaves_the_query_itself_out(
  scenes: SceneVectors, way: tuple[str, str]
) -> None:
  protocol = protocol_of("ben14k-f1@5")
  values = []
  for asker, answers in rankings(protocol, scenes, *way):
    assert way[0] != way[1] or asker not in answers
    if scenes.labels[asker]:
      items = [p_and_r(scenes, asker, answer) for answer in answers[:5]]
      values.append(np.mean([2 * p * r / (p + r) if p + r else 0.0 for p, r in items]))
  found = row(protocol_rows(protocol, scenes, resamples=0), *way)
  assert found.metrics["f1_item@5"] == pytest.approx(np.mean(values), abs=1e-9)
  assert protocol.headline[0] == "f1_item@5"
  told = found.protocol["left_out"]
  assert told == ("the query itself" if way[0] == way[1] else
                  "nothing; the co-located scene is an answer")  # fmt: skip


@pytest.mark.parametrize("name", ["cbrsir-map", "dsrsid-map"])
@pytest.mark.parametrize("way", WAYS)
def test_map_of_the_whole_ranking_is_that_of_trec_eval(
  scenes: SceneVectors, name: str, way: tuple[str, str]
) -> None:
  protocol = protocol_of(name)
  run, relevant = {}, {}
  for asker, answers in rankings(protocol, scenes, *way):
    if scenes.labels[asker]:
      run[str(asker)] = {str(a): float(-place) for place, a in enumerate(answers)}
      relevant[str(asker)] = {
        str(a): int(bool(set(scenes.labels[a]) & set(scenes.labels[asker]))) for a in answers
      }
  expected = pytrec_eval.RelevanceEvaluator(relevant, {"map", "P.5"}).evaluate(run)
  found = row(protocol_rows(protocol, scenes, resamples=0), *way)
  for ours, theirs in (("map", "map"), ("precision@5", "P_5")):
    mean = np.mean([each[theirs] for each in expected.values()])
    assert found.metrics[ours] == pytest.approx(mean, abs=1e-6)
  assert protocol.headline == ("map", "precision@5")


def test_chance_of_the_whole_map_is_the_mean_over_rankings_by_lot(scenes: SceneVectors) -> None:
  protocol = protocol_of("dsrsid-map")
  rng = np.random.default_rng(0)
  drawn = []
  for _ in range(400):
    lot = {
      key: rng.normal(size=each.shape).astype(np.float32) for key, each in scenes.vectors.items()
    }
    lots = dataclasses.replace(scenes, vectors=lot, predicted={})
    found = row(protocol_rows(protocol, lots, resamples=0), "radar", "radar")
    drawn.append(found.metrics["map"])
  error = np.std(drawn) / np.sqrt(len(drawn))
  assert found.chance["map"] == pytest.approx(np.mean(drawn), abs=4 * error)


def test_paired_recall_is_of_the_co_located_scene_across_sensors_only(scenes: SceneVectors) -> None:
  protocol = protocol_of("paired-recall")
  rows = protocol_rows(protocol, scenes, resamples=200)
  assert {(r.query, r.archive) for r in rows} == {("radar", "optical"), ("optical", "radar")}
  places = [
    answers.index(asker) + 1
    for asker, answers in rankings(protocol, scenes, "radar", "optical")
    if asker in answers
  ]
  found = row(rows, "radar", "optical")
  for k in (1, 5, 10):
    assert found.metrics[f"recall@{k}"] == pytest.approx(np.mean(np.array(places) <= k))
  assert found.metrics["mrr"] == pytest.approx(np.mean(1 / np.array(places)))
  low, high = found.interval["recall@5"]
  assert low <= found.metrics["recall@5"] <= high and set(found.interval) == set(found.metrics)


def test_predicted_queries_are_a_row_beside_the_plain_one(scenes: SceneVectors) -> None:
  rows = protocol_rows(protocol_of("paired-recall"), scenes, resamples=0)
  ways = [(r.query, r.archive, r.method) for r in rows]
  assert ways == [
    ("radar", "optical", "descriptors"),
    ("radar", "optical", PREDICTED),
    ("optical", "radar", "descriptors"),
  ]
  # The fixture's prediction is the truth wherever both sensors are there.
  both = rows[1].co_located
  assert rows[1].metrics["recall@1"] == 1 and both == rows[0].co_located


def test_leaving_out_the_scene_leaves_it_out_of_other_sensors_too(scenes: SceneVectors) -> None:
  strict = dataclasses.replace(protocol_of("ben14k-f1@5"), leave_out="scene")
  plain = row(protocol_rows(protocol_of("ben14k-f1@5"), scenes, resamples=0), "radar", "optical")
  found = row(protocol_rows(strict, scenes, resamples=0), "radar", "optical")
  assert found.protocol["left_out"] == "the co-located scene"
  assert "recall@5" not in found.metrics and "recall@5" in plain.metrics
  values = []
  for asker, answers in rankings(strict, scenes, "radar", "optical"):
    if scenes.labels[asker]:
      others = [answer for answer in answers if answer != asker][:5]
      items = [p_and_r(scenes, asker, answer) for answer in others]
      values.append(np.mean([2 * p * r / (p + r) if p + r else 0.0 for p, r in items]))
  assert found.metrics["f1_item@5"] == pytest.approx(np.mean(values), abs=1e-9)


def test_what_cannot_be_measured_is_refused_with_the_reason(scenes: SceneVectors) -> None:
  unlabelled = dataclasses.replace(scenes, labels=((),) * 60)
  with pytest.raises(EvaluationError, match="compares labels, and no scene has any"):
    protocol_rows(protocol_of("ben14k-f1@5"), unlabelled)
  unknown = dataclasses.replace(scenes, splits=np.full(60, "", object))
  with pytest.raises(EvaluationError, match="not known which scenes are of which"):
    protocol_rows(protocol_of("csmae-f1@10"), unknown)
  one = dataclasses.replace(scenes, vectors={"radar": scenes.vectors["radar"]}, predicted={})
  with pytest.raises(EvaluationError, match="across two sensors only"):
    protocol_rows(protocol_of("paired-recall"), one)
  with pytest.raises(EvaluationError, match="no protocol 'csmae-f1@1'.*Did you mean 'csmae-f1@10'"):
    protocol_of("csmae-f1@1")


def test_scenes_of_unknown_splits_all_ask_and_are_searched(scenes: SceneVectors) -> None:
  unknown = dataclasses.replace(scenes, splits=np.full(60, "", object))
  found = row(protocol_rows(protocol_of("paired-recall"), unknown, resamples=0), "radar", "optical")
  assert found.queries == int(scenes.present["radar"].sum())
  assert found.archive_size == int(scenes.present["optical"].sum())


def test_other_splits_keep_the_rest_of_a_protocol() -> None:
  changed = protocol_of("csmae-f1@10").in_splits({"validation": "val", "test": "held out"})
  assert (changed.queries, changed.archive) == ("val", "held out")
  assert dataclasses.replace(changed, queries="validation", archive="test") == (
    protocol_of("csmae-f1@10")
  )


def test_doubles_are_counted_among_what_is_searched(scenes: SceneVectors) -> None:
  vectors = {key: values.copy() for key, values in scenes.vectors.items()}
  searched = np.flatnonzero((scenes.splits == "test") & scenes.present["radar"])
  vectors["radar"][searched[1:4]] = vectors["radar"][searched[0]]
  rates = duplicate_rate(protocol_of("paired-recall"), dataclasses.replace(scenes, vectors=vectors))
  assert rates == {"radar": 4 / len(searched), "optical": 0.0}


def test_the_config_knows_every_protocol() -> None:
  field = next(f for f in dataclasses.fields(EvaluationConfig) if f.name == "protocol")
  assert field.metadata["one_of"] == tuple(PROTOCOLS)
  assert typing.cast(str, field.default) == "paired-recall"
