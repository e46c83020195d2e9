"""The places term: a prediction has to match its own place among those of the same image.

Regression can be solved in part by what all places of a scene share, and by what a place has in all
scenes. Distinguishing the places of one image cannot be solved by the former. Patch discrimination
in this sense comes from Galileo (Tseng et al., ICML 2025) and OlmoEarth (2025).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from xjepa_jax.config.fields import setting
from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.term import (
  Scalars,
  Term,
  masked_mean,
  mean_of_counted,
  predictions_by_route,
  unit,
)

_MASKED = -1e30  # finite, so that a row without candidates has a finite log-sum


@dataclasses.dataclass(frozen=True, kw_only=True)
class Places(Term):
  """InfoNCE of a prediction among the targets of its own image.

  With s_mn = cos(predicted_m, sg[target_n]) / temperature over the counted places m, n of one image
  and route, the loss is the mean over m of log sum_n exp s_mn - s_mm. Here n runs over m itself and
  the places whose target differs from that of m, because overlapping target blocks contain a place
  twice. It logs each route's loss as "route/a->b".
  """

  temperature: float = setting(0.1, "of the softmax", above=0)
  routes: tuple[str, ...] = setting((), '"a->b" of those that count; () is all of the model\'s')

  def loss(
    self, params: dict[str, Any], outputs: Outputs, key: jax.Array
  ) -> tuple[jax.Array, Scalars]:
    del params, key
    losses = {
      route: (_surprise(predicted, target, count, self.temperature), count.any())
      for route, (predicted, target, count) in predictions_by_route(outputs, self.routes).items()
    }
    logged = {f"route/{route}": value for route, (value, _) in losses.items()}
    return mean_of_counted(losses.values()), logged


def _surprise(
  predicted: jax.Array, target: jax.Array, count: jax.Array, temperature: float
) -> jax.Array:
  goal = unit(target)
  cosines = jnp.einsum("bmd,bnd->bmn", unit(predicted), goal, precision="highest")
  itself = jnp.eye(goal.shape[1], dtype=bool)
  same = (target[:, :, None] == target[:, None]).all(axis=-1)
  others = count[:, None, :] & ~same
  scores = jnp.where(others | itself, cosines / temperature, _MASKED)
  own = jnp.diagonal(scores, axis1=1, axis2=2)
  return masked_mean(jax.nn.logsumexp(scores, axis=-1) - own, count)
