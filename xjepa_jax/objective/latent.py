"""The latent term: distance of the predicted tokens from the target encoder's."""

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
  errors_by_route,
  masked_mean,
  mean_of_counted,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latent(Term):
  """Mean distance between predicted and target tokens.

  With the error e = predicted - sg[target], the distance is averaged over the counted target
  tokens and over D, then over routes. A token counts if its sample has both sensors and both the
  token and the context have observed pixels.

    "l2": e^2 (X-JEPA, Choudhury et al., WACV 2026: || g(f(x_a), m) - sg[f_ema(x_b)] ||^2);
    "smooth_l1": e^2 / (2 beta) where |e| < beta, |e| - beta / 2 elsewhere (I-JEPA, Assran et al.,
      CVPR 2023);
    "l1": |e|.

  A route that no sample of the batch has is left out of the mean. On its own this term collapses:
  combine it with another (vicreg, sigreg, contrastive). It logs each route's loss as "route/a->b".
  """

  distance: str = setting("l2", "between tokens", one_of=("l2", "smooth_l1", "l1"))
  beta: float = setting(1.0, "error at which smooth_l1 turns from a square to a line", above=0)
  routes: tuple[str, ...] = setting((), '"a->b" of those that count; () is all of the model\'s')

  def loss(
    self, params: dict[str, Any], outputs: Outputs, key: jax.Array
  ) -> tuple[jax.Array, Scalars]:
    del params, key
    losses = {
      route: (masked_mean(self._distance(error), both), both.any())
      for route, (error, both) in errors_by_route(outputs, self.routes).items()
    }
    logged = {f"route/{route}": value for route, (value, _) in losses.items()}
    return mean_of_counted(losses.values()), logged

  def _distance(self, error: jax.Array) -> jax.Array:
    # Not jnp.abs, whose gradient at 0 is 1: a token that is predicted exactly has no gradient.
    size = error * jax.lax.stop_gradient(jnp.sign(error))
    if self.distance == "l1":
      return size
    square = error * error
    if self.distance == "l2":
      return square
    return jnp.where(size < self.beta, square / (2 * self.beta), size - self.beta / 2)
