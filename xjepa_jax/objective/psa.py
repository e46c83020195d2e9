"""Prediction Space Alignment: the latent error under a learned metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from xjepa_jax.errors import ConfigError
from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective import options
from xjepa_jax.objective.term import Scalars, Term, errors_by_route, masked_mean, mean_of_counted


def psa(*, width: int, floor: float = 0.1, routes: Sequence[str] = ()) -> Term:
  """Mean sqrt(e' M e) over target tokens, e = predicted - sg[target], M learned (X-JEPA's PSA).

  M is symmetric, positive definite, and of trace D:

    M = (1 - floor) D L L' / tr(L L') + floor I

  with L, a D x D parameter, the identity at first, when the term is the mean length of the error.
  Left free, M would learn to be 0, since that is what minimises the loss; with its trace fixed, it
  can only move its weight from one direction to another. It moves it to where predictions are
  good, so the floor, added after L L' has been normalised (else L would outgrow it), keeps every
  eigenvalue at `floor` or above: no direction is given up.

  Args:
    width: D, of the predicted tokens.
    floor: the least eigenvalue of M, between 0 and 1; at 1, M stays the identity.
    routes: "a->b" of those that count, or none for all of the model's. A route that no sample of
      the batch has is left out of the mean.

  Returns:
    A term that learns {"factor": (D, D)}. It logs each route's loss as "route/a->b" and, as
    "eigenvalue_std", the standard deviation of M's eigenvalues, which is 0 for the identity.

  Raises:
    ConfigError: an option has a value that cannot work.
  """
  width = options.whole("width", width, least=1)
  floor = options.number("floor", floor, above=0)
  if floor > 1:
    raise ConfigError(f"floor is {floor!r}; expected at most 1.")
  routes = options.route_names("routes", routes)

  def init(key: jax.Array) -> dict[str, Any]:
    del key
    return {"factor": jnp.eye(width, dtype=jnp.float32)}

  def loss(params: dict[str, Any], outputs: Outputs, key: jax.Array) -> tuple[jax.Array, Scalars]:
    del key
    factor = params["factor"].astype(jnp.float32)
    scale = (1 - floor) * width / jnp.maximum(jnp.sum(factor * factor), 1e-20)

    def length(error: jax.Array) -> jax.Array:
      # A sum of squares, e' L L' e = |L' e|^2, so that rounding cannot make it negative.
      turned = jnp.einsum("bmd,de->bme", error, factor, precision="highest")
      return _safe_sqrt(scale * jnp.sum(turned**2, -1) + floor * jnp.sum(error**2, -1))

    losses = {}
    for route, (error, both) in errors_by_route(outputs, routes).items():
      if error.shape[-1] != width:
        raise ConfigError(f"width is {width}; predicted tokens have {error.shape[-1]}.")
      losses[route] = (masked_mean(length(error), both), both.any())
    logged = {f"route/{route}": value for route, (value, _) in losses.items()}
    logged["eigenvalue_std"] = _eigenvalue_std(factor, scale)
    return mean_of_counted(losses.values()), logged

  return Term(init, loss)


def _safe_sqrt(values: jax.Array) -> jax.Array:
  """Square root with a gradient of 0 at 0, where it would be infinite and 0 * inf is NaN."""
  some = values > 0
  return jnp.where(some, jnp.sqrt(jnp.where(some, values, 1.0)), 0.0)


def _eigenvalue_std(factor: jax.Array, scale: jax.Array) -> jax.Array:
  """Of scale L L' + floor I: the size of what is left without the mean of its eigenvalues."""
  product = scale * jnp.einsum("de,fe->df", factor, factor, precision="highest")
  rest = product - jnp.mean(jnp.diagonal(product)) * jnp.eye(len(product))
  return jax.lax.stop_gradient(jnp.sqrt(jnp.sum(rest * rest) / len(product)))
