"""A collapsed space is called one, and a healthy run, early or late, is not.

Runs are drawn as descriptors with the rank, gap and retrieval that trials on real pairs had, and
measured by `describe_geometry` and the table of directions as a run would be.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from xjepa_jax.retrieval.directions import evaluate_directions
from xjepa_jax.training.collapse import MIN_STEP, Measurement, diagnose
from xjepa_jax.training.geometry import describe_geometry

SCENES, SIZE = 140, 256


def measure(step: int, descriptors: dict[str, np.ndarray]) -> Measurement:
  present = {sensor: np.ones(SCENES, bool) for sensor in descriptors}
  rows = evaluate_directions(descriptors, present, k=(10,), centre=True)
  return Measurement(
    step=step,
    dimensions=SIZE,
    geometry=describe_geometry(descriptors),
    recall={f"{row.query}->{row.archive}": row.metrics["recall@10"] for row in rows},
    chance={f"{row.query}->{row.archive}": row.chance["recall@10"] for row in rows},
    queries=SCENES,
  )


@functools.cache
def drawn(step: int, rank: int, agreement: float, gap: float = 0.0) -> Measurement:
  """Two sensors in `rank` dimensions, of which a part `agreement` is the same scene's."""
  rng = np.random.default_rng(step)
  axes = np.linalg.qr(rng.normal(size=(SIZE, rank)))[0].T
  scene = rng.normal(size=(SCENES, rank))
  sensors = {}
  for number, sensor in enumerate(("a", "b")):
    own = agreement * scene + (1 - agreement) * rng.normal(size=(SCENES, rank))
    away = gap * (number - 0.5) * axes[0] * np.sqrt(rank)
    sensors[sensor] = own @ axes + away + 3e-4 * rng.normal(size=(SCENES, SIZE))
  return measure(step, sensors)


def test_a_bare_latent_loss_is_called_a_collapse() -> None:
  history = [drawn(step, rank=3, agreement=0) for step in range(100, 501, 100)]
  assert 2 < history[-1].geometry["rankme/a"] < 5
  verdict = diagnose(history)
  assert verdict is not None and verdict.step == 500
  said = str(verdict)
  for part in (
    "collapsing (step 500)",
    "RankMe",
    "of 256 dimensions",
    "chance 7.1%",
    "140 queries",
  ):
    assert part in said
  assert "vicreg" in verdict.remedies[0]


def test_nothing_is_said_before_two_measurements_after_the_warm_up() -> None:
  history = [drawn(step, rank=3, agreement=0) for step in range(0, 501, 100)]
  verdicts = [diagnose(history[: n + 1]) is not None for n in range(len(history))]
  # 0 100 200 300 400 500: the first two at or after MIN_STEP are 200 and 300.
  assert MIN_STEP == 150 and verdicts == [False, False, False, True, True, True]
  assert diagnose(history, min_step=2000) is None
  assert diagnose([]) is None


def test_a_healthy_run_is_not_called_a_collapse_at_any_step() -> None:
  # At first a low rank and retrieval at chance; then both rise, as with VICReg on real pairs.
  course = ((0, 2, 0.0), (100, 2, 0.0), (200, 3, 0.2), (300, 6, 0.5), (400, 8, 0.6), (500, 10, 0.6))
  history = [drawn(*point) for point in course]
  assert [diagnose(history[: n + 1]) for n in range(len(history))] == [None] * len(history)


def test_a_late_starter_whose_rank_rises_is_given_time() -> None:
  course = ((300, 1, 0.0), (400, 2, 0.0), (500, 3, 0.0), (600, 4, 0.0), (700, 7, 0.5))
  history = [drawn(*point) for point in course]
  assert [diagnose(history[: n + 1]) for n in range(len(history))] == [None] * len(history)


def test_low_rank_with_retrieval_above_chance_is_no_collapse() -> None:
  assert diagnose([drawn(step, rank=3, agreement=0.7) for step in (400, 500, 600)]) is None


