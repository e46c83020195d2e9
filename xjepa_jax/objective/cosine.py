"""The cosine term: descriptors of one place should point the same way."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp

from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective import options
from xjepa_jax.objective.term import (
  Field,
  Scalars,
  Term,
  descriptors,
  masked_mean,
  mean_of_counted,
  no_parameters,
  rows_where,
  unit,
)


def cosine(on: str = "layout") -> Term:
  """Mean of 1 - cos(z_a, z_b) over samples that have both sensors, then over pairs of sensors.

  The alignment of CR-JEPA's unified head (arXiv 2606.00706). Alone it collapses. A descriptor of
  0 has a cosine of 0 and no gradient. Of a grid head, the cosine is that of the cells of which both
  contexts have a token.

  Args:
    on: head whose descriptors are compared.

  Returns:
    A term that learns and logs nothing.

  Raises:
    ConfigError: `on` is no name.
  """
  on = options.word("on", on)

  def loss(params: dict[str, Any], outputs: Outputs, key: jax.Array) -> tuple[jax.Array, Scalars]:
    del params, key
    fields = descriptors(outputs, on)
    parts = [
      _between(fields[one], fields[other]) for one, other in itertools.combinations(fields, 2)
    ]
    return mean_of_counted(parts), {}

  return Term(no_parameters, loss)


def _between(one: Field, other: Field) -> tuple[jax.Array, jax.Array]:
  """() mean of 1 - cosine, and () whether a sample has both."""
  common = one.there & other.there
  sides = [unit(rows_where(common, side.vectors).reshape(len(common), -1)) for side in (one, other)]
  both = common.any(axis=1)
  return masked_mean(1 - jnp.sum(sides[0] * sides[1], -1), both), both.any()
