"""The objective: a weighted sum of terms, each weight a function of the step."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

import jax
import jax.numpy as jnp

from xjepa_jax.errors import ConfigError
from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.term import Scalars, Term


@dataclasses.dataclass(frozen=True)
class Weighted:
  """A term and what it weighs.

  Attributes:
    term: the term.
    weight: once the warm-up is over. At 0 the term is computed and logged, and teaches nothing.
    warmup: steps from `start` on over which the weight rises linearly from 0; 0 for none.
    start: step before which the weight is 0.
    end: step from which on it is 0 again; 0 for never.
  """

  term: Term
  weight: float = 1.0
  warmup: int = 0
  start: int = 0
  end: int = 0

  def weight_at(self, step: jax.Array | int) -> jax.Array:
    """() float32 weight at a step, which may be traced."""
    step = jnp.asarray(step, jnp.int32)
    weight = jnp.where(step >= self.start, jnp.float32(self.weight), 0.0)
    if self.warmup:
      # Differences of integers are exact; a float32 step is not, beyond 2^24.
      risen = (step - self.start).astype(jnp.float32) / self.warmup
      weight = weight * jnp.clip(risen, 0.0, 1.0)
    if self.end:
      weight = jnp.where(step < self.end, weight, 0.0)
    return weight


@dataclasses.dataclass(frozen=True)
class Objective:
  """What training minimises.

  Attributes:
    terms: label -> weighted term.
  """

  terms: dict[str, Weighted]

  def init(self, key: jax.Array) -> dict[str, dict[str, Any]]:
    """Learnable parameters by label, of the terms that have any."""
    found = {label: one.term.init(_own_key(key, label)) for label, one in self.terms.items()}
    return {label: params for label, params in found.items() if params}

  def loss(
    self, params: dict[str, dict[str, Any]], outputs: Outputs, step: jax.Array | int, key: jax.Array
  ) -> tuple[jax.Array, Scalars]:
    """The weighted sum of the terms.

    Args:
      params: as `init` made them.
      outputs: of the model, on the global batch.
      step: () int32, for the weights.
      key: of this step, for terms that draw. Each draws by its label, whatever the other terms.

    Returns:
      () float32, and () float32 scalars: "loss/<label>" of each term, unweighted, "loss/total",
      and "<label>/<name>" for whatever a term logs.

    Raises:
      ConfigError: a term names a head or a route that the model lacks; raised while tracing.
    """
    total = jnp.float32(0)
    metrics: Scalars = {}
    for label, one in self.terms.items():
      try:
        value, logged = one.term.loss(params.get(label, {}), outputs, _own_key(key, label))
      except ConfigError as error:
        raise ConfigError(f"objective.{label}.{error}") from error
      if not one.weight:
        value = jax.lax.stop_gradient(value)
      metrics[f"loss/{label}"] = value
      metrics.update({f"{label}/{name}": scalar for name, scalar in logged.items()})
      total = total + one.weight_at(step) * value
    metrics["loss/total"] = total
    return total, metrics


def _own_key(key: jax.Array, label: str) -> jax.Array:
  return jax.random.fold_in(key, zlib.crc32(label.encode()))