def test_retrieval_at_chance_with_a_healthy_geometry_is_no_collapse() -> None:
  assert diagnose([drawn(step, rank=20, agreement=0) for step in (400, 500, 600)]) is None


def test_sensors_that_stay_apart_are_called_a_collapse() -> None:
  history = [drawn(step, 20, 0.0, gap=gap) for step, gap in ((100, 0.7), (400, 2.0), (500, 4.0))]
  verdict = diagnose(history)
  assert verdict is not None and "the gap between a-b is" in str(verdict)
  assert "cosine" in verdict.remedies[0]


def test_of_one_sensor_a_rank_that_stays_low_is_enough_and_a_rising_or_high_one_is_none() -> None:
  def alone(step: int, rank: int) -> Measurement:
    one = drawn(step, rank, agreement=0)
    return dataclasses.replace(one, recall={}, chance={}, queries=0)

  verdict = diagnose([alone(step, 3) for step in (200, 300)])
  assert verdict is not None and "RankMe" in str(verdict) and "co-located" not in str(verdict)
  assert diagnose([alone(200, 3), alone(300, 4)]) is None
  assert diagnose([alone(step, 20) for step in (200, 300, 400)]) is None


# Measured on OMBRIA's 70 validation pairs (configs/trials.py: ombria,bare over 300 steps, and
# ombria,default over 100): step, RankMe, relative gap, R@5 both ways.
BARE = (
  (50, 29.4, 0.949, 0.186, 0.157),
  (100, 21.0, 0.953, 0.129, 0.157),
  (150, 19.5, 0.936, 0.114, 0.171),
  (200, 19.9, 0.931, 0.100, 0.171),
  (250, 20.8, 0.929, 0.086, 0.143),
  (300, 21.1, 0.929, 0.086, 0.129),
)
DEFAULT = ((50, 41.5, 0.590, 0.400, 0.443), (100, 38.4, 0.424, 0.486, 0.557))


def measured(run: tuple[tuple[float, ...], ...]) -> list[Measurement]:
  return [
    Measurement(
      step=int(step),
      dimensions=512,
      geometry={"rankme/a": rank, "gap_relative/a-b": gap},
      recall={"a->b": there, "b->a": back},
      chance={"a->b": 5 / 70, "b->a": 5 / 70},
      queries=70,
    )
    for step, rank, gap, there, back in run
  ]


def test_a_bare_latent_loss_on_real_pairs_is_called_a_collapse_within_300_steps() -> None:
  history = measured(BARE)
  verdicts = [diagnose(history[: n + 1]) for n in range(len(history))]
  first = next(verdict for verdict in verdicts if verdict is not None)
  assert first.step <= 300 and "the gap between a-b is 0.93 of their spread" in str(first)


def test_the_default_on_real_pairs_is_not_called_a_collapse() -> None:
  history = measured(DEFAULT)
  later = [dataclasses.replace(each, step=each.step + MIN_STEP) for each in history]
  assert diagnose(history) is None and diagnose(later) is None


def test_predictions_that_know_only_their_position_are_called_a_collapse() -> None:
  def with_positional(measurement: Measurement, value: float) -> Measurement:
    return dataclasses.replace(
      measurement, geometry={**measurement.geometry, "positional/a->b": value}
    )

  runs = [drawn(step, rank=20, agreement=0) for step in (400, 500)]
  verdict = diagnose([with_positional(run, 0.002) for run in runs])
  assert verdict is not None and "position and not their scene" in str(verdict)
  assert diagnose([with_positional(run, 0.1) for run in runs]) is None


@pytest.mark.parametrize(("rank", "collapsed"), [(2.5, False), (1.5, True)])
def test_a_small_descriptor_needs_no_rank_of_five(rank: float, collapsed: bool) -> None:
  history = [
    Measurement(step, 8, {"rankme/a": rank, "rankme/b": 3.0}, {"a->b": 0.1}, {"a->b": 0.1}, 100)
    for step in (400, 500)
  ]
  assert (diagnose(history) is not None) is collapsed
