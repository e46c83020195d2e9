"""VICReg against its definition, on descriptors and on tokens that are centred per position."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xjepa_jax.errors import ConfigError
from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.vicreg import vicreg


def vectors(outputs: Outputs, on: str, sensor: str) -> dict[tuple[int, int], np.ndarray]:
  """(sample, place) -> vector, of those that are there."""
  found = {}
  for row in np.flatnonzero(outputs.present[sensor]).tolist():
    if on == "tokens":
      for place, token in zip(
        outputs.positions[sensor][row], outputs.tokens[sensor][row], strict=True
      ):
        found[row, int(place)] = token
    else:
      found[row, 0] = outputs.descriptors[on][sensor][row]
  return found


def spread(found: dict[tuple[int, int], np.ndarray], deviation: float) -> tuple[float, float]:
  """Hinge and covariance of vectors less the mean of their place."""
  centred, freedom = [], 0
  for place in {place for _, place in found}:
    here = [vector for (_, other), vector in found.items() if other == place]
    centred += [vector - np.mean(here, axis=0) for vector in here]
    freedom += len(here) - 1
  width = len(centred[0])
  cov = np.sum([np.outer(vector, vector) for vector in centred], axis=0) / freedom
  hinge = np.mean([max(0.0, deviation - np.sqrt(cov[j, j] + 1e-4)) for j in range(width)])
  pairs = itertools.permutations(range(width), 2)
  return float(hinge), sum(cov[i, j] ** 2 for i, j in pairs) / width


def definition(outputs: Outputs, on: str, weights: tuple[float, float, float]) -> float:
  fields = [vectors(outputs, on, sensor) for sensor in outputs.present]
  spreads = [spread(found, 1.3) for found in fields]
  gaps = [
    np.mean([(one[at] - other[at]) ** 2 for at in one.keys() & other.keys()])
    for one, other in itertools.combinations(fields, 2)
  ]
  variance, covariance = np.mean(spreads, axis=0)
  return weights[0] * variance + weights[1] * float(np.mean(gaps)) + weights[2] * covariance


@pytest.mark.parametrize("on", ["layout", "tokens"])
def test_vicreg_is_its_three_parts_weighted(
  outputs: Outputs, agrees: Callable[..., None], on: str
) -> None:
  weights = (20.0, 10.0, 3.0)

  def reference(params: dict[str, Any], outputs: Outputs) -> float:
    del params
    return definition(outputs, on, weights)

  agrees(vicreg(on, *weights, deviation=1.3), outputs, reference)


def test_one_place_gives_what_numpy_calls_variance_and_covariance(outputs: Outputs) -> None:
  logged = jax.jit(vicreg(deviation=1.0).loss)({}, outputs, jax.random.key(0))[1]
  hinges, squares = [], []
  for sensor, present in outputs.present.items():
    cov = np.cov(outputs.descriptors["layout"][sensor][present].astype(np.float64).T)
    hinges.append(np.maximum(1 - np.sqrt(np.diag(cov) + 1e-4), 0).mean())
    squares.append(((cov - np.diag(np.diag(cov))) ** 2).sum() / len(cov))
  np.testing.assert_allclose(logged["variance"], np.mean(hinges), rtol=1e-5)
  np.testing.assert_allclose(logged["covariance"], np.mean(squares), rtol=1e-5)


def test_dimensions_that_spread_enough_are_left_alone(outputs: Outputs) -> None:
  logged = jax.jit(vicreg(deviation=0.1).loss)({}, outputs, jax.random.key(0))[1]
  assert logged["variance"] == 0


def test_tokens_that_tell_only_their_position_have_no_variance(outputs: Outputs) -> None:
  by_place: Any = np.random.default_rng(3).standard_normal((6, 6)).astype(np.float32) * 5
  for sensor in outputs.tokens:
    outputs.tokens[sensor] = by_place[outputs.positions[sensor]]
  logged = jax.jit(vicreg("tokens").loss)({}, outputs, jax.random.key(0))[1]
  np.testing.assert_allclose(logged["variance"], 1 - np.sqrt(1e-4), rtol=1e-5)
  np.testing.assert_allclose([logged["invariance"], logged["covariance"]], 0, atol=1e-9)


def test_a_sensor_of_one_sample_has_no_variance_and_is_left_out(outputs: Outputs) -> None:
  before = jax.jit(vicreg().loss)({}, outputs, jax.random.key(0))[1]
  outputs.present["fourth"] = jnp.arange(16) == 0
  outputs.descriptors["layout"]["fourth"] = jnp.ones((16, 8))
  after = jax.jit(vicreg().loss)({}, outputs, jax.random.key(0))[1]
  for part in ("variance", "covariance"):
    np.testing.assert_allclose(after[part], before[part], rtol=1e-6)


def test_collapsed_descriptors_have_a_finite_gradient(outputs: Outputs) -> None:
  def loss(values: jax.Array) -> jax.Array:
    outputs.descriptors["layout"] = dict.fromkeys(outputs.present, values)
    return vicreg().loss({}, outputs, jax.random.key(0))[0]

  value, gradient = jax.jit(jax.value_and_grad(loss))(np.ones((16, 8), np.float32))
  np.testing.assert_allclose(value, 25 * (1 - np.sqrt(1e-4)), rtol=1e-5)
  assert np.isfinite(gradient).all()


def test_grids_that_differ_are_refused_on_tokens(outputs: Outputs) -> None:
  grid = dict(outputs.grid) | {"radar": (3, 2)}
  other = Outputs(**{**vars(outputs), "grid": grid})
  with pytest.raises(ConfigError, match="grids differ"):
    vicreg("tokens").loss({}, other, jax.random.key(0))
