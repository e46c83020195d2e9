"""The encoder: from images of any of its sensors to tokens, and from both to descriptors.

One function serves as context encoder (trained weights, a subset of the tokens) and as target
encoder (their moving average, all tokens). Each sensor has its own stem; the last layers are
shared. An encoder with the preset "none" has no network: its heads read images directly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array

from xjepa_jax.config import HeadConfig, ModelConfig
from xjepa_jax.errors import ConfigError
from xjepa_jax.model.fill import seen_share
from xjepa_jax.model.heads import Head
from xjepa_jax.model.inputs import SensorInput
from xjepa_jax.model.layout import Layout, Source, by_token, layouts
from xjepa_jax.model.local import LOCAL_MLP_RATIO, LocalNetwork
from xjepa_jax.model.positions import coordinates, sincos, spacing
from xjepa_jax.model.presets import size_of
from xjepa_jax.model.stem import STEMS
from xjepa_jax.model.trunk import BlockSpec, Trunk


class Encoder(nnx.Module):
  """Stems, a trunk, and heads.

  Args:
    config: the model's settings.
    heads: head settings by name.
    inputs: sensor -> its input; all sensors lie on one grid of tokens.
    dtype: the type in which products are computed.
    rngs: random streams for the initial weights.

  Raises:
    ConfigError: widths, heads or depths do not fit each other.
  """

  def __init__(
    self,
    config: ModelConfig,
    heads: Mapping[str, HeadConfig],
    inputs: Mapping[str, SensorInput],
    dtype: object,
    rngs: nnx.Rngs,
  ):
    self.grid = next(iter(inputs.values())).grid
    self.has_network = has_network(config)
    spec = layer_spec(config, dtype)[0] if self.has_network else None
    if spec is not None:
      self._build_network(config, inputs, spec, rngs)
    self.has_local = self.has_network and config.local > 0
    bands = {key: given.bands for key, given in inputs.items()}
    sources = {}
    if spec is not None:
      sources["tokens"] = Source(spec.width, self.grid)
    if self.has_local:
      sources["parts"] = Source(config.local, self.local.grid)
    self.layouts = nnx.Dict(layouts(heads, bands, sources, rngs))
    pooled = {name: head for name, head in heads.items() if name not in self.layouts}
    self.heads: nnx.Dict = nnx.Dict()
    if spec is None:
      _refuse_pooling(pooled)
    else:
      self.heads.update({name: Head(head, spec, self.grid, rngs) for name, head in pooled.items()})

  def _build_network(
    self, config: ModelConfig, inputs: Mapping[str, SensorInput], spec: BlockSpec, rngs: nnx.Rngs
  ) -> None:
    """Build stems, local network, registers and trunk."""
    _, depth, shared = layer_spec(config, spec.dtype)
    self.width = spec.width
    self.rotary = config.positions == "rotary"
    self.unit = config.position_unit
    self.inputs = dict(inputs)
    self.metres = {key: given.metres for key, given in inputs.items()}
    self.dtype = spec.dtype
    self.stems = nnx.Dict(
      {key: STEMS[config.stem](given, spec, rngs) for key, given in inputs.items()}
    )
    if config.local:
      narrow = dataclasses.replace(spec, width=config.local, mlp_ratio=LOCAL_MLP_RATIO)
      self.local = LocalNetwork(inputs, narrow, config.local_depth, spec.width, rngs)
    self.registers = config.registers
    if config.registers:
      shape = (config.registers, spec.width)
      self.register_tokens = nnx.Param(
        0.02 * nnx.initializers.normal(1.0)(rngs.params(), shape, jnp.float32)
      )
    self.has_own = shared < depth
    if self.has_own:
      self.own = nnx.Dict({key: Trunk(depth - shared, spec, rngs) for key in inputs})
    self.trunk = Trunk(shared, spec, rngs)
    self.norm = spec.norm(rngs)

  def parts(
    self, values: Mapping[str, Array], indices: Mapping[str, Array] | None = None
  ) -> dict[str, Array]:
    """Features of the local network, see `local`; empty without one."""
    return self.local(values, indices) if self.has_local else {}

  def tokens(
    self,
    values: Mapping[str, Array],
    seen: Mapping[str, Array],
    indices: Mapping[str, Array] | None = None,
    parts: Mapping[str, Array] | None = None,
  ) -> dict[str, Array]:
    """Tokens of images, all sensors in one pass through the shared layers.

    Args:
      values: sensor -> (B, H, W, C) scaled images.
      seen: sensor -> (B, C) bool, the bands that an image has.
      indices: sensor -> (B, n) places of the requested tokens, n the same for all sensors; None
        means all.
      parts: `self.parts` of the same arguments, if already computed.

    Returns:
      sensor -> (B, n, D), normalised by the encoder's last layer norm; null where nothing was
      observed, see `fill`. Empty without a network.
    """
    if not self.has_network:
      return {}
    parts = self.parts(values, indices) if parts is None else parts
    entered = [
      self._enter(
        key, values[key], seen[key], parts.get(key), None if indices is None else indices[key]
      )
      for key in values
    ]
    # Sensors are stacked along a new axis: concatenating sharded batches would move them between
    # devices.
    x, places, shown = (jnp.stack(each) for each in zip(*entered, strict=True))
    x = self.norm(self.trunk(x, places if self.rotary else None, shown))
    # The layers and the norm leave numbers in hidden tokens; as null vectors they are recognised.
    x = jnp.where(shown[..., None], x, 0)[:, :, self.registers :]
    return {key: x[number] for number, key in enumerate(values)}

  def descriptors(
    self,
    values: Mapping[str, Array],
    tokens: Mapping[str, Array],
    indices: Mapping[str, Array] | None = None,
    heads: Sequence[str] | None = None,
    parts: Mapping[str, Array] | None = None,
  ) -> dict[str, dict[str, Array]]:
    """Descriptors, not normalised.

    Args:
      values: sensor -> (B, H, W, C) scaled images, which layouts read whole.
      tokens: sensor -> (B, n, D) tokens of these images.
      indices: sensor -> (B, n) places of the tokens; None means all, in order.
      heads: names of the requested heads; None means all.
      parts: `self.parts` of the same arguments, if already computed.

    Returns:
      head -> sensor -> (B, K).
    """
    places = indices or {}
    found = self.pooled(tokens, indices, heads)
    asked = [name for name in self.layouts if heads is None or name in heads]
    if parts is None:
      parts = self.parts(values, indices) if asked else {}
    for name in asked:
      layout: Layout = self.layouts[name]
      found[name] = {
        key: layout(key, each, tokens.get(key), places.get(key), parts.get(key))
        for key, each in values.items()
      }
    return found

  def pooled(
    self,
    tokens: Mapping[str, Array],
    indices: Mapping[str, Array] | None = None,
    heads: Sequence[str] | None = None,
  ) -> dict[str, dict[str, Array]]:
    """Descriptors as in `descriptors`, for the heads that pool tokens and need no image."""
    places = indices or {}
    return {
      name: {key: head(each, places.get(key)) for key, each in tokens.items()}
      for name, head in self.heads.items()
      if heads is None or name in heads
    }

  def cells(
    self, head: str, sensor: str, values: Array, tokens: Array | None, parts: Array | None
  ) -> Array:
    """(B, N, D) cells of a layout, grouped by the token whose place they share."""
    layout: Layout = self.layouts[head]
    found = layout.patches(sensor, values, tokens, parts, jnp.zeros(layout.size, jnp.float32))
    return by_token(found, layout.cells, self.grid)

  def patches(
    self,
    head: str,
    sensor: str,
    values: Array,
    tokens: Array | None,
    parts: Array | None,
    centre: Array,
  ) -> Array:
    """Each patch's own contribution: (B, N, d), see the `patches` of heads and layouts."""
    if head in self.layouts:
      found: Array = self.layouts[head].patches(sensor, values, tokens, parts, centre)
      return found
    return self.heads[head].patches(tokens, centre)

  def seen(
    self, tokens: Mapping[str, Array], indices: Mapping[str, Array]
  ) -> dict[str, dict[str, Array]]:
    """head -> sensor -> (B, P) bool: which cells have one of these tokens, see `Head.seen`."""
    whole = {key: jnp.ones((len(each), 1), bool) for key, each in indices.items()}
    return dict.fromkeys(self.layouts, whole) | {
      name: {key: head.seen(each, indices[key]) for key, each in tokens.items()}
      for name, head in self.heads.items()
    }

  def _enter(
    self,
    key: str,
    values: Array,
    seen: Array,
    parts: Array | None,
    indices: Array | None,
  ) -> tuple[Array, Array, Array]:
    """Prepare the shared layers' input, registers first: tokens, places, whether each is shown."""
    places = coordinates(self.grid, spacing(self.unit, self.metres[key]))
    x = self.stems[key](values, seen, indices)
    if parts is not None:
      x = x + self.local.tokens(parts, indices)
    chosen = jnp.asarray(places)[None] if indices is None else jnp.asarray(places)[indices]
    if not self.rotary:
      table = jnp.asarray(sincos(places, self.width), self.dtype)
      x = x + (table[None] if indices is None else table[indices])
    chosen = jnp.broadcast_to(chosen, (*x.shape[:2], 2))
    shown = seen_share(self.inputs[key], values) > 0
    shown = shown if indices is None else jnp.take_along_axis(shown, indices, axis=1)
    # Registers have no place of their own, and are always shown.
    if self.registers:
      extra = jnp.broadcast_to(self.register_tokens[...], (x.shape[0], self.registers, self.width))
      x = jnp.concatenate([extra.astype(x.dtype), x], axis=1)
      chosen = jnp.pad(chosen, ((0, 0), (self.registers, 0), (0, 0)))
      shown = jnp.pad(shown, ((0, 0), (self.registers, 0)), constant_values=True)
    if self.has_own:
      x = self.own[key](x, chosen if self.rotary else None, shown)
    return x, chosen, shown


