"""The joint architecture: what each encoder sees, and which sensor predicts which.

Parameters are kept outside the modules, as plain nested dicts: `split` separates them from a module
once, and `XJepa` merges them back inside a jitted function. This is how one `Encoder` serves with
two sets of weights, the trained and the averaged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from xjepa_jax.config import TOKENS, Config, Route
from xjepa_jax.model.encoder import Encoder, has_network, layer_spec
from xjepa_jax.model.fill import seen_share
from xjepa_jax.model.inputs import SensorInput
from xjepa_jax.model.layout import cells_width
from xjepa_jax.model.mask_plan import MaskPlan
from xjepa_jax.model.masking import Masks, sample_masks
from xjepa_jax.model.outputs import Outputs
from xjepa_jax.model.predictor import PREDICTORS, predictor_spec

Parameters = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class XJepa:
  """The architecture without its parameters.

  Attributes:
    inputs: sensor -> its input.
    routes: (context sensor, target sensor) of every prediction.
    encoder, predictor: module definitions, see `split`.
    config: the config that they were built from.
    dtype: the type in which products are computed.
  """

  inputs: Mapping[str, SensorInput]
  routes: tuple[Route, ...]
  encoder: Any
  predictor: Any
  config: Config
  dtype: Any

  @property
  def grid(self) -> tuple[int, int]:
    """Rows and columns of tokens, the same for all sensors."""
    return next(iter(self.inputs.values())).grid

  @property
  def contexts(self) -> tuple[str, ...]:
    """Sensors that the context encoder sees: those at which a route starts."""
    return tuple(key for key in self.inputs if any(a == key for a, _ in self.routes))

  @property
  def targets(self) -> tuple[str, ...]:
    """Sensors that the target encoder sees: those at which a route ends."""
    return tuple(key for key in self.inputs if any(b == key for _, b in self.routes))

  def init(self, key: Array) -> Parameters:
    """{"encoder": ..., "predictor": ...}, float32, initialised from a random key."""
    encoder_key, predictor_key = jax.random.split(key)
    return {
      "encoder": split(self._build_encoder(encoder_key))[1],
      "predictor": split(self._build_predictor(predictor_key))[1] if self.routes else {},
    }

  def outputs(
    self,
    parameters: Parameters,
    target_encoder: Parameters,
    values: Mapping[str, Array],
    seen: Mapping[str, Array],
    present: Mapping[str, Array],
    plan: MaskPlan,
    key: Array,
    alike: bool = False,
  ) -> Outputs:
    """Compute everything that the objective needs from a batch.

    Args:
      parameters: the trained parameters.
      target_encoder: the moving average of parameters["encoder"]; no gradient flows into it.
      values: sensor -> (B, H, W, C) scaled images.
      seen: sensor -> (B, C) bool, the bands that an image has.
      present: sensor -> (B,) bool, whether the sample has the sensor.
      plan: sizes of the masks.
      key: random key for the masks.
      alike: use one mask for all samples, so that predictions can be compared place by place.
    """
    batch = next(iter(values.values())).shape[0]
    shown = {key: seen_share(self.inputs[key], values[key]) > 0 for key in self.inputs}
    # One mask for all samples cannot avoid the fill of each, so it ignores what was seen.
    masks = sample_masks(
      key, plan, 1 if alike else batch, self.contexts, self.targets, None if alike else shown
    )
    masks = jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, *x.shape[1:])), masks)
    context = masks.context
    encoder = merge(self.encoder, parameters["encoder"])
    given = {key: values[key] for key in self.contexts}
    parts = encoder.parts(given, context)
    tokens = encoder.tokens(given, {key: seen[key] for key in self.contexts}, context, parts)
    return Outputs(
      predicted=self._predict(parameters["predictor"], tokens, masks),
      target=self._targets(target_encoder, values, seen, present, masks),
      tokens=tokens,
      positions=context,
      descriptors=encoder.descriptors(given, tokens, context, parts=parts),
      seen=encoder.seen(tokens, context),
      counted=self._counted(shown, masks),
      present=dict(present),
      grid={key: given.grid for key, given in self.inputs.items()},
      prefixes={
        name: tuple((size, head.prefix_weight) for size in head.prefixes)
        for name, head in self.config.heads.items()
      },
    )

  def encode(
    self, encoder: Parameters, values: Mapping[str, Array], seen: Mapping[str, Array]
  ) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
    """Tokens (sensor -> (B, N, D)) and descriptors (head -> sensor -> (B, K)) of whole images."""
    module = merge(self.encoder, encoder)
    parts = module.parts(values)
    tokens = module.tokens(values, seen, parts=parts)
    return tokens, module.descriptors(values, tokens, parts=parts)

  def _predict(
    self,
    predictor: Parameters,
    tokens: Mapping[str, Array],
    masks: Masks,
  ) -> dict[str, Array]:
    """route -> (B, M, D). Contexts with the same targets go through the predictor in one pass."""
    module = merge(self.predictor, predictor)
    groups: dict[tuple[str, ...], list[str]] = {}
    for key in self.contexts:
      groups.setdefault(tuple(b for a, b in self.routes if a == key), []).append(key)
    predicted = {}
    for targets, keys in groups.items():
      x = jnp.stack([tokens[key] for key in keys])
      places = jnp.stack([masks.context[key] for key in keys])
      blocks = {key: masks.target[key] for key in targets}
      for target, found in module(x, places, keys, blocks).items():
        for number, key in enumerate(keys):
          predicted[f"{key}->{target}"] = found[number]
    return {f"{a}->{b}": predicted[f"{a}->{b}"] for a, b in self.routes}

  def _targets(
    self,
    encoder: Parameters,
    values: Mapping[str, Array],
    seen: Mapping[str, Array],
    present: Mapping[str, Array],
    masks: Masks,
  ) -> dict[str, Array]:
    """route -> (B, M, D): targets at the masked blocks, from an encoder that sees whole images."""
    module = merge(self.encoder, jax.lax.stop_gradient(encoder))
    given = {key: values[key] for key in self.targets}
    parts = module.parts(given)
    found = module.tokens(given, {key: seen[key] for key in given}, parts=parts)
    head = self.config.target.of
    if head != TOKENS:
      found = {
        key: _standardised(module.cells(head, key, given[key], each, parts.get(key)), present[key])
        for key, each in found.items()
      }
    chosen = {
      key: jnp.take_along_axis(each, _flat(masks.target[key])[..., None], axis=1)
      for key, each in found.items()
    }
    if head == TOKENS:
      chosen = {key: _normalised(each) for key, each in chosen.items()}
    return {f"{a}->{b}": jax.lax.stop_gradient(chosen[b]) for a, b in self.routes}

  def _counted(self, shown: Mapping[str, Array], masks: Masks) -> dict[str, Array]:
    """route -> (B, M) bool: targets with observed pixels, where the context has some as well."""

    def at(key: str, places: Array) -> Array:
      return jnp.take_along_axis(shown[key], places, axis=1)

    asked = {key: at(key, _flat(masks.target[key])) for key in self.targets}
    told = {key: at(key, masks.context[key]).any(axis=1) for key in self.contexts}
    return {f"{a}->{b}": asked[b] & told[a][:, None] for a, b in self.routes}

  def _build_encoder(self, key: Array) -> Encoder:
    return _encoder(self.config, self.inputs, self.dtype, key)

  def _build_predictor(self, key: Array) -> nnx.Module:
    return _predictor(self.config, self.inputs, self.dtype, key)


def build(
  config: Config, inputs: Mapping[str, SensorInput], routes: tuple[Route, ...], dtype: Any
) -> XJepa:
  """The architecture that a config describes; no parameters are drawn or allocated.

  Without a network there are no tokens to predict, and hence no routes.

  Raises:
    ConfigError: the config's numbers do not fit each other.
  """
  key = jax.random.key(0)  # never used: eval_shape only traces
  encoder = split(nnx.eval_shape(lambda: _encoder(config, inputs, dtype, key)))[0]
  if not has_network(config.model):
    return XJepa(inputs, (), encoder, None, config, dtype)
  predictor = split(nnx.eval_shape(lambda: _predictor(config, inputs, dtype, key)))[0]
  return XJepa(inputs, routes, encoder, predictor, config, dtype)


def split(module: nnx.Module) -> tuple[Any, Parameters]:
  """Separate a module into its static definition and its parameters as plain nested dicts."""
  definition, state = nnx.split(module, nnx.Param)
  return definition, nnx.to_pure_dict(state)


def merge(definition: Any, parameters: Parameters) -> Any:
  """Rebuild the module with these parameters; for use inside a traced function."""
  return nnx.merge(definition, nnx.State(_as_params(parameters)))


def _as_params(parameters: Any) -> Any:
  if isinstance(parameters, Mapping):
    return {key: _as_params(value) for key, value in parameters.items()}
  return nnx.Param(parameters)


def _encoder(config: Config, inputs: Mapping[str, SensorInput], dtype: Any, key: Array) -> Encoder:
  return Encoder(config.model, config.heads, inputs, dtype, nnx.Rngs(key))


def _predictor(
  config: Config, inputs: Mapping[str, SensorInput], dtype: Any, key: Array
) -> nnx.Module:
  spec, _, _ = layer_spec(config.model, dtype)
  grid = next(iter(inputs.values())).grid
  kind = PREDICTORS[config.predictor.kind]
  narrow = predictor_spec(config.predictor, spec)
  of = config.target.of
  told = spec.width if of == TOKENS else cells_width(of, config.heads[of], grid)
  return kind(config.predictor, narrow, spec.width, told, tuple(inputs), grid, nnx.Rngs(key))


def _flat(places: Array) -> Array:
  """(B, J * m) of (B, J, m)."""
  return places.reshape(len(places), -1)


def _standardised(cells: Array, there: Array) -> Array:
  """Cells (B, N, D), standardised at each place over the samples that are present."""
  weights = there.astype(jnp.float32)[:, None, None]
  count = jnp.maximum(weights.sum(), 1.0)
  centred = cells - (weights * cells).sum(axis=0) / count
  variance = (weights * jnp.square(centred)).sum(axis=0) / count
  return centred * jax.lax.rsqrt(variance + 1e-6)


def _normalised(tokens: Array) -> Array:
  """Tokens (..., D), each with mean 0 and variance 1, without learned scale, float32."""
  tokens = tokens.astype(jnp.float32)
  mean = tokens.mean(axis=-1, keepdims=True)
  variance = jnp.square(tokens - mean).mean(axis=-1, keepdims=True)
  return (tokens - mean) * jax.lax.rsqrt(variance + 1e-6)
