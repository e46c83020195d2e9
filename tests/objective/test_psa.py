"""Prediction Space Alignment against NumPy's determinants, inverses and eigenvalues."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xjepa_jax.errors import ConfigError
from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.latent import Latent
from xjepa_jax.objective.psa import PSA

WIDTH, FLOOR = 6, 0.2


def errors(outputs: Outputs, route: str) -> np.ndarray:
  """(n, D) float64, of the samples that have both sensors."""
  context, target = route.split("->")
  both = np.asarray(outputs.present[context] & outputs.present[target])
  both = both[:, None] & outputs.counted[route]
  predicted, truth = (np.asarray(each[route]) for each in (outputs.predicted, outputs.target))
  return (predicted[both].astype(np.float64) - truth[both]).reshape(-1, WIDTH)


def shrunk(found: np.ndarray, floor: float) -> np.ndarray:
  products = found.T @ found / len(found)
  return (1 - floor) * products + floor * np.trace(products) / WIDTH * np.eye(WIDTH)


def reference(params: dict[str, Any], outputs: Outputs) -> float:
  del params
  eigenvalues = [np.linalg.eigvalsh(shrunk(errors(outputs, r), FLOOR)) for r in outputs.predicted]
  return float(np.mean([np.exp(np.mean(np.log(each))) for each in eigenvalues]))


def alone(outputs: Outputs, error: Any) -> Outputs:
  """Outputs of one route, all of whose samples are there, with these (B, M, D) errors."""
  route = "optical->optical"
  target = jnp.ones_like(error)
  return dataclasses.replace(
    outputs,
    predicted={route: target + error},
    target={route: target},
    counted={route: jnp.ones(error.shape[:2], bool)},
    present={sensor: jnp.ones(len(error), bool) for sensor in outputs.present},
  )


def evaluated(outputs: Outputs, error: Any, floor: float = FLOOR) -> tuple[float, np.ndarray]:
  """The loss of one route, and its gradient at the errors."""

  def loss(error: jax.Array) -> jax.Array:
    return PSA(floor=floor).loss({}, alone(outputs, error), jax.random.key(0))[0]

  value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(error, jnp.float32))
  return float(value), np.asarray(gradient, np.float64)


def drawn(scales: Any, tokens: int = 40) -> np.ndarray:
  """(16, tokens, D) independent errors, with a deviation a direction."""
  rng = np.random.default_rng(2)
  return rng.standard_normal((16, tokens, WIDTH)) * np.asarray(scales)


def test_psa_is_the_geometric_mean_of_the_error_s_variances(
  outputs: Outputs, agrees: Callable[..., None]
) -> None:
  agrees(PSA(floor=FLOOR), outputs, reference)


def test_it_is_the_least_mean_square_under_any_metric_of_determinant_1(outputs: Outputs) -> None:
  error = drawn([3, 1, 1, 0.5, 0.2, 0.1])
  value, _ = evaluated(outputs, error, floor=1e-6)
  flat = error.reshape(-1, WIDTH)

  def mean_square(metric: np.ndarray) -> float:
    metric = metric / np.linalg.det(metric) ** (1 / WIDTH)
    return float(np.einsum("nd,de,ne->", flat, metric, flat) / len(flat) / WIDTH)

  inverse = np.linalg.inv(flat.T @ flat / len(flat))
  assert value == pytest.approx(mean_square(inverse), rel=1e-4)
  rng = np.random.default_rng(3)
  for size in (0.01, 0.1, 1.0):
    turned = np.eye(WIDTH) + size * rng.standard_normal((WIDTH, WIDTH))
    assert mean_square(turned @ inverse @ turned.T) >= value * (1 - 1e-4)


def test_its_gradient_is_that_of_a_mahalanobis_distance(outputs: Outputs) -> None:
  error = drawn([3, 1, 1, 0.5, 0.2, 0.1], tokens=5)
  value, gradient = evaluated(outputs, error)
  flat = error.reshape(-1, WIDTH)
  inverse = np.linalg.inv(shrunk(flat, FLOOR))
  size = np.exp(np.linalg.slogdet(shrunk(flat, FLOOR))[1] / WIDTH)
  even = FLOOR * np.trace(inverse) / WIDTH * np.eye(WIDTH)
  metric = size * ((1 - FLOOR) * inverse + even)
  assert value == pytest.approx(size, rel=1e-5)
  expected = 2 * flat @ metric / len(flat) / WIDTH
  np.testing.assert_allclose(gradient.reshape(-1, WIDTH), expected, rtol=1e-3, atol=1e-7)
  # Descent along it is worth the loss itself: it is a square.
  assert (gradient * error).sum() == pytest.approx(2 * value, rel=1e-5)


def test_what_is_predicted_worst_is_not_given_up_for_what_is_predicted_best(
  outputs: Outputs,
) -> None:
  """A per cent off the error of any direction is worth about the same, however large it is."""
  error = drawn([4, 2, 1, 1, 0.5, 0.25])
  _, gradient = evaluated(outputs, error, floor=1e-4)
  worth = (gradient * error).sum(axis=(0, 1))
  np.testing.assert_allclose(worth / worth.mean(), 1, atol=0.05)
  # Under a fixed trace, the best metric has all of its weight on the last direction.
  flat = error.reshape(-1, WIDTH)
  eigenvectors = np.linalg.eigh(flat.T @ flat)[1]
  assert abs(eigenvectors[-1, 0]) > 0.99


def test_a_direction_without_an_error_neither_ends_the_loss_nor_takes_all_of_the_weight(
  outputs: Outputs,
) -> None:
  error = drawn([1, 1, 1, 1, 1, 1])
  before, _ = evaluated(outputs, error)
  error[..., 0] *= 1e-6
  value, gradient = evaluated(outputs, error)
  assert 0.5 * before < value < before
  weight = np.abs(gradient / error).mean(axis=(0, 1))
  assert weight[0] < 2 / FLOOR * weight[1:].min()


def test_an_error_that_is_alike_in_all_directions_has_the_latent_loss(outputs: Outputs) -> None:
  rng = np.random.default_rng(4)
  turns = np.linalg.qr(rng.standard_normal((16, WIDTH, WIDTH)))[0]  # each orthonormal
  value, _ = evaluated(outputs, 0.3 * turns)
  assert value == pytest.approx(0.3**2 / WIDTH, rel=1e-5)
  uneven = drawn([3, 1, 1, 0.5, 0.2, 0.1])
  plain = alone(outputs, jnp.asarray(uneven, jnp.float32))
  expected = float(Latent().loss({}, plain, jax.random.key(0))[0])
  assert evaluated(outputs, uneven, floor=1.0)[0] == pytest.approx(expected, rel=1e-5)


def test_its_value_does_not_depend_on_the_directions_that_the_numbers_are_given_in(
  outputs: Outputs,
) -> None:
  error = drawn([3, 1, 1, 0.5, 0.2, 0.1])
  turn = np.linalg.qr(np.random.default_rng(5).standard_normal((WIDTH, WIDTH)))[0]
  value, gradient = evaluated(outputs, error)
  turned, turned_gradient = evaluated(outputs, error @ turn)
  assert turned == pytest.approx(value, rel=1e-5)
  np.testing.assert_allclose(turned_gradient, gradient @ turn, rtol=1e-3, atol=1e-7)


def test_it_says_how_even_the_error_is(outputs: Outputs) -> None:
  value, logged = jax.jit(PSA(floor=FLOOR).loss)({}, outputs, jax.random.key(0))
  for route in outputs.predicted:
    found = errors(outputs, route)
    evenness = logged[f"route/{route}"] / np.mean(found**2)
    np.testing.assert_allclose(logged[f"evenness/{route}"], evenness, rtol=1e-5)
  assert value == pytest.approx(np.mean([logged[f"route/{r}"] for r in outputs.predicted]))


@pytest.mark.parametrize("size", [0.0, 1e-12, 1e6])
def test_perfect_and_bad_predictions_have_a_finite_gradient(outputs: Outputs, size: float) -> None:
  value, gradient = evaluated(outputs, size * drawn(np.ones(WIDTH)))
  assert np.isfinite(value) and np.isfinite(gradient).all()
  assert gradient.any() == (size > 0)


def test_fewer_tokens_than_directions_still_have_a_loss(outputs: Outputs) -> None:
  error = np.zeros((16, 1, WIDTH))
  error[0, 0] = [1, 2, 3, 4, 5, 6]
  value, gradient = evaluated(outputs, error)
  expected = np.exp(np.linalg.slogdet(shrunk(error.reshape(-1, WIDTH), FLOOR))[1] / WIDTH)
  assert value == pytest.approx(expected, rel=1e-5)
  # Nothing but less of the one error there is can be asked for.
  along = gradient[0, 0] / error[0, 0]
  np.testing.assert_allclose(along, along[0], rtol=1e-4)


def test_a_floor_that_cannot_be_is_refused() -> None:
  for floor in (0.0, 1.5, -1.0):
    with pytest.raises(ConfigError, match="'floor' is"):
      PSA(floor=floor)
