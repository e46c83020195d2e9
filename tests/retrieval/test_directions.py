"""The table of directions, against loops over scenes written from the definitions."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from xjepa_jax.errors import EvaluationError
from xjepa_jax.retrieval import relevance
from xjepa_jax.retrieval.directions import Row, evaluate_directions, evaluate_similarity

SCENES = 30


@dataclasses.dataclass
class Scenes:
  descriptors: dict[str, np.ndarray]
  present: dict[str, np.ndarray]
  labels: np.ndarray


@pytest.fixture
def scenes() -> Scenes:
  """Two sensors that partly agree; some scenes lack one, and some have no label."""
  rng = np.random.default_rng(3)
  ground = rng.normal(size=(SCENES, 6))
  descriptors = {
    name: (ground + rng.normal(size=(SCENES, 6))).astype(np.float32) for name in ("sar", "optical")
  }
  present = {name: rng.random(SCENES) < 0.8 for name in descriptors}
  for name, there in present.items():
    descriptors[name][~there] = np.nan  # must not be read
  labels = rng.random((SCENES, 5)) < 0.25
  labels[:2] = False
  return Scenes(descriptors, present, labels)


def row(rows: list[Row], query: str, archive: str) -> Row:
  return next(r for r in rows if (r.query, r.archive) == (query, archive))


def loop(scenes: Scenes, query: str, archive: str, k: int) -> dict[str, float]:
  """R@k and MRR of located queries, and label metrics of labelled ones, scene by scene."""
  found = [p for p in range(SCENES) if scenes.present[archive][p]]
  located, labelled = [], []
  for p in (p for p in range(SCENES) if scenes.present[query][p]):
    answers = [a for a in found if query != archive or a != p]

    def cosine(a: int, p: int = p) -> float:
      one, other = scenes.descriptors[query][p], scenes.descriptors[archive][a]
      return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    ranking = sorted(answers, key=lambda a: -cosine(a))
    if p in answers:
      place = ranking.index(p) + 1
      located.append((float(place <= k), 1 / place))
    wanted = set(np.flatnonzero(scenes.labels[p]))
    if wanted:
      shared = [len(wanted & set(np.flatnonzero(scenes.labels[a]))) for a in ranking]
      sizes = [int(scenes.labels[a].sum()) for a in ranking]
      gain = sum(s / np.log2(i + 2) for i, s in enumerate(shared[:k]))
      best = sum(s / np.log2(i + 2) for i, s in enumerate(sorted(shared, reverse=True)[:k]))
      hits = [sum(s > 0 for s in shared[: i + 1]) for i in range(k)]
      summed = sum(hits[i] / (i + 1) for i in range(k) if shared[i])
      f1 = [2 * s / (n + len(wanted)) for s, n in zip(shared, sizes, strict=True)]
      labelled.append(
        (
          gain / best if best else 0.0,
          summed / hits[-1] if hits[-1] else 0.0,
          summed / max(1, sum(s > 0 for s in shared)),
          sum(f1[:k]) / k,
          sum(f1) / len(f1),
          sum(s > 0 for s in shared[:5]) / 5,
        )
      )
  names = ("ndcg", "map_hits", "map_relevant", "f1_item", "chance_f1", "precision@5")
  result = dict(zip(names, np.mean(labelled, axis=0), strict=True))
  if query != archive:
    result |= dict(zip(("recall", "mrr"), np.mean(located, axis=0), strict=True))
  return {name: float(value) for name, value in result.items()}


@pytest.mark.parametrize("direction", [("sar", "optical"), ("optical", "sar"), ("sar", "sar")])
@pytest.mark.parametrize("block", [1, 1 << 20])
def test_a_row_is_the_mean_over_scenes_of_each_definition(
  scenes: Scenes, direction: tuple[str, str], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(relevance, "BLOCK_SCORES", block)
  rows = evaluate_directions(scenes.descriptors, scenes.present, scenes.labels)
  assert [(r.query, r.archive) for r in rows] == [
    ("sar", "sar"), ("sar", "optical"), ("optical", "sar"), ("optical", "optical")
  ]  # fmt: skip
  got, expected = row(rows, *direction), loop(scenes, *direction, k=5)
  for name in ("ndcg", "map_hits", "map_relevant", "f1_item"):
    assert got.metrics[f"{name}@5"] == pytest.approx(expected[name], abs=1e-9), name
  assert got.metrics["precision@5"] == pytest.approx(expected["precision@5"], abs=1e-9)
  assert got.chance["f1_item@5"] == pytest.approx(expected["chance_f1"], abs=1e-6)
  if direction[0] != direction[1]:
    assert got.metrics["recall@5"] == pytest.approx(expected["recall"])
    assert got.metrics["mrr"] == pytest.approx(expected["mrr"])
  else:
    assert "recall@5" not in got.metrics and "mrr" not in got.metrics


def test_a_row_counts_who_asked_who_was_found_and_over_whom_it_is_a_mean(scenes: Scenes) -> None:
  rows = evaluate_directions(scenes.descriptors, scenes.present, scenes.labels)
  got = row(rows, "sar", "optical")
  sar, optical = scenes.present["sar"], scenes.present["optical"]
  assert got.queries == sar.sum() and got.archive_size == optical.sum()
  assert got.co_located == (sar & optical).sum()
  assert got.labelled == (sar & scenes.labels.any(axis=1)).sum() < got.queries
  assert got.chance["recall@5"] == pytest.approx(5 / optical.sum())
  within = row(rows, "sar", "sar")
  assert within.protocol["left_out"] == "the query itself"
  assert json.loads(json.dumps(dataclasses.asdict(within)))["query"] == "sar"


def test_within_a_sensor_the_query_itself_is_no_answer() -> None:
  # Each scene is alone with its label: only itself would be relevant.
  descriptors = {"a": np.eye(12, dtype=np.float32)}
  got = evaluate_directions(descriptors, {"a": np.ones(12, bool)}, np.eye(12, dtype=bool))[0]
  assert got.answerable == 0 and got.labelled == 12
  assert set(got.metrics.values()) == {0.0}


def test_without_labels_the_co_located_scene_alone_is_relevant(scenes: Scenes) -> None:
  rows = evaluate_directions(scenes.descriptors, scenes.present)
  assert [(r.query, r.archive) for r in rows] == [("sar", "optical"), ("optical", "sar")]
  got = rows[0]
  assert got.answerable == got.co_located and got.labelled == 0
  # One relevant item: precision at 5 is a fifth of the hit rate, mAP@1 = nDCG@1 = R@1.
  assert got.metrics["precision@5"] == pytest.approx(got.metrics["recall@5"] / 5)
  for name in ("map_hits@1", "map_relevant@1", "map_reachable@1", "ndcg@1"):
    assert got.metrics[name] == pytest.approx(got.metrics["recall@1"])
  assert got.chance["map_relevant@1"] == pytest.approx(got.chance["recall@1"])


def test_queries_and_archive_of_different_splits_share_no_scene(scenes: Scenes) -> None:
  first_half = np.arange(SCENES) < SCENES // 2
  rows = evaluate_directions(
    scenes.descriptors, scenes.present, scenes.labels, queries=first_half, archive=~first_half
  )
  got = row(rows, "sar", "optical")
  assert got.co_located == 0 and "recall@1" not in got.metrics and "f1_csmae@10" in got.metrics
  assert got.archive_size == (scenes.present["optical"] & ~first_half).sum()


def test_centring_takes_a_gap_between_sensors_away() -> None:
  rng = np.random.default_rng(0)
  ground = rng.normal(size=(40, 8))
  descriptors = {"a": ground, "b": ground + 30 * rng.normal(size=8)}
  present = {name: np.ones(40, bool) for name in descriptors}
  plain = evaluate_directions(descriptors, present)[0]
  centred = evaluate_directions(descriptors, present, centre=True)[0]
  assert plain.metrics["recall@1"] < 0.8 and centred.metrics["recall@1"] == 1
  assert "centred" in centred.protocol["similarity"]


def test_cut_offs_beyond_the_archive_are_left_out() -> None:
  descriptors = {name: np.eye(4, dtype=np.float32) for name in ("a", "b")}
  present = {name: np.ones(4, bool) for name in descriptors}
  got = evaluate_directions(descriptors, present, np.ones((4, 2), bool), k=(1, 4, 5))
  across = row(got, "a", "b")
  assert across.metrics["recall@1"] == 1 and across.metrics["mrr"] == 1
  assert "recall@4" in across.metrics and "ndcg@4" in across.metrics
  assert not any("@5" in name or "@10" in name for name in across.metrics)


def test_a_baselines_similarities_give_the_same_row_as_descriptors_would(scenes: Scenes) -> None:
  both = scenes.present["sar"] & scenes.present["optical"]
  chosen = {
    name: values[both] / np.linalg.norm(values[both], axis=1, keepdims=True)
    for name, values in scenes.descriptors.items()
  }
  present = {name: np.ones(both.sum(), bool) for name in chosen}
  labels = scenes.labels[both]
  expected = row(evaluate_directions(chosen, present, labels), "sar", "optical")
  similarity = chosen["sar"] @ chosen["optical"].T
  got = evaluate_similarity("sar", "optical", similarity, labels, method="test")
  assert got.metrics == pytest.approx(expected.metrics) and got.chance == expected.chance
  assert got.method == "test"


def test_arguments_of_different_scenes_are_refused(scenes: Scenes) -> None:
  with pytest.raises(EvaluationError, match="one row for each of the same scenes"):
    evaluate_directions(scenes.descriptors, scenes.present, scenes.labels[1:])
  with pytest.raises(EvaluationError, match="presence of"):
    evaluate_directions(scenes.descriptors, {"sar": scenes.present["sar"]})
  with pytest.raises(EvaluationError, match=r"expected \(P, P\)"):
    evaluate_similarity("a", "b", np.zeros((2, 3)), method="test")
  with pytest.raises(EvaluationError, match="with labels only"):
    evaluate_similarity("a", "a", np.zeros((2, 2)), method="test")
