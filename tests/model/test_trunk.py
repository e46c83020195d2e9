"""The trunk: layers against NumPy, one after the other; attention; how it is cut over devices."""

from __future__ import annotations

import collections
import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from tests.compiling import compiled
from tests.model import reference
from tests.model.reference import drawn
from xjepa_jax.model.attention import attend, attend_in_blocks
from xjepa_jax.model.trunk import ACTIVATIONS, Block, BlockSpec, Trunk
from xjepa_jax.model.xjepa import merge, split
from xjepa_jax.training.mesh import batch_sharding, make_mesh, parameter_shardings

WIDTH, HEADS, DEPTH = 16, 2, 3
RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 5, WIDTH)).astype(np.float32)
PLACES = RNG.uniform(0, 6, (2, 5, 2)).astype(np.float32)


def build(depth: int = DEPTH, **settings: Any) -> tuple[Any, Any]:
  spec = BlockSpec(WIDTH, HEADS, **settings)
  definition, shapes = split(nnx.eval_shape(lambda: Trunk(depth, spec, nnx.Rngs(0))))
  return definition, drawn(shapes)


def after(definition: Any, parameters: Any, x: Any, *what: Any) -> Any:
  return compiled(lambda p, x, *what: merge(definition, p)(x, *what), parameters, x, *what)


@pytest.mark.parametrize("places", [None, PLACES])
def test_a_scanned_trunk_is_its_layers_one_after_the_other(places: Any) -> None:
  definition, parameters = build()
  assert reference.depth(parameters["blocks"]) == DEPTH
  found = after(definition, parameters, X, *([] if places is None else [places]))
  exact = reference.wide(parameters["blocks"])
  for sample in range(2):
    at = None if places is None else places[sample].astype(np.float64)
    expected = reference.trunk(exact, X[sample].astype(np.float64), HEADS, places=at)
    np.testing.assert_allclose(found[sample], expected, rtol=1e-4, atol=1e-4)


def test_a_trunk_of_no_layers_changes_nothing_and_has_no_parameters() -> None:
  definition, parameters = build(0)
  assert parameters == {}
  np.testing.assert_array_equal(after(definition, parameters, X), X)


def test_neither_remat_nor_unrolling_changes_values_or_gradients() -> None:
  def gradients(**settings: Any) -> Any:
    definition, parameters = build(2, **settings)
    loss = jax.value_and_grad(lambda p, x: jnp.sin(merge(definition, p)(x)).sum())
    return compiled(loss, parameters, X)

  expected = gradients()
  for settings in ({"remat": "full"}, {"remat": "dots", "unroll": 9}, {"remat": "offload"}):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      gradients(**settings),
      expected,
    )


def test_what_is_offloaded_waits_in_the_host_s_memory() -> None:
  def program(remat: str) -> str:
    definition, parameters = build(2, remat=remat)
    return str(jax.make_jaxpr(jax.grad(lambda p: merge(definition, p)(X).sum()))(parameters))

  assert "<host>" in program("offload") and "<host>" not in program("full")


def test_layers_are_drawn_apart_each_as_if_it_stood_alone() -> None:
  spec = BlockSpec(64, 4)
  parameters = compiled(lambda key: split(Trunk(4, spec, nnx.Rngs(key)))[1], jax.random.key(0))
  kernel = np.asarray(parameters["blocks"]["mlp"]["up"]["kernel"])
  assert kernel.shape == (4, 64, 256) and kernel.dtype == np.float32
  limit = np.sqrt(6 / (64 + 256))  # Xavier's; a fan that counts the layers would shrink it
  for number in range(4):
    assert 0.99 * limit < np.abs(kernel[number]).max() <= limit
    assert not np.array_equal(kernel[number], kernel[number - 1])


def test_activations_are_those_named() -> None:
  functions = {
    "gelu": reference.gelu,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
  }
  assert ACTIVATIONS.keys() == functions.keys()
  for name, function in functions.items():
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(X)), function(X), atol=1e-5)


