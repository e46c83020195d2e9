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
from xjepa_jax.objective.vicreg import VICReg

Vectors = dict[tuple[int, int], np.ndarray]  # by sample and place


def vectors(outputs: Outputs, on: str, sensor: str) -> Vectors:
  """Those that are there: tokens, or cells; number j of cell c is j * cells + c of a descriptor."""
  found = {}
  for row in np.flatnonzero(outputs.present[sensor]).tolist():
    if on == "tokens":
      for place, token in zip(
        outputs.positions[sensor][row], outputs.tokens[sensor][row], strict=True
      ):
        found[row, int(place)] = token
    else:
      seen = outputs.seen[on][sensor][row]
      for cell in np.flatnonzero(seen).tolist():
        found[row, cell] = outputs.descriptors[on][sensor][row][cell :: len(seen)]
  return found


def spread(found: Vectors, deviation: float) -> tuple[float, float]:
  """Hinge and covariance of vectors less the mean of their place."""
  centred, freedom = [], 0
  for place in {place for _, place in found}:
    here = [vector for (_, other), vector in found.items() if other == place]
    centred += [vector - np.mean(here, axis=0) for vector in here]
    freedom += len(here) - 1
  cov = np.sum([np.outer(vector, vector) for vector in centred], axis=0) / freedom
  return parts(cov, deviation)


def spread_of_numbers(found: Vectors, deviation: float) -> tuple[float, float]:
  """The same of all numbers of a sample, two and two, each over the samples that have it."""
  numbers: dict[tuple[int, int], dict[int, float]] = {}
  for (row, cell), vector in found.items():
    for j, value in enumerate(vector):
      numbers.setdefault((j, cell), {})[row] = float(value)
  columns = [numbers[at] for at in sorted(numbers)]
  cov = np.zeros((len(columns), len(columns)))
  for (i, one), (j, other) in itertools.product(enumerate(columns), repeat=2):
    both = one.keys() & other.keys()
    m, n, k = len(one), len(other), len(both)
    means = np.mean([*one.values()]), np.mean([*other.values()])
    total = sum((one[row] - means[0]) * (other[row] - means[1]) for row in both)
    cov[i, j] = total / (k * (1 - 1 / m - 1 / n + k / (m * n))) if k > 1 else 0.0
  return parts(cov, deviation)


def parts(cov: np.ndarray, deviation: float) -> tuple[float, float]:
  width = len(cov)
  hinge = np.mean([max(0.0, deviation - np.sqrt(cov[j, j] + 1e-4)) for j in range(width)])
  pairs = itertools.permutations(range(width), 2)
  return float(hinge), sum(cov[i, j] ** 2 for i, j in pairs) / width


def definition(outputs: Outputs, on: str, over: str, weights: tuple[float, float, float]) -> float:
  fields = [vectors(outputs, on, sensor) for sensor in outputs.present]
  spreads = [(spread if over == "cells" else spread_of_numbers)(each, 1.3) for each in fields]
  gaps = [
    np.mean([(one[at] - other[at]) ** 2 for at in one.keys() & other.keys()])
    for one, other in itertools.combinations(fields, 2)
  ]
  variance, covariance = np.mean(spreads, axis=0)
  return weights[0] * variance + weights[1] * float(np.mean(gaps)) + weights[2] * covariance


@pytest.mark.parametrize("on, over", [("layout", "descriptor"), ("layout", "cells")])
def test_vicreg_is_its_three_parts_weighted_of_the_cells_that_were_seen(
  cells: Outputs, agrees: Callable[..., None], on: str, over: str
) -> None:
  check(cells, agrees, on, over)


def test_vicreg_of_tokens_is_over_positions(outputs: Outputs, agrees: Callable[..., None]) -> None:
  check(outputs, agrees, "tokens", "cells")


def check(outputs: Outputs, agrees: Callable[..., None], on: str, over: str) -> None:
  weights = (20.0, 10.0, 3.0)

  def reference(params: dict[str, Any], outputs: Outputs) -> float:
    del params
    return definition(outputs, on, over, weights)

  agrees(
    VICReg(
      on=on,
      variance=weights[0],
      invariance=weights[1],
      covariance=weights[2],
      deviation=1.3,
      over=over,
    ),
    outputs,
    reference,
  )


def test_covariances_of_numbers_that_are_missing_at_random_are_unbiased(outputs: Outputs) -> None:
  """The mean over many batches of the covariance is that of the samples' distribution."""
  rng = np.random.default_rng(11)
  mixing = rng.standard_normal((2, 2))
  found = []
  for _ in range(4000):
    z = rng.standard_normal((6, 2)) @ mixing + 5
    there = rng.random((6, 2)) < 0.7
    m, n, k = there[:, 0].sum(), there[:, 1].sum(), there.all(axis=1).sum()
    if k < 2:
      continue
    means = z[there[:, 0], 0].mean(), z[there[:, 1], 1].mean()
    total = ((z[:, 0] - means[0]) * (z[:, 1] - means[1]))[there.all(axis=1)].sum()
    found.append(total / (k * (1 - 1 / m - 1 / n + k / (m * n))))
  truth = (mixing.T @ mixing)[0, 1]
  assert abs(np.mean(found) - truth) < 4 * np.std(found) / np.sqrt(len(found))


