"""VICReg: sensors agree, dimensions keep their spread, and no two of them say the same."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from xjepa_jax.errors import ConfigError
from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective import options
from xjepa_jax.objective.term import (
  Scalars,
  Term,
  descriptors,
  mean_of_counted,
  no_parameters,
  rows_where,
  sensor_pairs,
)

# Inside the square root of the standard deviation, as in the paper: its gradient stays finite.
EPSILON = 1e-4


class _Field(NamedTuple):
  """Vectors at places: (B, P, D) float32, 0 where there is none; (B, P) bool, whether there is."""

  vectors: jax.Array
  there: jax.Array


def vicreg(
  on: str = "layout",
  variance: float = 25.0,
  invariance: float = 25.0,
  covariance: float = 1.0,
  deviation: float = 1.0,
) -> Term:
  """Variance, invariance, covariance (Bardes, Ponce, LeCun, ICLR 2022, eq. 1 to 6).

    variance * v + invariance * s + covariance * c
    v = mean over dimensions of max(0, deviation - sqrt(Var(z_j) + 1e-4))
    s = mean over samples and dimensions of (z_a - z_b)^2
    c = sum over i != j of Cov(z)_ij^2, divided by the number of dimensions

  v and c are the mean over sensors, each of its own samples; s the mean over pairs of sensors, of
  samples that have both. The paper sums v and c over its two branches and s over dimensions; means
  let a weight keep its meaning whatever the number of sensors and of dimensions. Var and Cov are
  unbiased; a sensor that has less than two samples is left out.

  On "tokens", the vectors are the context tokens of the online encoder. Their variance over the
  grid would be satisfied by the encoding of position alone, so v and c are those within positions:
  each position's mean over the batch is subtracted, and so many degrees of freedom fewer are left.
  s compares the tokens themselves, where both sensors have one at the same position.

  Args:
    on: a head, for its raw descriptors, or "tokens".
    variance, invariance, covariance: weights; the paper's are 25, 25, 1.
    deviation: standard deviation above which v asks for nothing more.

  Returns:
    A term that learns nothing and logs v, s and c, unweighted, under their names.

  Raises:
    ConfigError: an option has a value that cannot work.
  """
  on = options.word("on", on)
  variance = options.number("variance", variance, least=0)
  invariance = options.number("invariance", invariance, least=0)
  covariance = options.number("covariance", covariance, least=0)
  deviation = options.number("deviation", deviation, above=0)

  def loss(params: dict[str, Any], outputs: Outputs, key: jax.Array) -> tuple[jax.Array, Scalars]:
    del params, key
    fields = _token_fields(outputs) if on == "tokens" else _descriptor_fields(outputs, on)
    spreads = [_spread(field, deviation) for field in fields.values()]
    parts = {
      "variance": mean_of_counted((hinge, count) for hinge, _, count in spreads),
      "invariance": mean_of_counted(
        _difference(fields[one], fields[other]) for one, other, _ in sensor_pairs(outputs, fields)
      ),
      "covariance": mean_of_counted((square, count) for _, square, count in spreads),
    }
    total = (
      variance * parts["variance"]
      + invariance * parts["invariance"]
      + covariance * parts["covariance"]
    )
    return total, parts

  return Term(no_parameters, loss)


def _descriptor_fields(outputs: Outputs, head: str) -> dict[str, _Field]:
  """A descriptor is a field of one place."""
  return {
    sensor: _Field(values[:, None, :], outputs.present[sensor][:, None])
    for sensor, values in descriptors(outputs, head).items()
  }


def _token_fields(outputs: Outputs) -> dict[str, _Field]:
  """Context tokens, each at its place in the grid: every sensor's context is another subset."""
  grids = {outputs.grid[sensor] for sensor in outputs.tokens}
  if len(grids) > 1:
    raise ConfigError(
      "on is 'tokens', which compares tokens at the same place, but the sensors' grids differ: "
      f"{dict(outputs.grid)}. Name a head instead."
    )
  fields = {}
  for sensor, tokens in outputs.tokens.items():
    present, positions = outputs.present[sensor], outputs.positions[sensor]
    places = math.prod(outputs.grid[sensor])
    there = jnp.broadcast_to(present[:, None], positions.shape)
    fields[sensor] = _Field(
      _scatter(rows_where(present, tokens), positions, places),
      _scatter(there, positions, places),
    )
  return fields


def _scatter(values: jax.Array, positions: jax.Array, places: int) -> jax.Array:
  """Values (B, n, ...) at positions (B, n) of (B, places, ...), zeros elsewhere."""

  def row(values: jax.Array, positions: jax.Array) -> jax.Array:
    return jnp.zeros((places, *values.shape[1:]), values.dtype).at[positions].set(values)

  # A vmap and not an index over B: a batch of scatters stays sharded over B.
  return jax.vmap(row)(values, positions)


def _spread(field: _Field, deviation: float) -> tuple[jax.Array, jax.Array, jax.Array]:
  """() hinge of the deviations, () covariances squared, and () whether there are enough vectors."""
  there = field.there[..., None]
  number = field.there.sum(axis=0)
  means = field.vectors.sum(axis=0) / jnp.maximum(number, 1)[:, None]
  centred = jnp.where(there, field.vectors - means, 0.0)
  freedom = (number - (number > 0)).sum()
  cov = jnp.einsum("bpd,bpe->de", centred, centred, precision="highest") / jnp.maximum(freedom, 1)
  variances = jnp.diagonal(cov)
  hinge = jnp.maximum(deviation - jnp.sqrt(variances + EPSILON), 0.0).mean()
  off_diagonal = jnp.where(jnp.eye(len(cov), dtype=bool), 0.0, cov)
  return hinge, (off_diagonal**2).sum() / len(cov), freedom > 0


def _difference(one: _Field, other: _Field) -> tuple[jax.Array, jax.Array]:
  """() mean square of the difference where both are, and () whether that is anywhere."""
  both = one.there & other.there
  square = jnp.where(both[..., None], one.vectors - other.vectors, 0.0) ** 2
  number = both.sum()
  return square.sum() / (jnp.maximum(number, 1) * square.shape[-1]), number > 0
