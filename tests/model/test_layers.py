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


def test_project_is_flax_linear() -> None:
  kernel, bias = jax.random.normal(jax.random.key(1), (8, 6)), jnp.arange(6.0)

  def flax(x: Array, kernel: Array, bias: Array) -> Array:
    module = nnx.Linear(8, 6, rngs=nnx.Rngs(0))
    nnx.update(module, {"kernel": kernel, "bias": bias})
    return module(x)

  close(layers.project(X, kernel, bias), flax(X, kernel, bias))
  close(gradients(layers.project, X, kernel, bias), gradients(flax, X, kernel, bias))


def test_normalise_is_flax_layer_norm() -> None:
  scale, bias = 1 + jnp.arange(8.0), jnp.arange(8.0)

  def ours(x: Array, scale: Array, bias: Array) -> Array:
    return layers.normalise(x, scale, bias, 1e-6)

  def flax(x: Array, scale: Array, bias: Array) -> Array:
    module = nnx.LayerNorm(8, rngs=nnx.Rngs(0))
    nnx.update(module, {"scale": scale, "bias": bias})
    return module(x)

  close(ours(X, scale, bias), flax(X, scale, bias))
  close(gradients(ours, X, scale, bias), gradients(flax, X, scale, bias))


def test_gradients_agree_with_differences_of_values() -> None:
  scale, bias = jnp.linspace(0.5, 2, 8), jnp.ones(8)
  check_grads(lambda *a: layers.normalise(*a, 1e-6), (X, scale, bias), 1, ["rev"], eps=1e-2)
  kernel = jax.random.normal(jax.random.key(1), (8, 8))
  check_grads(layers.project, (X, kernel, bias), 1, ["rev"], eps=1e-2)


def test_a_token_of_equal_numbers_becomes_the_bias_and_has_a_finite_gradient() -> None:
  x, scale, bias = jnp.full((1, 8), 7.0), jnp.ones(8), jnp.arange(8.0)
  np.testing.assert_array_equal(layers.normalise(x, scale, bias, 1e-6), bias[None])
  found = gradients(lambda *a: layers.normalise(*a, 1e-6), x, scale, bias)
  assert all(np.isfinite(each).all() for each in found)


@pytest.mark.parametrize("cpu", [True, False])
def test_layers_give_the_same_with_and_without_written_gradients(
  cpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(layers, "on_cpu", lambda: cpu)
  monkeypatch.setattr(jax, "device_count", lambda: 1)
  linear = layers.Linear(8, 6, dtype=jnp.float32, rngs=nnx.Rngs(0))
  norm = layers.LayerNorm(8, dtype=jnp.float32, rngs=nnx.Rngs(0))
  plain = nnx.Linear(8, 6, rngs=nnx.Rngs(0)), nnx.LayerNorm(8, rngs=nnx.Rngs(0))
  close(linear(X), plain[0](X))
  close(norm(X), plain[1](X))
  assert set(nnx.to_pure_dict(nnx.state(norm))) == {"scale", "bias"}


def test_bfloat16_goes_flax_way() -> None:
  linear = layers.Linear(8, 6, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
  norm = layers.LayerNorm(8, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
  assert linear(X).dtype == norm(X).dtype == jnp.bfloat16


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
  assert found["devices"] == 1 and found["written"] == [[2, 3, 5, 8]]
  assert max(found["value"], *found["gradients"]) < 1e-6
