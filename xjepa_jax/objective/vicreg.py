"""VICReg: sensors agree, every dimension keeps its spread, and dimensions are decorrelated."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from xjepa_jax.config.fields import setting
from xjepa_jax.errors import ConfigError
from xjepa_jax.model.fill import shown
from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.term import (
  DESCRIPTORS,
  Field,
  Scalars,
  Term,
  descriptors,
  masked_mean,
  mean_of_counted,
  rows_where,
)

# Added inside the square root of the standard deviation, as in the paper, for a finite gradient.
EPSILON = 1e-4


@dataclasses.dataclass(frozen=True, kw_only=True)
class VICReg(Term):
  """Variance, invariance, covariance (Bardes, Ponce, LeCun, ICLR 2022, eq. 1 to 6).

    variance * v + invariance * s + covariance * c
    v = mean over dimensions of max(0, deviation - sqrt(Var(z_j) + 1e-4))
    s = mean over samples and dimensions of (z_a - z_b)^2
    c = sum over i != j of Cov(z)_ij^2, divided by the number of dimensions

  v and c are averaged over sensors, each from its own samples; s is averaged over pairs of sensors,
  from samples that have both. The paper sums v and c over its two branches and s over dimensions;
  with means, a weight keeps its meaning whatever the number of sensors and dimensions. Var and Cov
  are unbiased; a sensor with fewer than two samples is left out.

  Cells of a grid head's descriptor without a token of the context are left out of s, v and c. The
  statistics of the other cells are taken

    over "descriptor": over all its numbers. The covariance of two numbers is taken over the samples
      that have both, with the denominator that makes it unbiased.
    over "cells": over the numbers of a cell, with samples x cells as observations. Each cell's mean
      over the batch is subtracted, since otherwise position alone would satisfy the variance over
      the grid, and the degrees of freedom are reduced accordingly. The covariance of K / cells
      numbers is estimated from `cells` times as many vectors, and neighbouring cells may be alike.

  With `on` "tokens", the vectors are the context tokens of the online encoder, and the statistics
  are taken over positions as they are over cells. s compares the tokens themselves, where both
  sensors have one at the same position. Tokens without observed pixels are left out.

  It logs v, s and c, unweighted, as "variance", "invariance" and "covariance".
  """

  on: str = setting("layout", 'head whose raw descriptors are taken, or "tokens"')
  variance: float = setting(25.0, "weight of v", least=0)
  invariance: float = setting(25.0, "weight of s", least=0)
  covariance: float = setting(1.0, "weight of c", least=0)
  deviation: float = setting(1.0, "standard deviation above which v asks for nothing more", above=0)
  over: str = setting(
    "descriptor",
    "what statistics are taken over; tokens always by position",
    one_of=("descriptor", "cells"),
  )

  needs: ClassVar[str] = DESCRIPTORS
  over_samples: ClassVar[bool] = True

  def loss(
    self, params: dict[str, Any], outputs: Outputs, key: jax.Array
  ) -> tuple[jax.Array, Scalars]:
    del params, key
    tokens = self.on == "tokens"
    fields = _token_fields(outputs) if tokens else descriptors(outputs, self.on)
    whole = self.over == "descriptor" and not tokens
    spread = _spread_of_numbers if whole else _spread_of_vectors
    spreads = [spread(field, self.deviation) for field in fields.values()]
    parts = {
      "variance": mean_of_counted((hinge, count) for hinge, _, count in spreads),
      "invariance": mean_of_counted(
        _difference(fields[one], fields[other]) for one, other in itertools.combinations(fields, 2)
      ),
      "covariance": mean_of_counted((square, count) for _, square, count in spreads),
    }
    total = (
      self.variance * parts["variance"]
      + self.invariance * parts["invariance"]
      + self.covariance * parts["covariance"]
    )
    return total, parts


def _token_fields(outputs: Outputs) -> dict[str, Field]:
  """Context tokens placed in the grid, because every sensor's context is a different subset."""
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
    there = present[:, None] & shown(tokens)
    fields[sensor] = Field(
      _scatter(rows_where(present, tokens), positions, places),
      _scatter(there, positions, places),
    )
  return fields


