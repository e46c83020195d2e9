"""The written-out gradients are those that JAX derives from Flax's layers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import Array
from jax.test_util import check_grads

from xjepa_jax.model import layers

ROOT = Path(__file__).resolve().parents[2]
X = 3 + 2 * jax.random.normal(jax.random.key(0), (2, 3, 5, 8))


def gradients(call: Callable[..., Array], *arguments: Array) -> Any:
  weights = jax.random.normal(jax.random.key(9), call(*arguments).shape)

  def weighted(*arguments: Array) -> Array:
    return (call(*arguments) * weights).sum()

  return jax.grad(weighted, argnums=tuple(range(len(arguments))))(*arguments)


def close(found: Any, expected: Any) -> None:
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)


def test_linear_is_flax_linear() -> None:
  kernel, bias = jax.random.normal(jax.random.key(1), (8, 6)), jnp.arange(6.0)

  def called(kind: type[nnx.Linear]) -> Callable[..., Array]:
    def call(x: Array, kernel: Array, bias: Array) -> Array:
      module = kind(8, 6, dtype=jnp.float32, rngs=nnx.Rngs(0))
      nnx.update(module, {"kernel": kernel, "bias": bias})
      return module(x)

    return call

  ours, flax = called(layers.Linear), called(nnx.Linear)
  close(ours(X, kernel, bias), flax(X, kernel, bias))
  close(gradients(ours, X, kernel, bias), gradients(flax, X, kernel, bias))


def test_normalise_is_flax_layer_norm() -> None:
  scale, bias = 1 + jnp.arange(8.0), jnp.arange(8.0)

  def ours(x: Array, scale: Array, bias: Array) -> Array:
    return layers.normalise(x, scale, bias, 1e-6, jnp.float32)

  def flax(x: Array, scale: Array, bias: Array) -> Array:
    module = nnx.LayerNorm(8, rngs=nnx.Rngs(0))
    nnx.update(module, {"scale": scale, "bias": bias})
    return module(x)

  close(ours(X, scale, bias), flax(X, scale, bias))
  close(gradients(ours, X, scale, bias), gradients(flax, X, scale, bias))


def test_gradients_agree_with_differences_of_values() -> None:
  scale, bias = jnp.linspace(0.5, 2, 8), jnp.ones(8)
  check_grads(
    lambda *a: layers.normalise(*a, 1e-6, jnp.float32), (X, scale, bias), 1, ["rev"], eps=1e-2
  )
  kernel = jax.random.normal(jax.random.key(1), (8, 8))
  check_grads(layers.multiply, (X, kernel), 1, ["rev"], eps=1e-2)


def test_a_token_of_equal_numbers_becomes_the_bias_and_has_a_finite_gradient() -> None:
  x, scale, bias = jnp.full((1, 8), 7.0), jnp.ones(8), jnp.arange(8.0)
  np.testing.assert_array_equal(layers.normalise(x, scale, bias, 1e-6, jnp.float32), bias[None])
  found = gradients(lambda *a: layers.normalise(*a, 1e-6, jnp.float32), x, scale, bias)
  assert all(np.isfinite(each).all() for each in found)


@pytest.mark.parametrize("cpu", [True, False])
def test_layer_norm_is_flax_on_a_cpu_and_elsewhere(
  cpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(layers, "on_cpu", lambda: cpu)
  norm = layers.LayerNorm(8, dtype=jnp.float32, rngs=nnx.Rngs(0))
  close(norm(X), nnx.LayerNorm(8, rngs=nnx.Rngs(0))(X))
  assert set(nnx.to_pure_dict(nnx.state(norm))) == {"scale", "bias"}


def test_gradients_of_parameters_are_float32_sums_of_bfloat16_activations() -> None:
  x, given = (jax.random.normal(jax.random.key(n), (64, 32, 8), jnp.bfloat16) for n in (0, 1))
  unit = layers.normalise(x, jnp.ones(8), jnp.zeros(8), 1e-6, jnp.float32)
  linear = layers.Linear(8, 8, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
  norm = layers.LayerNorm(8, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
  rows, wanted = (np.asarray(each, np.float64).reshape(-1, 8) for each in (x, given))
  for layer, expected in (
    (linear, {"kernel": rows.T @ wanted, "bias": wanted.sum(0)}),
    (norm, {"scale": (np.asarray(unit).reshape(-1, 8) * wanted).sum(0), "bias": wanted.sum(0)}),
  ):
    definition, parameters = nnx.split(layer)
    found, pull = jax.vjp(lambda p, definition=definition: nnx.merge(definition, p)(x), parameters)
    assert found.dtype == jnp.bfloat16
    for name, gradient in nnx.to_pure_dict(pull(given)[0]).items():
      # bfloat16 has steps of 1 in 128: one rounding of a sum would be seen.
      np.testing.assert_allclose(gradient, expected[name], rtol=1e-4, atol=1e-3)


def test_on_one_device_linear_is_a_product_and_its_gradients_are_those_that_jax_derives() -> None:
  ended = subprocess.run(
    [sys.executable, "-m", "tests.model.layers_of_one_device"],
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert ended.returncode == 0, ended.stderr
  found = json.loads(ended.stdout)
  assert found["devices"] == 1
  assert max(found["value"], *found["gradients"]) < 1e-6
