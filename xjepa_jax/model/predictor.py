"""The predictor: from context tokens and target places to another sensor's tokens at these places.

The context is encoded once for all target blocks and all target sensors. Context tokens attend
only to each other; a query attends to the context and, in the kind "narrow", also to the queries
of its own block. A block's prediction therefore does not depend on which other blocks are
requested.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from xjepa_jax.config import PredictorConfig
from xjepa_jax.errors import ConfigError
from xjepa_jax.model.attention import attend, attend_in_blocks
from xjepa_jax.model.fill import shown
from xjepa_jax.model.positions import coordinates, sincos
from xjepa_jax.model.trunk import Attention, Block, BlockSpec, Mlp, Trunk

HEAD_WIDTH = 64  # attention head width of the vision transformers from tiny to large (presets.py)
# Standard deviation of tags, which tell whose token is meant, so that they are as large as the
# position embeddings: half of the table's numbers are sines and half are cosines of the same
# angles, so their mean square is 1/2.
TAG_SCALE = math.sqrt(0.5)


class Embedding(nnx.Module):
  """Input and output layers shared by all kinds of predictor.

  Tokens of all sensors go through the same layers, so one tag says which sensor a context token is
  from, and another which sensor a query asks for.
  """

  def __init__(
    self,
    told: bool,
    spec: BlockSpec,
    encoder_width: int,
    target_width: int,
    sensors: Sequence[str],
    grid: tuple[int, int],
    rngs: nnx.Rngs,
  ):
    self.enter_tokens = spec.linear(encoder_width, spec.width, rngs)
    self.mask_token = _tag((spec.width,), rngs)
    self.sensor_tags = nnx.Dict({key: _tag((spec.width,), rngs) for key in sensors})
    self.context_tags = nnx.Dict({key: _tag((spec.width,), rngs) for key in sensors})
    self.norm = spec.norm(rngs)
    self.leave = spec.linear(spec.width, target_width, rngs)
    self.told = told
    self.grid = grid
    self.width = spec.width
    self.dtype = spec.dtype

  def context(self, tokens: Array, indices: Array, sensors: Sequence[str]) -> Array:
    """Embed tokens (S, B, n, D) of S sensors at their places as (S, B, n, d)."""
    tags = jnp.stack([self.context_tags[key][...] for key in sensors])[:, None, None]
    return self.enter_tokens(tokens) + (tags + self._places(indices)).astype(self.dtype)

  def asked(self, blocks: Mapping[str, Array], tokens: Array, indices: Array) -> Array:
    """(S, B, T J m, d) queries for T sensors at places (B, J, m), for S contexts (S, B, n, D)."""
    queries = []
    for key, places in blocks.items():
      tag = self.mask_token[...] + self.sensor_tags[key][...]
      queries.append(tag + self._places(places.reshape(len(places), -1)))
    x = jnp.concatenate(queries, axis=-2).astype(self.dtype)
    if not self.told:
      return jnp.broadcast_to(x, (len(tokens), *x.shape))
    # With `told`, a query is given the context's token at its own place, if there is one. A matrix
    # product rather than a gather keeps the samples on their devices, forward and backward.
    wanted = jnp.concatenate([each.reshape(len(each), -1) for each in blocks.values()], axis=-1)
    itself = (wanted[None, :, :, None] == indices[:, :, None]) & shown(tokens)[:, :, None]
    entered = self.enter_tokens(tokens)
    return x + jnp.einsum("sbmn,sbnd->sbmd", itself.astype(entered.dtype), entered)

  def predictions(self, x: Array, targets: Sequence[str]) -> dict[str, Array]:
    """Map queries (..., T M, d) after all layers to target sensor -> (..., M, D)."""
    parts = jnp.split(self.leave(self.norm(x)), len(targets), axis=-2)
    return dict(zip(targets, parts, strict=True))

  def _places(self, indices: Array) -> Array:
    return jnp.asarray(sincos(coordinates(self.grid), self.width), jnp.float32)[indices]


class NarrowLayer(nnx.Module):
  """One layer over a context and blocks of queries; see the module docstring."""

  def __init__(self, spec: BlockSpec, rngs: nnx.Rngs):
    self.norm1 = spec.norm(rngs)
    self.attention = Attention(spec, rngs)
    self.norm2 = spec.norm(rngs)
    self.mlp = Mlp(spec, rngs)

  def __call__(self, x: Array, blocks: tuple[int, int], shown: Array | None = None) -> Array:
    """Apply the layer to (..., n + J m, d) tokens, the context first.

    Args:
      x: tokens.
      blocks: (J, m), static.
      shown: (..., n) bool, the context tokens that take part; None means all.
    """
    queries, keys, values = self.attention.project(self.norm1(x))
    x = x + self.attention.merge(attend_in_blocks(queries, keys, values, *blocks, shown))
    x = checkpoint_name(x, "between")
    return x + self.mlp(self.norm2(x))


class CrossLayer(nnx.Module):
  """Cross-attention of queries to a memory, then an MLP."""

  def __init__(self, spec: BlockSpec, rngs: nnx.Rngs):
    self.norm1 = spec.norm(rngs)
    self.norm_memory = spec.norm(rngs)
    self.attention = Attention(spec, rngs)
    self.norm2 = spec.norm(rngs)
    self.mlp = Mlp(spec, rngs)

  def __call__(self, x: Array, memory: Array, shown: Array) -> Array:
    """Update (..., m, d) queries from those (..., n, d) memory tokens that are shown (..., n)."""
    queries, _, _ = self.attention.project(self.norm1(x))
    _, keys, values = self.attention.project(self.norm_memory(memory))
    x = x + self.attention.merge(attend(queries, keys, values, shown=shown))
    return x + self.mlp(self.norm2(x))


class NarrowPredictor(nnx.Module):
  """A narrow transformer over context tokens and position queries, as in I-JEPA."""

  def __init__(
    self,
    config: PredictorConfig,
    spec: BlockSpec,
    encoder_width: int,
    target_width: int,
    sensors: Sequence[str],
    grid: tuple[int, int],
    rngs: nnx.Rngs,
  ):
    self.embedding = Embedding(config.told, spec, encoder_width, target_width, sensors, grid, rngs)
    self.trunk = Trunk(config.depth, spec, rngs, layer=NarrowLayer)

  def __call__(
    self, tokens: Array, indices: Array, contexts: Sequence[str], blocks: Mapping[str, Array]
  ) -> dict[str, Array]:
    """Predict tokens.

    Args:
      tokens: (S, B, n, D) context tokens of S sensors, each processed separately; null where
        hidden.
      indices: (S, B, n) their places.
      contexts: the S sensors.
      blocks: target sensor -> (B, J, m) places to predict, J and m the same for all sensors.

    Returns:
      target sensor -> (S, B, J * m, D), a prediction from each context.
    """
    count, size = next(iter(blocks.values())).shape[-2:]
    context = self.embedding.context(tokens, indices, contexts)
    asked = self.embedding.asked(blocks, tokens, indices)
    x = jnp.concatenate([context, asked], axis=-2)
    x = self.trunk(x, (len(blocks) * count, size), shown(tokens))
    return self.embedding.predictions(x[..., tokens.shape[-2] :, :], tuple(blocks))


class QueryPredictor(nnx.Module):
  """Shared learnable queries gather the context; position queries then attend to both.

  This follows the description of the predictor in the X-JEPA paper: learnable queries with the
  context, self-attention, cross-attention for the other sensor, MLP.
  """

  def __init__(
    self,
    config: PredictorConfig,
    spec: BlockSpec,
    encoder_width: int,
    target_width: int,
    sensors: Sequence[str],
    grid: tuple[int, int],
    rngs: nnx.Rngs,
  ):
    self.embedding = Embedding(config.told, spec, encoder_width, target_width, sensors, grid, rngs)
    self.shared_queries = _tag((config.queries, spec.width), rngs)
    self.trunk = Trunk(config.depth, spec, rngs, layer=Block)
    self.cross = CrossLayer(spec, rngs)

  def __call__(
    self, tokens: Array, indices: Array, contexts: Sequence[str], blocks: Mapping[str, Array]
  ) -> dict[str, Array]:
    """Predict tokens; arguments and result as in `NarrowPredictor`."""
    context = self.embedding.context(tokens, indices, contexts)
    shared = self.shared_queries[...]
    shared = jnp.broadcast_to(shared, (*context.shape[:-2], *shared.shape)).astype(context.dtype)
    seen = jnp.concatenate([jnp.ones(shared.shape[:-1], bool), shown(tokens)], axis=-1)
    memory = self.trunk(jnp.concatenate([shared, context], axis=-2), None, seen)
    x = self.cross(self.embedding.asked(blocks, tokens, indices), memory, seen)
    return self.embedding.predictions(x, tuple(blocks))


PREDICTORS: dict[str, type[NarrowPredictor] | type[QueryPredictor]] = {
  "narrow": NarrowPredictor,
  "queries": QueryPredictor,
}


def predictor_spec(config: PredictorConfig, encoder: BlockSpec) -> BlockSpec:
  """The settings of a predictor's layers.

  The default number of heads keeps the head width of the vision transformers: half the encoder's
  width with the encoder's number of heads would give heads of only 32 numbers.

  Raises:
    ConfigError: the heads do not divide the width.
  """
  width = config.width or max(encoder.width // 8, 1) * 4
  heads = config.attention_heads or _heads_of(width)
  if width % heads or width % 4:
    raise ConfigError(
      f"config key 'predictor.width' is {width}: it must be a multiple of 4 and of the "
      f"{heads} predictor.attention_heads."
    )
  return dataclasses.replace(encoder, width=width, heads=heads, attention="xla")


def _heads_of(width: int) -> int:
  """The largest number of heads that divides the width with a head width of 64 or more."""
  most = max(width // HEAD_WIDTH, 1)
  return next(heads for heads in range(most, 0, -1) if width % heads == 0)


def _tag(shape: tuple[int, ...], rngs: nnx.Rngs) -> nnx.Param:
  """A learned vector, added to a token or standing in for one, as large as a position embedding."""
  return nnx.Param(TAG_SCALE * nnx.initializers.normal(1.0)(rngs.params(), shape, jnp.float32))
