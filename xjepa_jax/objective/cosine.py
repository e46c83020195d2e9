"""The cosine term: descriptors of the same place should point in the same direction."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from xjepa_jax.config.fields import setting
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
  unit,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine(Term):
  """Mean of 1 - cos(z_a, z_b) over samples that have both sensors, then over pairs of sensors.

  The alignment term of CR-JEPA's unified head (arXiv 2606.00706). On its own it collapses. A zero
  descriptor has a cosine of 0 and no gradient. With a grid head, the cosine is taken over the cells
  in which both contexts have a token.
  """

  on: str = setting("layout", "head whose descriptors are compared")

  needs: ClassVar[str] = DESCRIPTORS

  def loss(
    self, params: dict[str, Any], outputs: Outputs, key: jax.Array
  ) -> tuple[jax.Array, Scalars]:
    del params, key
    fields = descriptors(outputs, self.on)
    parts = [
      _between(fields[one], fields[other]) for one, other in itertools.combinations(fields, 2)
    ]
    return mean_of_counted(parts), {}


def _between(one: Field, other: Field) -> tuple[jax.Array, jax.Array]:
  """() mean of 1 - cosine, and () whether any sample has both."""
  common = one.there & other.there
  sides = [unit(rows_where(common, side.vectors).reshape(len(common), -1)) for side in (one, other)]
  both = common.any(axis=1)
  return masked_mean(1 - jnp.sum(sides[0] * sides[1], -1), both), both.any()
