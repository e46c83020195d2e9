"""Prediction Space Alignment against its definition, with the metric spelled out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xjepa_jax.errors import ConfigError
from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.psa import psa

WIDTH = 6


def metric(factor: np.ndarray, floor: float) -> np.ndarray:
  product = factor @ factor.T
  return (1 - floor) * len(factor) * product / np.trace(product) + floor * np.eye(len(factor))


def reference(params: dict[str, Any], outputs: Outputs) -> float:
  matrix = metric(params["factor"], 0.2)
  means = []
  for route in outputs.predicted:
    context, target = route.split("->")
    lengths = []
    for row in range(len(outputs.present[context])):
      if outputs.present[context][row] and outputs.present[target][row]:
        for error in outputs.predicted[route][row] - outputs.target[route][row]:
          lengths.append(np.sqrt(error @ matrix @ error))
    means.append(np.mean(lengths))
  return float(np.mean(means))


def test_psa_is_the_mean_length_of_the_error_under_the_metric(
  outputs: Outputs, agrees: Callable[..., None]
) -> None:
  factor = np.random.default_rng(2).standard_normal((WIDTH, WIDTH)).astype(np.float32)
  agrees(psa(width=WIDTH, floor=0.2), outputs, reference, {"factor": factor})


def test_the_metric_is_the_identity_at_first(outputs: Outputs) -> None:
  term = psa(width=WIDTH)
  value, logged = jax.jit(term.loss)(term.init(jax.random.key(0)), outputs, jax.random.key(0))
  lengths = []
  for route in outputs.predicted:
    errors = np.linalg.norm(outputs.predicted[route] - outputs.target[route], axis=-1)
    lengths.append(np.nanmean(errors))
  np.testing.assert_allclose(value, np.mean(lengths), rtol=1e-5)
  assert logged["eigenvalue_std"] < 1e-6


def test_the_metric_cannot_shrink_and_gives_no_direction_up(outputs: Outputs) -> None:
  factor = np.zeros((WIDTH, WIDTH), np.float32)
  factor[0, 0] = 1.0  # All weight on the first direction, as far as it goes.
  loss = jax.jit(psa(width=WIDTH, floor=0.1).loss)
  results = [
    loss({"factor": scale * factor}, outputs, jax.random.key(0)) for scale in (1.0, 1e-3, 1e3)
  ]
  np.testing.assert_allclose([value for value, _ in results], results[0][0], rtol=1e-5)
  eigenvalues = np.linalg.eigvalsh(metric(factor, 0.1))
  np.testing.assert_allclose(eigenvalues.min(), 0.1)
  for _, logged in results:
    np.testing.assert_allclose(logged["eigenvalue_std"], eigenvalues.std(), rtol=1e-5)


def test_perfect_predictions_have_a_gradient_of_zero_and_not_nan(outputs: Outputs) -> None:
  tokens = jnp.nan_to_num(jnp.asarray(outputs.target["optical->radar"]))
  outputs.target["optical->radar"] = tokens

  def loss(factor: jax.Array, predicted: jax.Array) -> jax.Array:
    outputs.predicted["optical->radar"] = predicted
    term = psa(width=WIDTH, routes=["optical->radar"])
    return term.loss({"factor": factor}, outputs, jax.random.key(0))[0]

  value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(jnp.eye(WIDTH), tokens)
  assert value == 0 and not any(gradient.any() for gradient in gradients)


def test_another_width_than_the_tokens_is_refused(outputs: Outputs) -> None:
  term = psa(width=5)
  with pytest.raises(ConfigError, match="width is 5; predicted tokens have 6"):
    term.loss(term.init(jax.random.key(0)), outputs, jax.random.key(0))
