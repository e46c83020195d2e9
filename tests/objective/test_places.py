"""The term of places against its definition, one place at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.places import Places


def cosine(a: Any, b: Any) -> float:
  return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def one_by_one(outputs: Outputs, route: str) -> float:
  context, target = route.split("->")
  found = []
  for row in range(len(outputs.present[context])):
    if not (outputs.present[context][row] and outputs.present[target][row]):
      continue
    counted = np.flatnonzero(outputs.counted[route][row])
    predicted = np.asarray(outputs.predicted[route][row], np.float64)
    goal = np.asarray(outputs.target[route][row], np.float64)
    for m in counted:
      others = [n for n in counted if n == m or not np.array_equal(goal[n], goal[m])]
      scores = {n: cosine(predicted[m], goal[n]) / 0.2 for n in others}
      found.append(np.log(sum(np.exp(score) for score in scores.values())) - scores[m])
  return float(np.mean(found))


def test_it_is_the_mean_surprise_of_a_place_among_those_of_its_image(
  outputs: Outputs, agrees: Callable[..., None]
) -> None:
  def reference(params: dict[str, Any], outputs: Outputs) -> float:
    del params
    return float(np.mean([one_by_one(outputs, route) for route in outputs.predicted]))

  agrees(Places(temperature=0.2), outputs, reference)


def test_a_place_that_two_blocks_ask_for_is_no_other_than_itself(outputs: Outputs) -> None:
  route = "radar->optical"
  target = jnp.asarray(outputs.target[route])
  outputs.target[route] = target.at[:, 1].set(target[:, 0])
  value, logged = jax.jit(Places(temperature=0.2, routes=(route,)).loss)(
    {}, outputs, jax.random.key(0)
  )
  np.testing.assert_allclose(value, one_by_one(outputs, route), rtol=1e-5)
  assert logged.keys() == {f"route/{route}"}


def test_one_who_knows_the_scene_alone_is_at_chance_and_one_who_knows_places_is_not(
  outputs: Outputs,
) -> None:
  route = "optical->optical"
  rows, count, width = outputs.target[route].shape
  outputs.counted[route] = jnp.ones((rows, count), bool)
  scene = jnp.broadcast_to(outputs.target[route].mean(axis=1, keepdims=True), (rows, count, width))
  loss = jax.jit(Places(temperature=0.1, routes=(route,)).loss)
  for predicted, expected in ((scene, np.log(count)), (outputs.target[route], 0.5)):
    outputs.predicted[route] = predicted
    value, _ = loss({}, outputs, jax.random.key(0))
    assert value >= expected - 1e-4 if expected > 1 else value < expected
