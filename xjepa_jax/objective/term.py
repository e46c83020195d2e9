"""The base of all terms of the objective, and the masking of samples that lack a sensor.

A term sees the global batch: under jit with a sharded batch its sums run over all devices. It
computes in float32 whatever the precision of the model's outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from xjepa_jax.config.fields import check, setting
from xjepa_jax.errors import ConfigError
from xjepa_jax.model.outputs import Outputs

Scalars = dict[str, jax.Array]


PREDICTIONS, DESCRIPTORS = "predictions", "descriptors"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Term:
  """One term of the objective. Its fields are its options, set by a config and checked by `read`.

  A subclass adds its options and defines `loss`; docs/objective.md shows how to add one.

  Attributes:
    weight, warmup, start, end: the weight and its schedule; see `weight_at`.
    needs: the outputs that `loss` uses. A term of "predictions" logs "route/a->b", the loss of each
      route, and is compared with baseline guesses at every validation. A term of "descriptors" has
      an option `on`, the head whose descriptors it takes, and is also applied to their prefixes.
    over_samples: whether the term compares the samples of a batch, so that its value for a batch is
      not the mean of its values for parts of the batch, and a single sample has no meaning.
  """

  weight: float = setting(
    1.0, "once the warm-up is over; at 0 it is logged and has no effect", least=0
  )
  warmup: int = setting(0, "steps from start on over which the weight rises linearly", least=0)
  start: int = setting(0, "step before which the weight is 0", least=0)
  end: int = setting(0, "step from which on it is 0 again; 0 is never", least=0)

  needs: ClassVar[str] = PREDICTIONS
  over_samples: ClassVar[bool] = False

  def __post_init__(self) -> None:
    check(self)
    if 0 < self.end <= self.start:
      raise ConfigError(
        f"end is {self.end}; expected 0 (never) or a step after start, {self.start}."
      )

  def init(self, key: jax.Array) -> dict[str, Any]:
    """Learnable parameters; {} for most terms."""
    del key
    return {}

  def loss(
    self, params: dict[str, Any], outputs: Outputs, key: jax.Array
  ) -> tuple[jax.Array, Scalars]:
    """Compute the unweighted loss of a global batch.

    Args:
      params: as returned by `init`.
      outputs: of the model.
      key: random key for terms that draw.

    Returns:
      () float32, 0 where no sample has the sensors that the term needs, and scalars to log.

    Raises:
      ConfigError: an option does not fit the model; the message begins with the option's name.
    """
    raise NotImplementedError

  def weight_at(self, step: jax.Array | int) -> jax.Array:
    """() float32 weight at a step, which may be traced."""
    step = jnp.asarray(step, jnp.int32)
    weight = jnp.where(step >= self.start, jnp.float32(self.weight), 0.0)
    if self.warmup:
      # Subtract as integers, which is exact; a float32 step is not, beyond 2^24.
      risen = (step - self.start).astype(jnp.float32) / self.warmup
      weight = weight * jnp.clip(risen, 0.0, 1.0)
    if self.end:
      weight = jnp.where(step < self.end, weight, 0.0)
    return weight


def rows_where(mask: jax.Array, values: jax.Array) -> jax.Array:
  """Values (B, ...) as float32, with rows outside `mask` (B,) replaced by 0.

  A mask with more axes, such as (B, P), covers as many axes of the values. Values are replaced
  before anything is computed from them, so that neither they nor their gradients, finite or not,
  can reach a sum.
  """
  wide = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
  return jnp.where(wide, values.astype(jnp.float32), 0.0)


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
  """Mean of values (B, ...) over the rows in `mask` (B,) and over all other axes; 0 if none.

  A mask with more axes, such as (B, P), covers as many axes of the values.
  """
  entries = values.size // max(mask.size, 1)
  return rows_where(mask, values).sum() / (jnp.maximum(mask.sum(), 1) * entries)


def mean_of_counted(parts: Iterable[tuple[jax.Array, jax.Array]]) -> jax.Array:
  """Mean of the losses that count; 0 if none does.

  Args:
    parts: (loss, whether it counts) of each route, sensor or pair of sensors. A part that no sample
      of the batch has does not count, since its 0 would pull the mean down.
  """
  parts = list(parts)
  if not parts:
    return jnp.float32(0)
  losses, counted = zip(*parts, strict=True)
  return masked_mean(jnp.stack(losses), jnp.stack(counted))


def unit(vectors: jax.Array) -> jax.Array:
  """Vectors (..., K) divided by their length; a zero vector stays 0 with a gradient of 0."""
  squares = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
  some = squares > 0
  # Both `where`s are needed: the inner one keeps rsqrt(0) out of the gradient.
  return vectors * jnp.where(some, jax.lax.rsqrt(jnp.where(some, squares, 1.0)), 0.0)


class Field(NamedTuple):
  """Vectors at places, such as the cells of a descriptor.

  Attributes:
    vectors: (B, P, D) float32, 0 where absent.
    there: (B, P) bool, whether the vector is present.
  """

  vectors: jax.Array
  there: jax.Array

  def numbers(self) -> tuple[jax.Array, jax.Array]:
    """(B, D P) all numbers of a sample, the first of every place first, and (B, D P) bool."""
    rows, _, width = self.vectors.shape
    flat = self.vectors.swapaxes(1, 2).reshape(rows, -1)
    return flat, jnp.tile(self.there, (1, width))


def descriptors(outputs: Outputs, head: str) -> dict[str, Field]:
  """Sensor -> the cells of a head's descriptors; a head without cells has a single one.

  A cell without a token of the context counts as absent, because its numbers were made from the
  tokens of other cells.

  Raises:
    ConfigError: the model has no such head.
  """
  if head not in outputs.descriptors:
    heads = ", ".join(sorted(outputs.descriptors)) or "none"
    raise ConfigError(f"on is {head!r}, which is no head of the model; its heads are: {heads}.")
  found = {}
  for sensor, values in sorted(outputs.descriptors[head].items()):
    there = outputs.present[sensor][:, None] & outputs.seen[head][sensor]
    cells = values.reshape(len(values), -1, there.shape[1]).swapaxes(1, 2)
    found[sensor] = Field(rows_where(there, cells), there)
  return found


def errors_by_route(
  outputs: Outputs, routes: Sequence[str]
) -> dict[str, tuple[jax.Array, jax.Array]]:
  """Route -> ((B, M, D) predicted minus target tokens, (B, M) which of them count).

  Arguments, counted tokens and errors raised are those of `predictions_by_route`.
  """
  found = predictions_by_route(outputs, routes)
  return {route: (predicted - goal, count) for route, (predicted, goal, count) in found.items()}


def predictions_by_route(
  outputs: Outputs, routes: Sequence[str]
) -> dict[str, tuple[jax.Array, jax.Array, jax.Array]]:
  """Route -> ((B, M, D) predicted and target tokens, (B, M) which of them count).

  Tokens count in samples with both sensors, at places with observed pixels; all others are 0. No
  gradient flows into the targets.

  Args:
    outputs: of the model.
    routes: the routes wanted; empty means all.

  Raises:
    ConfigError: the model has no such route.
  """
  found = {}
  for route in routes or sorted(outputs.predicted):
    if route not in outputs.predicted:
      known = ", ".join(sorted(outputs.predicted)) or "none"
      raise ConfigError(f"routes names {route!r}, which the model lacks; it has: {known}.")
    context, target = route.split("->")
    both = outputs.present[context] & outputs.present[target]
    count = both[:, None] & outputs.counted[route]
    goal = jax.lax.stop_gradient(rows_where(count, outputs.target[route]))
    found[route] = (rows_where(count, outputs.predicted[route]), goal, count)
  return found
