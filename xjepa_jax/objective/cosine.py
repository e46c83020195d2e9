"""The cosine term: descriptors of one place should point the same way."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective import options
from xjepa_jax.objective.term import (
  Scalars,
  Term,
  descriptors,
  masked_mean,
  mean_of_counted,
  no_parameters,
  sensor_pairs,
  unit,
)


def cosine(on: str = "layout") -> Term:
  """Mean of 1 - cos(z_a, z_b) over samples that have both sensors, then over pairs of sensors.

  The alignment of CR-JEPA's unified head (arXiv 2606.00706). Alone it collapses. A descriptor of
  0 has a cosine of 0 and no gradient.

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
    units = {sensor: unit(values) for sensor, values in descriptors(outputs, on).items()}
    parts = [
      (masked_mean(1 - jnp.sum(units[one] * units[other], -1), both), both.any())
      for one, other, both in sensor_pairs(outputs, units)
    ]
    return mean_of_counted(parts), {}

  return Term(no_parameters, loss)
