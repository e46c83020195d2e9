"""Predictors against NumPy, and the claim that the context is processed once for all."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.compiling import compiled
from tests.model import reference
from tests.model.reference import drawn
from xjepa_jax.config import PredictorConfig
from xjepa_jax.errors import ConfigError
from xjepa_jax.model.positions import coordinates
from xjepa_jax.model.predictor import PREDICTORS, predictor_spec
from xjepa_jax.model.trunk import Block, BlockSpec, Trunk
from xjepa_jax.model.xjepa import merge, split

GRID, WIDE, WIDTH, HEADS, DEPTH = (4, 5), 12, 8, 2, 2
SPEC = BlockSpec(WIDTH, HEADS)
RNG = np.random.default_rng(0)
TOKENS = RNG.standard_normal((2, 6, WIDE)).astype(np.float32)
PLACES = np.stack([np.sort(RNG.permutation(20)[:6]) for _ in range(2)]).astype(np.int32)
BLOCKS = RNG.integers(0, 20, (2, 3, 4)).astype(np.int32)  # 3 blocks of 4, which may overlap
TARGETS = ("radar", "optical")


def build(kind: str, dtype: Any = jnp.float32) -> tuple[Any, Any]:
  config, spec = PredictorConfig(kind, depth=DEPTH, queries=5), BlockSpec(WIDTH, HEADS, dtype=dtype)
  module = nnx.eval_shape(
    lambda: PREDICTORS[kind](config, spec, WIDE, ("optical", "radar"), GRID, nnx.Rngs(0))
  )
  definition, shapes = split(module)
  return definition, drawn(shapes)


def predicted(
  definition: Any, parameters: Any, blocks: Any = BLOCKS, targets: Any = TARGETS
) -> Any:
  def predict(parameters: Any, *args: Any) -> Any:
    return merge(definition, parameters)(*args, targets)

  return compiled(predict, parameters, TOKENS, PLACES, blocks)


def entered(p: Any, sample: int) -> tuple[Any, Any]:
  """Context tokens and, a target sensor after the other, queries of one sample."""
  p = p["embedding"]
  table = reference.sincos(coordinates(GRID), WIDTH)
  context = reference.linear(p["enter_tokens"], TOKENS[sample]) + table[PLACES[sample]]
  asked = [p["mask_token"] + p["sensor_tags"][t] + table[BLOCKS[sample].ravel()] for t in TARGETS]
  return context, np.concatenate(asked)


def left(p: Any, x: Any) -> Any:
  p = p["embedding"]
  return reference.linear(p["leave"], reference.layer_norm(p["norm"], x))


def test_the_narrow_kind_is_a_transformer_in_which_a_query_sees_the_context_and_its_block() -> None:
  definition, parameters = build("narrow")
  found = predicted(definition, parameters)
  assert [each.shape for each in found] == [(2, 12, WIDE)] * 2
  exact = reference.wide(parameters)
  # 0 is the context; each block of each target sensor is a group of its own.
  group = np.concatenate([np.zeros(6), 1 + np.repeat(np.arange(6), 4)])
  allowed = (group[None, :] == 0) | (group[:, None] == group[None, :])
  for sample in range(2):
    x = np.concatenate(entered(exact, sample))
    expected = left(exact, reference.trunk(exact["trunk"]["blocks"], x, HEADS, allowed)[6:])
    np.testing.assert_allclose(found[0][sample], expected[:12], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[1][sample], expected[12:], rtol=1e-4, atol=1e-4)


def test_the_kind_queries_gathers_the_context_and_looks_at_both() -> None:
  definition, parameters = build("queries")
  found = predicted(definition, parameters)
  exact = reference.wide(parameters)
  cross = exact["cross"]
  for sample in range(2):
    context, asked = entered(exact, sample)
    memory = np.concatenate([exact["shared_queries"], context])
    memory = reference.trunk(exact["trunk"]["blocks"], memory, HEADS)
    normed = reference.layer_norm(cross["norm1"], asked)
    memory = reference.layer_norm(cross["norm_memory"], memory)
    x = asked + reference.attention(cross["attention"], normed, memory, HEADS)
    x = x + reference.mlp(cross["mlp"], reference.layer_norm(cross["norm2"], x))
    expected = left(exact, x)
    np.testing.assert_allclose(found[0][sample], expected[:12], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[1][sample], expected[12:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", PREDICTORS)
def test_a_block_s_prediction_depends_neither_on_other_blocks_nor_on_other_sensors(
  kind: str,
) -> None:
  definition, parameters = build(kind)
  together = predicted(definition, parameters)
  alone = predicted(definition, parameters, BLOCKS[:, 1:2], ("optical",))
  np.testing.assert_allclose(alone[0], together[1][:, 4:8], atol=1e-5)


def test_the_context_is_processed_as_if_nothing_were_asked() -> None:
  definition, parameters = build("narrow")
  x = RNG.standard_normal((2, 6 + 12, WIDTH)).astype(np.float32)
  plain = split(nnx.eval_shape(lambda: Trunk(DEPTH, SPEC, nnx.Rngs(0), layer=Block)))[0]

  def both(parameters: Any, x: Any) -> Any:
    asked = merge(definition, parameters).trunk(x, (3, 4))
    return asked[:, :6], merge(plain, parameters["trunk"])(x[:, :6])

  beside, alone = compiled(both, parameters, x)
  np.testing.assert_allclose(beside, alone, atol=1e-5)


def test_within_a_narrow_block_queries_know_of_each_other_and_of_their_sensor() -> None:
  definition, parameters = build("narrow")
  together = predicted(definition, parameters)
  other = BLOCKS.copy()
  other[:, 0, 3] = (other[:, 0, 3] + 7) % 20
  moved = predicted(definition, parameters, other)
  assert np.abs(moved[0][:, :3] - together[0][:, :3]).min(axis=-1).max() > 1e-4
  np.testing.assert_allclose(moved[0][:, 4:], together[0][:, 4:], atol=1e-5)
  assert np.abs(together[0] - together[1]).max() > 1e-2


@pytest.mark.parametrize("kind", PREDICTORS)
def test_its_parameters_are_float32_whatever_it_computes_in(kind: str) -> None:
  definition, parameters = build(kind, jnp.bfloat16)
  assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(parameters))
  found = jax.eval_shape(
    lambda p: merge(definition, p)(TOKENS.astype(jnp.bfloat16), PLACES, BLOCKS, TARGETS),
    parameters,
  )
  assert {each.dtype for each in found} == {jnp.dtype(jnp.bfloat16)}


def test_its_width_is_half_the_encoder_s_and_divides_into_heads() -> None:
  tiny = BlockSpec(192, 3, attention="cudnn")
  spec = predictor_spec(PredictorConfig(), tiny)
  assert (spec.width, spec.heads, spec.attention) == (96, 3, "xla")
  assert predictor_spec(PredictorConfig(width=64, attention_heads=4), tiny).heads == 4
  for width, heads in ((62, 2), (64, 3)):
    with pytest.raises(ConfigError, match=rf"'predictor\.width' is {width}.*{heads} predictor"):
      predictor_spec(PredictorConfig(width=width, attention_heads=heads), tiny)