def _refuse_pooling(heads: Mapping[str, HeadConfig]) -> None:
  for name, head in heads.items():
    raise ConfigError(
      f"config key 'heads.{name}.pooling' is {head.pooling!r}, which pools a network's tokens, and "
      "model.preset is 'none'. Give the pooling 'canonical', 'statistics' or 'gradients', or a "
      "preset that has a network."
    )


def has_network(config: ModelConfig) -> bool:
  """Whether the encoder computes tokens, that is, its preset is not "none"."""
  return config.preset != "none"


def layer_spec(config: ModelConfig, dtype: object) -> tuple[BlockSpec, int, int]:
  """The settings of the encoder's layers, their number, and how many of them are shared.

  Raises:
    ConfigError: width, heads or depth do not fit each other.
  """
  size = size_of(config.preset, config.width, config.depth, config.attention_heads)
  multiple = 4 * size.heads if config.positions == "rotary" else 4
  if size.width % size.heads or size.width % multiple:
    raise ConfigError(
      f"config key 'model.attention_heads' is {size.heads}: it must divide the width {size.width}, "
      f"which must be a multiple of {multiple} for positions {config.positions!r}."
    )
  shared = size.depth if config.shared_layers < 0 else config.shared_layers
  if shared > size.depth:
    raise ConfigError(
      f"config key 'model.shared_layers' is {shared}; the trunk has {size.depth} layers."
    )
  spec = BlockSpec(
    width=size.width,
    heads=size.heads,
    mlp_ratio=config.mlp_ratio,
    activation=config.activation,
    attention=config.attention,
    remat=config.remat,
    unroll=config.unroll,
    dtype=dtype,
  )
  return spec, size.depth, shared
