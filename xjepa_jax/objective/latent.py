"""The latent term: predicted tokens against the target encoder's."""

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
  errors_by_route,
  masked_mean,
  mean_of_counted,
  no_parameters,
)

DISTANCES = ("l2", "smooth_l1", "l1")


def latent(distance: str = "l2", beta: float = 1.0, routes: Sequence[str] = ()) -> Term:
  """Mean distance between predicted and target tokens.

  With an error e = predicted - sg[target], the mean over target tokens of samples that have both
  sensors, but for those of which nothing was seen, and over D, then over routes, of

    "l2": e^2 (X-JEPA, Choudhury et al., WACV 2026: || g(f(x_a), m) - sg[f_ema(x_b)] ||^2);
    "smooth_l1": e^2 / (2 beta) where |e| < beta, |e| - beta / 2 elsewhere (I-JEPA, Assran et al.,
      CVPR 2023);
    "l1": |e|.

  Alone this term collapses: give it company (vicreg, sigreg, contrastive).

  Args:
    distance: one of the above.
    beta: where "smooth_l1" goes over from a square to a line.
    routes: "a->b" of those that count, or none for all of the model's. A route that no sample of
      the batch has is left out of the mean.

  Returns:
    A term that learns nothing and logs each route's loss as "route/a->b".

  Raises:
    ConfigError: an option has a value that cannot work.
  """
  distance = options.word("distance", distance, one_of=DISTANCES)
  beta = options.number("beta", beta, above=0)
  routes = options.route_names("routes", routes)

  def of_error(error: jax.Array) -> jax.Array:
    # Not jnp.abs, whose gradient at 0 is 1: where a token is predicted exactly, there is none.
    size = error * jax.lax.stop_gradient(jnp.sign(error))
    if distance == "l1":
      return size
    square = error * error
    if distance == "l2":
      return square
    return jnp.where(size < beta, square / (2 * beta), size - beta / 2)

  def loss(params: dict[str, Any], outputs: Outputs, key: jax.Array) -> tuple[jax.Array, Scalars]:
    del params, key
    losses = {
      route: (masked_mean(of_error(error), both), both.any())
      for route, (error, both) in errors_by_route(outputs, routes).items()
    }
    logged = {f"route/{route}": value for route, (value, _) in losses.items()}
    return mean_of_counted(losses.values()), logged

  return Term(no_parameters, loss)
