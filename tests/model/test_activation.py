"""Activations are JAX's own, values and gradients, and keep one array for the backward pass."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xjepa_jax.model.activation import ACTIVATIONS, keeping_derivative

REFERENCES = {"gelu": jax.nn.gelu, "relu": jax.nn.relu, "silu": jax.nn.silu}
X = jnp.concatenate([jnp.linspace(-12, 12, 401), jnp.array([0.0, -0.0, 1e-30, 1e4, -1e4])])


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_values_and_gradients_are_those_of_jax(name: str) -> None:
  function, reference = ACTIVATIONS[name], REFERENCES[name]
  np.testing.assert_array_equal(function(X), reference(X))
  np.testing.assert_allclose(
    jax.grad(lambda x: function(x).sum())(X),
    jax.grad(lambda x: reference(x).sum())(X),
    rtol=1e-6,
    atol=1e-6,  # where gelu goes to 0, its derivative is a difference of two numbers near 1
  )


@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_forward_mode_and_second_derivatives_exist(name: str) -> None:
  function, reference = ACTIVATIONS[name], REFERENCES[name]
  for mode in (jax.jacfwd, jax.jacrev):
    found = jax.vmap(mode(jax.grad(function)))(X)
    np.testing.assert_allclose(found, jax.vmap(jax.grad(jax.grad(reference)))(X), atol=1e-5)


def test_a_gradient_in_bfloat16_is_bfloat16() -> None:
  x = X.astype(jnp.bfloat16)
  found = jax.grad(lambda x: ACTIVATIONS["gelu"](x).astype(jnp.float32).sum())(x)
  assert found.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    found.astype(jnp.float32), jax.vmap(jax.grad(jax.nn.gelu))(x.astype(jnp.float32)), atol=0.02
  )


def test_the_backward_pass_keeps_the_derivative_alone() -> None:
  _, pullback = jax.vjp(keeping_derivative(jax.nn.gelu), X)
  kept = [leaf for leaf in jax.tree.leaves(pullback) if getattr(leaf, "shape", None) == X.shape]
  assert len(kept) == 1
  np.testing.assert_allclose(kept[0], jax.vmap(jax.grad(jax.nn.gelu))(X), rtol=1e-6, atol=1e-6)