def test_one_place_gives_what_numpy_calls_variance_and_covariance(outputs: Outputs) -> None:
  logged = jax.jit(VICReg(deviation=1.0).loss)({}, outputs, jax.random.key(0))[1]
  hinges, squares = [], []
  for sensor, present in outputs.present.items():
    cov = np.cov(outputs.descriptors["layout"][sensor][present].astype(np.float64).T)
    hinges.append(np.maximum(1 - np.sqrt(np.diag(cov) + 1e-4), 0).mean())
    squares.append(((cov - np.diag(np.diag(cov))) ** 2).sum() / len(cov))
  np.testing.assert_allclose(logged["variance"], np.mean(hinges), rtol=1e-5)
  np.testing.assert_allclose(logged["covariance"], np.mean(squares), rtol=1e-5)


def test_a_layout_that_is_alike_for_all_scenes_has_no_variance_over_cells(outputs: Outputs) -> None:
  by_cell: Any = np.random.default_rng(3).standard_normal(8).astype(np.float32) * 5
  for sensor in outputs.present:
    outputs.descriptors["layout"][sensor] = jnp.broadcast_to(by_cell, (16, 8))
  logged = jax.jit(VICReg(over="cells").loss)({}, outputs, jax.random.key(0))[1]
  np.testing.assert_allclose(logged["variance"], 1 - np.sqrt(1e-4), rtol=1e-5)


def test_cells_that_say_the_same_are_redundant_in_a_descriptor_and_not_over_cells(
  outputs: Outputs,
) -> None:
  rng = np.random.default_rng(3)
  for sensor in outputs.present:
    # Four independent numbers, alike in both cells.
    values: Any = np.repeat(rng.standard_normal((16, 4)), 2, axis=1).astype(np.float32)
    outputs.descriptors["layout"][sensor] = values
    outputs.present[sensor][:] = True
  whole, cells = (
    jax.jit(VICReg(over=over).loss)({}, outputs, jax.random.key(0))[1]["covariance"]
    for over in ("descriptor", "cells")
  )
  assert cells < 0.3 < 0.7 < whole


def test_over_is_one_of_two_words() -> None:
  with pytest.raises(ConfigError, match="'over' is 'grid'; allowed: descriptor, cells"):
    VICReg(over="grid")


def test_dimensions_that_spread_enough_are_left_alone(outputs: Outputs) -> None:
  logged = jax.jit(VICReg(deviation=0.1).loss)({}, outputs, jax.random.key(0))[1]
  assert logged["variance"] == 0


def test_tokens_that_tell_only_their_position_have_no_variance(outputs: Outputs) -> None:
  by_place: Any = np.random.default_rng(3).standard_normal((6, 6)).astype(np.float32) * 5
  for sensor in outputs.tokens:
    outputs.tokens[sensor] = by_place[outputs.positions[sensor]]
  logged = jax.jit(VICReg(on="tokens").loss)({}, outputs, jax.random.key(0))[1]
  np.testing.assert_allclose(logged["variance"], 1 - np.sqrt(1e-4), rtol=1e-5)
  np.testing.assert_allclose([logged["invariance"], logged["covariance"]], 0, atol=1e-9)


def test_a_sensor_of_one_sample_has_no_variance_and_is_left_out(outputs: Outputs) -> None:
  before = jax.jit(VICReg().loss)({}, outputs, jax.random.key(0))[1]
  outputs.present["fourth"] = jnp.arange(16) == 0
  outputs.descriptors["layout"]["fourth"] = jnp.ones((16, 8))
  outputs.seen["layout"]["fourth"] = jnp.ones((16, 2), bool)
  after = jax.jit(VICReg().loss)({}, outputs, jax.random.key(0))[1]
  for part in ("variance", "covariance"):
    np.testing.assert_allclose(after[part], before[part], rtol=1e-6)


def test_collapsed_descriptors_have_a_finite_gradient(outputs: Outputs) -> None:
  def loss(values: jax.Array) -> jax.Array:
    outputs.descriptors["layout"] = dict.fromkeys(outputs.present, values)
    return VICReg().loss({}, outputs, jax.random.key(0))[0]

  value, gradient = jax.jit(jax.value_and_grad(loss))(np.ones((16, 8), np.float32))
  np.testing.assert_allclose(value, 25 * (1 - np.sqrt(1e-4)), rtol=1e-5)
  assert np.isfinite(gradient).all()


def test_grids_that_differ_are_refused_on_tokens(outputs: Outputs) -> None:
  grid = dict(outputs.grid) | {"radar": (3, 2)}
  other = Outputs(**{**vars(outputs), "grid": grid})
  with pytest.raises(ConfigError, match="grids differ"):
    VICReg(on="tokens").loss({}, other, jax.random.key(0))
