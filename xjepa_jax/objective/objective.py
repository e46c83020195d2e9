"""The objective: a weighted sum of terms, each weight a function of the step.

A term draws random numbers from a key of its own label, so adding a term does not change what the
others draw. A term with weight 0 is logged and has no effect.
"""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

import jax
import jax.numpy as jnp

from xjepa_jax.errors import ConfigError
from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.nested import nested_loss
from xjepa_jax.objective.term import Scalars, Term


@dataclasses.dataclass(frozen=True)
class Objective:
  """The loss that training minimises.

  Attributes:
    terms: label -> term; the label names the term's metrics and parameters.
  """

  terms: dict[str, Term]

  def init(self, key: jax.Array) -> dict[str, dict[str, Any]]:
    """Learnable parameters by label, for the terms that have any."""
    found = {label: term.init(_own_key(key, label)) for label, term in self.terms.items()}
    return {label: params for label, params in found.items() if params}

  def loss(
    self, params: dict[str, dict[str, Any]], outputs: Outputs, step: jax.Array | int, key: jax.Array
  ) -> tuple[jax.Array, Scalars]:
    """Compute the weighted sum of the terms.

    Args:
      params: as returned by `init`.
      outputs: of the model, on the global batch.
      step: () int32, for the weights.
      key: random key of this step. Each term draws from a key of its own, derived from its label,
        so that its draws do not depend on the other terms.

    Returns:
      () float32, and () float32 scalars: "loss/<label>" per term, unweighted, "loss/total", and
      "<label>/<name>" for everything that a term logs.

    Raises:
      ConfigError: a term names a head or a route that the model lacks; raised while tracing.
    """
    total = jnp.float32(0)
    metrics: Scalars = {}
    for label, term in self.terms.items():
      try:
        value, logged = nested_loss(term, params.get(label, {}), outputs, _own_key(key, label))
      except ConfigError as error:
        raise ConfigError(f"objective.{label}.{error}") from error
      if not term.weight:
        # Only logged. Without this, 0 times a gradient that is not finite would be NaN.
        value = jax.lax.stop_gradient(value)
      metrics[f"loss/{label}"] = value
      metrics.update({f"{label}/{name}": scalar for name, scalar in logged.items()})
      total = total + term.weight_at(step) * value
    metrics["loss/total"] = total
    return total, metrics


def _own_key(key: jax.Array, label: str) -> jax.Array:
  return jax.random.fold_in(key, zlib.crc32(label.encode()))