def _scatter(values: jax.Array, positions: jax.Array, places: int) -> jax.Array:
  """Scatter values (B, n, ...) to positions (B, n) of (B, places, ...); zeros elsewhere."""

  def row(values: jax.Array, positions: jax.Array) -> jax.Array:
    return jnp.zeros((places, *values.shape[1:]), values.dtype).at[positions].set(values)

  # vmap rather than an index over B: a batch of scatters stays sharded over B.
  return jax.vmap(row)(values, positions)


def _spread_of_vectors(field: Field, deviation: float) -> tuple[jax.Array, jax.Array, jax.Array]:
  """() hinge of the deviations, () squared covariances, and () whether there are enough vectors."""
  there = field.there[..., None]
  number = field.there.sum(axis=0)
  means = field.vectors.sum(axis=0) / jnp.maximum(number, 1)[:, None]
  centred = jnp.where(there, field.vectors - means, 0.0)
  # Every place that occurs costs one degree of freedom, its mean.
  freedom = (number - (number > 0)).sum()
  cov = jnp.einsum("bpd,bpe->de", centred, centred, precision="highest") / jnp.maximum(freedom, 1)
  enough = jnp.broadcast_to(freedom > 0, (len(cov),))
  return _hinge(cov, deviation, enough), _squares(cov, enough), freedom > 0


def _spread_of_numbers(field: Field, deviation: float) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The same as `_spread_of_vectors` for all numbers of a sample, each over the samples with it.

  Let n_i samples have number i, n_ij have both i and j, and m_i be the mean over the n_i. The sum
  over the n_ij of (z_i - m_i) (z_j - m_j) has the expectation

    Cov_ij n_ij (1 - 1 / n_i - 1 / n_j + n_ij / (n_i n_j))

  if samples are independent and values are missing at random; this is (n - 1) Cov_ij where nothing
  is missing.
  """
  values, there = field.numbers()
  width = field.vectors.shape[-1]
  number = jnp.maximum(there.sum(axis=0), 1).astype(jnp.float32)
  centred = jnp.where(there, values - values.sum(axis=0) / number, 0.0)
  cells = field.there.astype(jnp.float32)
  pairs = jnp.tile(jnp.einsum("bp,bq->pq", cells, cells, precision="highest"), (width, width))
  freedom = pairs * (1 - 1 / number[:, None] - 1 / number + pairs / (number[:, None] * number))
  products = jnp.einsum("bi,bj->ij", centred, centred, precision="highest")
  # A single sample with both gives no estimate: its factor is 0, or its quotient is huge.
  cov = jnp.where(pairs > 1, products / jnp.where(pairs > 1, freedom, 1.0), 0.0)
  enough = jnp.diagonal(pairs) > 1
  return _hinge(cov, deviation, enough), _squares(cov, enough), enough.any()


def _hinge(cov: jax.Array, deviation: float, enough: jax.Array) -> jax.Array:
  """() mean shortfall of the deviations of a (K, K) covariance, over the numbers in `enough`."""
  shortfall = jnp.maximum(deviation - jnp.sqrt(jnp.diagonal(cov) + EPSILON), 0.0)
  return masked_mean(shortfall, enough)


def _squares(cov: jax.Array, enough: jax.Array) -> jax.Array:
  """() sum of the squares off the diagonal, divided by the count of numbers in `enough`."""
  off_diagonal = jnp.where(jnp.eye(len(cov), dtype=bool), 0.0, cov)
  return (off_diagonal**2).sum() / jnp.maximum(enough.sum(), 1)


def _difference(one: Field, other: Field) -> tuple[jax.Array, jax.Array]:
  """() mean squared difference where both are present, and () whether there is any such place."""
  both = one.there & other.there
  square = jnp.where(both[..., None], one.vectors - other.vectors, 0.0) ** 2
  number = both.sum()
  return square.sum() / (jnp.maximum(number, 1) * square.shape[-1]), number > 0
