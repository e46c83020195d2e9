"""Prediction Space Alignment: the latent error under the metric that its own covariance gives."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from xjepa_jax.config.fields import setting
from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.term import Scalars, Term, errors_by_route, mean_of_counted

# Of targets whose variance is 1: a smaller mean square is rounding, whose directions say nothing,
# and the square of which a gradient divides by.
_LEAST = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class PSA(Term):
  """Mean e' M e / D over target tokens, e = predicted - sg[target], M their inverse covariance.

  X-JEPA's PSA (Choudhury et al., WACV 2026) measures the error by a learned Mahalanobis metric M.
  Which metric a loss can learn depends on what is held fixed. With S = mean of e e', the loss is
  tr(M S) / D, and

    with tr M = D its least value over M is the least eigenvalue of S: all weight goes to the
    direction that is predicted best already, the constant part of the targets and their position;

    with det M = 1 it is det(S)^(1 / D), reached by M = det(S)^(1 / D) S^-1: the mean of logarithms
    of all eigenvalues instead of the least. A direction weighs as much as what is relatively left
    of its error, so a per cent less of a small one, the content, is worth as much as a per cent
    less of a large one. It is the likelihood of a Gaussian error whose covariance is fitted, too:
    -log p of n errors is n / 2 log det S and a constant.

  The second is minimised in closed form, so M is no parameter that an optimiser would have to
  follow with: the loss of a route is

    det(S_f)^(1 / D),   S_f = (1 - floor) S + floor (tr S / D) I

  whose gradient at an error is 2 M e / (n D), M = (1 - floor) det(S_f)^(1 / D) S_f^-1 + m I, m =
  floor det(S_f)^(1 / D) tr(S_f^-1) / D. The floor bounds the weight of a direction whose error
  vanishes, such as the mean over D, which targets without a learned scale do not have: without it
  one such direction could bring the loss to 0, and be all that is taught. It also serves where a
  batch has fewer target tokens than D and S is singular; more are better.

  An error that is alike in all directions has the loss of "latent", and so has floor 1.

  It logs each route's loss as "route/a->b" and, as "evenness/a->b", that loss over the mean square
  of the error: 1 where the error is alike in all directions.
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
  """tr S / D, and det(S_f)^(1 / D) over it.

  Args:
    error: (..., D), 0 where there is none.
    both: whether there is one, of the first axes of `error`.
    floor: see `PSA`.
  """
  width = error.shape[-1]
  tokens = jnp.maximum(both.sum(), 1) * (error.size // width // both.size)
  products = jnp.einsum("...d,...e->de", error, error, precision="highest") / tokens
  mean = jnp.trace(products) / width
  some = mean > _LEAST
  # Relative to its mean eigenvalue: what is factored has eigenvalues from `floor` to D.
  relative = products / jnp.where(some, mean, 1.0)
  factor = jnp.linalg.cholesky((1 - floor) * relative + floor * jnp.eye(width))
  logarithm = 2 * jnp.log(jnp.diagonal(factor)).mean()
  return mean, jnp.where(some, jnp.exp(logarithm), 1.0)
