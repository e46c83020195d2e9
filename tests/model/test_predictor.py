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
from xjepa_jax.model.presets import SIZES
from xjepa_jax.model.trunk import Block, BlockSpec, Trunk
from xjepa_jax.model.xjepa import merge, split

GRID, WIDE, WIDTH, HEADS, DEPTH = (4, 5), 12, 8, 2, 2
SPEC = BlockSpec(WIDTH, HEADS)
RNG = np.random.default_rng(0)
CONTEXTS = ("optical", "radar", "optical")
TOKENS = RNG.standard_normal((3, 2, 6, WIDE)).astype(np.float32)
PLACES = np.stack([np.sort(RNG.permutation(20)[:6]) for _ in range(6)]).astype(np.int32)
PLACES = PLACES.reshape(3, 2, 6)
# 3 blocks of 4 a sensor, which may overlap.
BLOCKS = {key: RNG.integers(0, 20, (2, 3, 4)).astype(np.int32) for key in ("radar", "optical")}


def build(
  kind: str, dtype: Any = jnp.float32, told: bool = False, leaving: int = WIDE
) -> tuple[Any, Any]:
  config = PredictorConfig(kind, depth=DEPTH, queries=5, told=told)
  spec = BlockSpec(WIDTH, HEADS, dtype=dtype)
  module = nnx.eval_shape(
    lambda: PREDICTORS[kind](config, spec, WIDE, leaving, ("optical", "radar"), GRID, nnx.Rngs(0))
  )
  definition, shapes = split(module)
  return definition, drawn(shapes)


def predicted(definition: Any, parameters: Any, blocks: Any = BLOCKS, at: Any = slice(None)) -> Any:
  """Of all contexts, or of those at some numbers."""

  def predict(parameters: Any, *args: Any) -> Any:
    # The blocks go by position: a jitted function would sort a dict.
    asked = dict(zip(blocks, args[2:], strict=True))
    return merge(definition, parameters)(*args[:2], CONTEXTS[at], asked)

  return compiled(predict, parameters, TOKENS[at], PLACES[at], *blocks.values())


def entered(p: Any, context: int, sample: int) -> tuple[Any, Any]:
  """Context tokens and, a target sensor after the other, queries of one sample."""
  p = p["embedding"]
  table = reference.sincos(coordinates(GRID), WIDTH)
  tokens = reference.linear(p["enter_tokens"], TOKENS[context, sample])
  tokens = tokens + table[PLACES[context, sample]] + p["context_tags"][CONTEXTS[context]]
  asked = [
    p["mask_token"] + p["sensor_tags"][key] + table[blocks[sample].ravel()]
    for key, blocks in BLOCKS.items()
  ]
  return tokens, np.concatenate(asked)


def left(p: Any, x: Any) -> Any:
  p = p["embedding"]
  return reference.linear(p["leave"], reference.layer_norm(p["norm"], x))


@pytest.mark.parametrize("kind", PREDICTORS)
def test_a_query_told_what_the_context_shows_starts_from_that_token(kind: str) -> None:
  definition, parameters = build(kind, told=True)
  embedding = merge(definition, parameters).embedding
  tokens = TOKENS.copy()
  tokens[:, :, 2] = 0  # of which nothing was seen
  found = compiled(lambda *args: embedding.asked(BLOCKS, *args), tokens, PLACES)
  exact = reference.wide(parameters)
  for at in np.ndindex(3, 2):
    _, expected = entered(exact, *at)
    wanted = np.concatenate([blocks[at[1]].ravel() for blocks in BLOCKS.values()])
    told = 0
    for number, place in enumerate(wanted):
      for which in np.flatnonzero(PLACES[at] == place):
        if which != 2:
          told += 1
          expected[number] += reference.linear(
            exact["embedding"]["enter_tokens"], tokens[at][which]
          )
    assert told
    np.testing.assert_allclose(found[at], expected, rtol=1e-4, atol=1e-4)


