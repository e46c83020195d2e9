"""What guesses lose, against loops and hand-made targets, and what is said of terms that lose as
much."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective import table
from xjepa_jax.training.probe import probe, second_moments
from xjepa_jax.training.triviality import triviality

KEY = jax.random.key(0)


def outputs_of(
  predicted: np.ndarray, target: np.ndarray, there: np.ndarray | None = None
) -> Outputs:
  samples = len(predicted)
  there = np.ones(samples, bool) if there is None else there
  return Outputs(
    predicted={"a->b": jnp.asarray(predicted, jnp.float32)},
    target={"a->b": jnp.asarray(target, jnp.float32)},
    tokens={},
    positions={},
    descriptors={},
    seen={},
    counted={"a->b": jnp.ones(predicted.shape[:2], bool)},
    present={"a": jnp.ones(samples, bool), "b": jnp.asarray(there)},
    grid={},
    prefixes={},
  )


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20)
def test_second_moments_are_those_of_a_loop_and_add_up(seed: int) -> None:
  rng = np.random.default_rng(seed)
  targets = rng.normal(size=(4, 3, 2)) + rng.normal(size=(1, 3, 2)) + rng.normal(size=2)
  found = second_moments(targets)
  assert sum(found.values()) == pytest.approx(np.mean(targets**2))
  all_of = [targets[b, m] for b in range(4) for m in range(3)]
  constant = sum(all_of) / 12
  places = [sum(targets[b, m] for b in range(4)) / 4 - constant for m in range(3)]
  scenes = [sum(targets[b, m] for m in range(3)) / 3 - constant for b in range(4)]
  assert found["constant"] == pytest.approx(np.mean(constant**2))
  assert found["position"] == pytest.approx(np.mean(np.square(places)))
  assert found["scene"] == pytest.approx(np.mean(np.square(scenes)))


def test_targets_of_one_kind_are_all_of_that_part() -> None:
  place = np.array([[1.0, -1.0], [-1.0, 1.0]])[None]  # (1, M, D), of mean 0
  pure = {
    "constant": np.full((5, 2, 2), 0.7),
    "position": np.tile(place, (4, 1, 1)),
    "scene": np.tile(np.array([-1.0, 1.0, 2.0, -2.0])[:, None, None], (1, 2, 2)),
  }
  for name, targets in pure.items():
    found = second_moments(targets)
    assert found[name] == pytest.approx(np.mean(targets**2)), name
    assert sum(found.values()) == pytest.approx(found[name])


@pytest.mark.parametrize("distance", ["l2", "l1", "smooth_l1"])
def test_losses_of_guesses_are_in_the_term_s_own_measure(distance: str) -> None:
  rng = np.random.default_rng(0)
  predicted, target = rng.normal(size=(2, 6, 5, 4))
  there = np.array([True, False, True, True, False, True])
  objective = table.build({"mine": {"term": "latent", "distance": distance}, "vicreg": {"on": "h"}})
  objective.terms.pop("vicreg")  # it has no descriptors here; see the run's test
  found = probe(objective, {}, outputs_of(predicted, target, there), KEY)
  own, goal = predicted[there], target[there]

  def mean(guess: np.ndarray) -> float:
    error = np.abs(guess - goal)
    smooth = np.where(error < 1, error**2 / 2, error - 0.5)
    return float({"l2": error**2, "l1": error, "smooth_l1": smooth}[distance].mean())

  expected = {
    "real": mean(own),
    "other_context": mean(own[[3, 0, 1, 2]]),
    "position": mean(np.stack([sum(goal) / 4] * 4)),
    "constant": mean(np.broadcast_to(goal.reshape(-1, 4).mean(axis=0), goal.shape)),
  }
  for kind, value in expected.items():
    assert found[f"probe/mine/{kind}/a->b"] == pytest.approx(value, rel=1e-5), kind
  assert found["probe/mine/over_position/a->b"] == pytest.approx(
    expected["real"] / expected["position"], rel=1e-5
  )
  moments = second_moments(goal)
  assert found["targets/scene/a->b"] == pytest.approx(moments["scene"], rel=1e-5)


def test_the_floor_of_position_is_the_moment_that_neither_constant_nor_position_explain() -> None:
  target = np.random.default_rng(1).normal(size=(8, 5, 4)) + 1
  objective = table.build({"latent": {}})
  found = probe(objective, {}, outputs_of(target, target), KEY)
  parts = {name: found[f"targets/{name}/a->b"] for name in ("position", "scene", "rest")}
  assert found["probe/latent/position/a->b"] == pytest.approx(parts["scene"] + parts["rest"])
  assert found["probe/latent/constant/a->b"] == pytest.approx(sum(parts.values()))
  assert found["probe/latent/real/a->b"] == 0


def test_a_route_of_fewer_than_two_samples_has_nothing_to_be_compared_with() -> None:
  tokens = np.ones((3, 2, 2))
  objective = table.build({"latent": {}})
  assert probe(objective, {}, outputs_of(tokens, tokens, np.array([0, 1, 0], bool)), KEY) == {}


def said_of(predict: Any, taught: bool = True) -> str:
  """What is said of a predictor: a function of the targets (B, M, D)."""
  rng = np.random.default_rng(2)
  target = rng.normal(size=(1, 6, 16)) + 0.3 * rng.normal(size=(40, 6, 16))
  objective = table.build({"latent": {}})
  measured = probe(objective, {}, outputs_of(predict(target), target), KEY)
  return triviality({"step": 3, "loss/total": 1.0, **measured}, {"latent": taught})


def test_a_predictor_of_places_is_said_to_teach_nothing() -> None:
  said = said_of(lambda target: np.broadcast_to(target.mean(axis=0), target.shape))
  assert "'latent' teaches nothing of a->b (loss 0.0" in said
  assert "a guess from position alone 0.0" in said and "another sample's context 0.0" in said
  assert said_of(lambda target: np.zeros_like(target)).count("teaches nothing") == 1


def test_of_one_that_looks_at_its_context_and_is_still_worse_that_is_said() -> None:
  said = said_of(lambda target: 2 * (target - target.mean(axis=0)) + target)
  assert "not below a guess from position alone" in said and "does look at its context" in said


def test_nothing_is_said_of_one_that_knows_the_scene_or_is_not_trained() -> None:
  assert said_of(lambda target: target + 0.1) == ""
  assert said_of(lambda target: np.zeros_like(target), taught=False) == ""
  assert triviality({}, {}) == ""