def test_bfloat16_is_for_products_only() -> None:
  definition, parameters = build(dtype=jnp.bfloat16)
  assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(parameters))

  def loss(parameters: Any, x: Any) -> Any:
    found = merge(definition, parameters)(x)
    assert found.dtype == jnp.bfloat16
    return found.astype(jnp.float32).sum()

  gradients = jax.eval_shape(jax.grad(loss), parameters, X.astype(jnp.bfloat16))
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradients))


def test_attention_is_the_softmax_of_scaled_products() -> None:
  queries, keys, values = RNG.standard_normal((3, 2, 7, HEADS, 8)).astype(np.float32)
  found = compiled(attend, queries[:, :5], keys, values)
  for sample, head in itertools.product(range(2), range(HEADS)):
    q, k, v = (each[sample, :, head].astype(np.float64) for each in (queries, keys, values))
    expected = reference.softmax_attention(q[:5], k, v)
    np.testing.assert_allclose(found[sample, :, head], expected, atol=1e-5)


def test_gradients_of_attention_agree_with_differences_of_values() -> None:
  tokens = tuple(RNG.standard_normal((3, 2, 4, HEADS, 8)).astype(np.float32))
  check_grads(attend, tokens, 1, ["rev"], eps=1e-2)
  check_grads(lambda q, k, v: attend_in_blocks(q, k, v, 1, 2), tokens, 1, ["rev"], eps=1e-2)


def test_logits_are_not_rounded_to_bfloat16() -> None:
  # Two keys whose logits, 64 and 64.125, are one number in bfloat16.
  q = jnp.full((1, 1, 1, 64), 8.0, jnp.bfloat16)
  k = jnp.ones((1, 2, 1, 64), jnp.bfloat16).at[0, 1, 0, :2].set(1.0625)
  v = jnp.zeros((1, 2, 1, 64), jnp.bfloat16).at[0, 1].set(1)
  share = compiled(attend, q, k, v).astype(np.float32)
  np.testing.assert_allclose(share, 1 / (1 + np.exp(-0.125)), rtol=0.004)


def test_the_softmax_is_taken_in_float32() -> None:
  # 300 equal keys: a bfloat16 sum of 300 terms would stop at 256.
  ones = np.ones((1, 300, 1, 4), jnp.bfloat16)
  found = compiled(lambda q, k: attend(q, k, k), ones[:, :1], ones)
  assert found.dtype == jnp.bfloat16
  np.testing.assert_allclose(found.astype(np.float32), 1.0, atol=0.005)


def collectives(function: Any, *args: Any) -> dict[str, int]:
  kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
  text = function.lower(*args).compile().as_text()
  return dict(collections.Counter(re.findall(rf"({kinds})(?:-start)?\(", text)))


def test_a_layer_cut_along_tensor_needs_two_sums_forward_and_four_in_all() -> None:
  mesh = make_mesh(1, 1, 2, devices=jax.devices()[:2])
  definition, parameters = split(nnx.eval_shape(lambda: Block(BlockSpec(16, 4), nnx.Rngs(0))))
  shardings, batch = parameter_shardings(mesh, parameters), batch_sharding(mesh)
  x = jax.ShapeDtypeStruct((2, 3, 16), jnp.float32)

  def forward(parameters: Any, x: Any) -> Any:
    return merge(definition, parameters)(x)

  forwards = jax.jit(forward, in_shardings=(shardings, batch), out_shardings=batch)
  assert collectives(forwards, parameters, x) == {"all-reduce": 2}
  backwards = jax.jit(
    jax.grad(lambda p, x: jnp.square(forward(p, x)).sum(), argnums=(0, 1)),
    in_shardings=(shardings, batch),
    out_shardings=(shardings, batch),
  )
  assert collectives(backwards, parameters, x) == {"all-reduce": 4}