def test_predictions_are_as_wide_as_their_targets() -> None:
  definition, parameters = build("narrow", leaving=5)
  assert {each.shape for each in predicted(definition, parameters).values()} == {(3, 2, 12, 5)}


def test_the_narrow_kind_is_a_transformer_in_which_a_query_sees_the_context_and_its_block() -> None:
  definition, parameters = build("narrow")
  found = predicted(definition, parameters)
  assert {key: each.shape for key, each in found.items()} == dict.fromkeys(BLOCKS, (3, 2, 12, WIDE))
  exact = reference.wide(parameters)
  # 0 is the context; each block of each target sensor is a group of its own.
  group = np.concatenate([np.zeros(6), 1 + np.repeat(np.arange(6), 4)])
  allowed = (group[None, :] == 0) | (group[:, None] == group[None, :])
  for context, sample in np.ndindex(3, 2):
    x = np.concatenate(entered(exact, context, sample))
    expected = left(exact, reference.trunk(exact["trunk"]["blocks"], x, HEADS, allowed)[6:])
    for key, part in (("radar", expected[:12]), ("optical", expected[12:])):
      np.testing.assert_allclose(found[key][context, sample], part, rtol=1e-4, atol=1e-4)


def test_the_kind_queries_gathers_the_context_and_looks_at_both() -> None:
  definition, parameters = build("queries")
  found = predicted(definition, parameters)
  exact = reference.wide(parameters)
  cross = exact["cross"]
  for at in np.ndindex(3, 2):
    context, asked = entered(exact, *at)
    memory = np.concatenate([exact["shared_queries"], context])
    memory = reference.trunk(exact["trunk"]["blocks"], memory, HEADS)
    normed = reference.layer_norm(cross["norm1"], asked)
    memory = reference.layer_norm(cross["norm_memory"], memory)
    x = asked + reference.attention(cross["attention"], normed, memory, HEADS)
    x = x + reference.mlp(cross["mlp"], reference.layer_norm(cross["norm2"], x))
    expected = left(exact, x)
    np.testing.assert_allclose(found["radar"][at], expected[:12], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["optical"][at], expected[12:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", PREDICTORS)
def test_a_block_s_prediction_depends_neither_on_other_blocks_nor_on_other_sensors(
  kind: str,
) -> None:
  definition, parameters = build(kind)
  together = predicted(definition, parameters)["optical"]
  block = {"optical": BLOCKS["optical"][:, 1:2]}
  alone = predicted(definition, parameters, block, slice(1, 2))["optical"]
  np.testing.assert_allclose(alone[0], together[1, :, 4:8], atol=1e-5)


@pytest.mark.parametrize("kind", PREDICTORS)
def test_a_hidden_context_token_is_as_one_that_is_not_there(kind: str) -> None:
  definition, parameters = build(kind)
  hidden, kept = TOKENS.copy(), [0, 2, 5]
  hidden[:, :, [1, 3, 4]] = 0

  def predict(parameters: Any, tokens: Any, places: Any) -> Any:
    return merge(definition, parameters)(tokens, places, CONTEXTS, BLOCKS)

  found = compiled(predict, parameters, hidden, PLACES)
  expected = compiled(predict, parameters, TOKENS[:, :, kept], PLACES[:, :, kept])
  nothing = compiled(predict, parameters, 0 * TOKENS, PLACES)
  for key in BLOCKS:
    np.testing.assert_allclose(found[key], expected[key], atol=1e-5)
    assert np.isfinite(nothing[key]).all()


@pytest.mark.parametrize("kind", PREDICTORS)
def test_the_same_tokens_say_something_else_as_another_sensor_s(kind: str) -> None:
  definition, parameters = build(kind)

  def predict(parameters: Any, contexts: Any) -> Any:
    return merge(definition, parameters)(TOKENS[:1], PLACES[:1], contexts, BLOCKS)["radar"]

  optical, radar = (
    compiled(lambda p, key=key: predict(p, (key,)), parameters) for key in ("optical", "radar")
  )
  assert np.abs(optical - radar).min(axis=-1).max() > 1e-4


@pytest.mark.parametrize("kind", PREDICTORS)
def test_tags_and_queries_are_drawn_as_large_as_positions(kind: str) -> None:
  width = 128
  config, spec = PredictorConfig(kind, depth=1, queries=5), BlockSpec(width, 2)
  sensors = ("optical", "radar")
  drawn = split(PREDICTORS[kind](config, spec, WIDE, WIDE, sensors, (8, 8), nnx.Rngs(0)))[1]
  size = np.sqrt(np.mean(reference.sincos(coordinates((8, 8)), width) ** 2))
  tags = drawn["embedding"]
  found = [tags["mask_token"], *tags["sensor_tags"].values(), *tags["context_tags"].values()]
  found += [*drawn.get("shared_queries", ())]
  assert len(found) == (10 if kind == "queries" else 5)
  for tag in found:
    assert 0.75 * size < np.sqrt(np.mean(np.square(tag))) < 1.25 * size  # 4 standard errors
  assert len(np.unique(np.stack(found), axis=0)) == len(found)


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
  same = dict.fromkeys(BLOCKS, BLOCKS["radar"])
  together = predicted(definition, parameters, same)
  other = BLOCKS["radar"].copy()
  other[:, 0, 3] = (other[:, 0, 3] + 7) % 20
  moved = predicted(definition, parameters, same | {"radar": other})
  difference = np.abs(moved["radar"] - together["radar"])
  assert difference[..., :3, :].min(axis=-1).max() > 1e-4
  np.testing.assert_allclose(difference[..., 4:, :], 0, atol=1e-5)
  assert np.abs(together["radar"] - together["optical"]).max() > 1e-2


@pytest.mark.parametrize("kind", PREDICTORS)
def test_its_parameters_are_float32_whatever_it_computes_in(kind: str) -> None:
  definition, parameters = build(kind, jnp.bfloat16)
  assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(parameters))
  found = jax.eval_shape(
    lambda p: merge(definition, p)(TOKENS.astype(jnp.bfloat16), PLACES, CONTEXTS, BLOCKS),
    parameters,
  )
  assert {each.dtype for each in found.values()} == {jnp.dtype(jnp.bfloat16)}


def test_its_width_is_half_the_encoder_s() -> None:
  tiny = BlockSpec(192, 3, attention="cudnn")
  spec = predictor_spec(PredictorConfig(), tiny)
  assert (spec.width, spec.attention) == (96, "xla")
  for width, heads in ((62, 2), (64, 3)):
    with pytest.raises(ConfigError, match=rf"'predictor\.width' is {width}.*{heads} predictor"):
      predictor_spec(PredictorConfig(width=width, attention_heads=heads), tiny)


@pytest.mark.parametrize("encoder_heads", [1, 3, 12])
@pytest.mark.parametrize(
  ("width", "heads"),
  # The widest number of heads that divides the width and leaves each 64 numbers or more.
  [(8, 1), (60, 1), (64, 1), (96, 1), (128, 2), (196, 2), (200, 2), (320, 5), (384, 6), (512, 8)],
)
def test_its_heads_are_64_wide_whatever_the_encoder_s(
  width: int, heads: int, encoder_heads: int
) -> None:
  encoder = BlockSpec(768, encoder_heads)
  assert predictor_spec(PredictorConfig(width=width), encoder).heads == heads
  if width % 4 == 0:
    assert predictor_spec(PredictorConfig(width=width, attention_heads=4), encoder).heads == 4


@pytest.mark.parametrize("preset", [name for name in SIZES if name != "none"])
def test_every_preset_has_a_predictor(preset: str) -> None:
  size = SIZES[preset]
  spec = predictor_spec(PredictorConfig(), BlockSpec(size.width, size.heads))
  assert spec.width == size.width // 2 and spec.width % spec.heads == 0
  assert 64 <= spec.width // spec.heads < 128 or spec.heads == 1
