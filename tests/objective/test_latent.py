"""The latent term against its definition, one error at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xjepa_jax.errors import ConfigError
from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.latent import Latent

DISTANCES: dict[str, Callable[[float], float]] = {
  "l2": lambda e: e**2,
  "l1": abs,
  "smooth_l1": lambda e: e**2 / (2 * 0.7) if abs(e) < 0.7 else abs(e) - 0.35,
}


def one_by_one(outputs: Outputs, route: str, distance: Callable[[float], float]) -> float:
  context, target = route.split("->")
  found = []
  for row in range(len(outputs.present[context])):
    if outputs.present[context][row] and outputs.present[target][row]:
      errors = outputs.predicted[route][row] - outputs.target[route][row]
      errors = errors[outputs.counted[route][row]]
      found += [distance(error) for error in errors.ravel().tolist()]
  return float(np.mean(found))


@pytest.mark.parametrize("name", DISTANCES)
def test_latent_is_the_mean_distance_over_routes_samples_tokens_and_width(
  outputs: Outputs, agrees: Callable[..., None], name: str
) -> None:
  def reference(params: dict[str, Any], outputs: Outputs) -> float:
    del params
    return float(np.mean([one_by_one(outputs, r, DISTANCES[name]) for r in outputs.predicted]))

  agrees(Latent(distance=name, beta=0.7), outputs, reference)


def test_chosen_routes_count_and_each_is_logged(outputs: Outputs) -> None:
  routes = ("radar->optical", "optical->optical")
  value, logged = jax.jit(Latent(routes=routes).loss)({}, outputs, jax.random.key(0))
  single = {r: one_by_one(outputs, r, DISTANCES["l2"]) for r in routes}
  assert logged.keys() == {f"route/{r}" for r in routes}
  for route, expected in single.items():
    np.testing.assert_allclose(logged[f"route/{route}"], expected, rtol=1e-5)
  np.testing.assert_allclose(value, np.mean(list(single.values())), rtol=1e-5)


def test_a_route_that_no_sample_has_does_not_pull_the_mean_down(outputs: Outputs) -> None:
  outputs.present["radar"] = jnp.zeros(len(outputs.present["radar"]), bool)
  value, logged = jax.jit(Latent().loss)({}, outputs, jax.random.key(0))
  assert logged["route/optical->radar"] == 0
  assert value == logged["route/optical->optical"] > 0


def test_a_route_that_the_model_lacks_is_refused_by_name(outputs: Outputs) -> None:
  with pytest.raises(ConfigError, match="routes names 'a->b'.*optical->radar"):
    Latent(routes=("a->b",)).loss({}, outputs, jax.random.key(0))


def test_equal_tokens_have_no_loss_and_no_gradient(outputs: Outputs) -> None:
  tokens = jnp.nan_to_num(jnp.asarray(outputs.target["optical->radar"]))
  for distance in DISTANCES:

    def loss(predicted: jax.Array, distance: str = distance) -> jax.Array:
      outputs.predicted["optical->radar"], outputs.target["optical->radar"] = predicted, tokens
      term = Latent(distance=distance, routes=("optical->radar",))
      return term.loss({}, outputs, jax.random.key(0))[0]

    value, gradient = jax.jit(jax.value_and_grad(loss))(tokens)
    assert value == 0 and not gradient.any()
