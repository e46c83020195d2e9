"""The term of places: a prediction has to find its place among those of the same image.

Regression can be answered by what all places of a scene share, and by what a place has in all
scenes; telling the places of one image apart cannot be answered by the former. Patch discrimination
in this sense is of Galileo (Tseng et al., ICML 2025) and OlmoEarth (2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective import options
from xjepa_jax.objective.term import (
  Scalars,
  Term,
  masked_mean,
  mean_of_counted,
  no_parameters,
  predictions_by_route,
  unit,
)

_MASKED = -1e30  # finite, so that a row without anybody has a finite log-sum


def places(temperature: float = 0.1, routes: Sequence[str] = ()) -> Term:
  """InfoNCE of a prediction among the targets of its own image.

  With s_mn = cos(predicted_m, sg[target_n]) / temperature over the places m, n of one image and
  route that count, the mean over m of log sum_n exp s_mn - s_mm, n running over m itself and the
  places whose target differs from its own: where target blocks overlap, a place is asked twice.

  Args:
    temperature: of the softmax.
    routes: "a->b" of those that count, or none for all of the model's.

  Returns:
    A term that learns nothing and logs each route's loss as "route/a->b".

  Raises:
    ConfigError: an option has a value that cannot work.
  """
  temperature = options.number("temperature", temperature, above=0)
  routes = options.route_names("routes", routes)

  def of_route(predicted: jax.Array, target: jax.Array, count: jax.Array) -> jax.Array:
    goal = unit(target)
    cosines = jnp.einsum("bmd,bnd->bmn", unit(predicted), goal, precision="highest")
    itself = jnp.eye(goal.shape[1], dtype=bool)
    same = (target[:, :, None] == target[:, None]).all(axis=-1)
    others = count[:, None, :] & ~same
    scores = jnp.where(others | itself, cosines / temperature, _MASKED)
    own = jnp.diagonal(scores, axis1=1, axis2=2)
    return masked_mean(jax.nn.logsumexp(scores, axis=-1) - own, count)

  def loss(params: dict[str, Any], outputs: Outputs, key: jax.Array) -> tuple[jax.Array, Scalars]:
    del params, key
    losses = {
      route: (of_route(predicted, target, count), count.any())
      for route, (predicted, target, count) in predictions_by_route(outputs, routes).items()
    }
    logged = {f"route/{route}": value for route, (value, _) in losses.items()}
    return mean_of_counted(losses.values()), logged

  return Term(no_parameters, loss)
