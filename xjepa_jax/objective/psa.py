"""Prediction Space Alignment: the latent error under a metric fitted to its own covariance."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from xjepa_jax.config.fields import setting
from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.term import Scalars, Term, errors_by_route, mean_of_counted

# Targets have variance 1: a mean square below this is rounding error, whose directions mean
# nothing, and whose gradient would divide by its square.
_LEAST = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class PSA(Term):
  """Mean e' M e / D over target tokens, e = predicted - sg[target], M their inverse covariance.

  X-JEPA's PSA (Choudhury et al., WACV 2026) measures the error by a learned Mahalanobis metric M.
  What a loss can learn depends on the quantity that is held fixed. With S = mean of e e', the loss
  is tr(M S) / D, and

    with tr M = D, its minimum over M is the smallest eigenvalue of S: all weight goes to the
    direction that is already predicted best, the constant part of the targets and their position;

    with det M = 1, its minimum is det(S)^(1 / D), reached by M = det(S)^(1 / D) S^-1: the geometric
    mean of all eigenvalues instead of the smallest. Each direction is weighted by the relative
    size of its error, so reducing a small one, the content, by one per cent is worth as much as
    reducing a large one by one per cent. It is also the likelihood of a Gaussian error with fitted
    covariance: -log p of n errors is n / 2 log det S plus a constant.

  The second is minimised in closed form, so M is not a parameter that an optimiser has to track:
  the loss of a route is

    det(S_f)^(1 / D),   S_f = (1 - floor) S + floor (tr S / D) I

  whose gradient at an error is 2 M e / (n D), M = (1 - floor) det(S_f)^(1 / D) S_f^-1 + m I, m =
  floor det(S_f)^(1 / D) tr(S_f^-1) / D. The floor bounds the weight of a direction whose error
  vanishes, such as the mean over D, which is always 0 in targets without a learned scale: without
  the floor, one such direction could bring the loss to 0 and dominate the gradient. It also keeps
  S_f invertible when a batch has fewer target tokens than D; more tokens are better.

  An error that is equal in all directions has the same loss as under "latent", and so does any
  error with floor 1.

  It logs each route's loss as "route/a->b" and, as "evenness/a->b", that loss divided by the mean
  square of the error, which is 1 where the error is equal in all directions.
  """

  floor: float = setting(0.1, "share of the mean eigenvalue in all of them", above=0, most=1)
  routes: tuple[str, ...] = setting((), '"a->b" of those that count; () is all of the model\'s')

  def loss(
    self, params: dict[str, Any], outputs: Outputs, key: jax.Array
  ) -> tuple[jax.Array, Scalars]:
    del params, key
    losses, logged = {}, {}
    for route, (error, both) in errors_by_route(outputs, self.routes).items():
      size, evenness = _fitted(error, both, self.floor)
      losses[route] = (size * evenness, both.any())
      logged[f"route/{route}"] = size * evenness
      logged[f"evenness/{route}"] = jax.lax.stop_gradient(evenness)
    return mean_of_counted(losses.values()), logged


def _fitted(error: jax.Array, both: jax.Array, floor: float) -> tuple[jax.Array, jax.Array]:
  """tr S / D, and det(S_f)^(1 / D) divided by it.

  Args:
    error: (..., D), 0 where a token does not count.
    both: whether a token counts, over the leading axes of `error`.
    floor: see `PSA`.
  """
  width = error.shape[-1]
  # `both` may lack trailing axes of `error`, over which each of its entries counts fully.
  tokens = jnp.maximum(both.sum(), 1) * (error.size // width // both.size)
  products = jnp.einsum("...d,...e->de", error, error, precision="highest") / tokens
  mean = jnp.trace(products) / width
  some = mean > _LEAST
  # Divided by the mean eigenvalue, so that the factored matrix has eigenvalues from `floor` to D.
  relative = products / jnp.where(some, mean, 1.0)
  factor = jnp.linalg.cholesky((1 - floor) * relative + floor * jnp.eye(width))
  # The mean logarithm of the eigenvalues, (log det) / D, from the Cholesky factor.
  logarithm = 2 * jnp.log(jnp.diagonal(factor)).mean()
  return mean, jnp.where(some, jnp.exp(logarithm), 1.0)
