"""The contrastive term: a sample's other sensor, found among the batch's."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from xjepa_jax.errors import ConfigError
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

# Of a learned temperature's inverse; CLIP's bound, without which training can become unstable.
LARGEST_SCALE = 100.0
_MASKED = -1e30  # Finite, so that a row without anybody has a finite log-sum, and no NaN gradient.


def contrastive(
  on: str = "layout",
  temperature: float = 0.1,
  learn_temperature: bool = False,
  cells: int = 0,
  across_cells: bool = False,
) -> Term:
  """Symmetric InfoNCE between the descriptors of every two sensors (CLIP, Radford et al., 2021).

  With s_ij = cos(a_i, b_j) / temperature, over samples i, j that have both sensors:

    mean over i of (log sum_j exp s_ij + log sum_j exp s_ji) / 2 - s_ii

  and the mean over pairs of sensors.

  Args:
    on: head whose descriptors are compared.
    temperature: at the start if learned, else always.
    learn_temperature: learn log(1 / temperature). The value used is clipped to at most 100 while
      the gradient passes the clip, so that the parameter can come back.
    cells: parts of equal size in which a descriptor is split, each with a length of its own, in
      the order of a grid head: number j of cell c stands at j * cells + c, so (B, d * cells) is
      (B, d, cells); 0 or 1 compares whole descriptors.
    across_cells: False contrasts cell c of a sample with cell c of the others, and takes the mean
      over cells; True contrasts it with all cells of all samples, its own others included, so
      that layout counts and there are B * cells candidates.

  Returns:
    A term that learns {"log_scale": ()} if the temperature is learned, and logs "temperature"
    then.

  Raises:
    ConfigError: an option has a value that cannot work.
  """
  on = options.word("on", on)
  temperature = options.number("temperature", temperature, above=0)
  cells = max(options.whole("cells", cells), 1)
  across_cells = options.flag("across_cells", across_cells)
  if options.flag("learn_temperature", learn_temperature) and temperature < 1 / LARGEST_SCALE:
    raise ConfigError(
      f"temperature is {temperature!r}; a learned one is kept at {1 / LARGEST_SCALE} or above."
    )

  def init(key: jax.Array) -> dict[str, Any]:
    del key
    return {"log_scale": jnp.float32(-math.log(temperature))}

  def split(values: jax.Array) -> jax.Array:
    rows, size = values.shape
    if size % cells:
      raise ConfigError(f"cells is {cells}, which does not divide descriptors of size {size}.")
    return unit(values.reshape(rows, size // cells, cells).swapaxes(1, 2))

  def between(one: jax.Array, other: jax.Array, both: jax.Array, scale: jax.Array) -> jax.Array:
    if across_cells:
      one, other = (side.reshape(-1, 1, side.shape[-1]) for side in (one, other))
      both = jnp.repeat(both, cells)
    similarity = scale * jnp.einsum("bcd,ecd->cbe", one, other, precision="highest")
    same = jnp.diagonal(similarity, axis1=1, axis2=2)
    among = jnp.where(both[:, None] & both[None, :], similarity, _MASKED)
    forth = jax.nn.logsumexp(among, axis=2) - same
    back = jax.nn.logsumexp(among, axis=1) - same
    return masked_mean(((forth + back) / 2).T, both)

  def loss(params: dict[str, Any], outputs: Outputs, key: jax.Array) -> tuple[jax.Array, Scalars]:
    del key
    scale = jnp.float32(1 / temperature)
    if learn_temperature:
      scale = _clipped_scale(params["log_scale"])
    units = {sensor: split(values) for sensor, values in descriptors(outputs, on).items()}
    parts = [
      (between(units[one], units[other], both, scale), both.any())
      for one, other, both in sensor_pairs(outputs, units)
    ]
    return mean_of_counted(parts), {"temperature": 1 / scale} if learn_temperature else {}

  return Term(init if learn_temperature else no_parameters, loss)


def _clipped_scale(log_scale: jax.Array) -> jax.Array:
  excess = jnp.maximum(log_scale.astype(jnp.float32) - math.log(LARGEST_SCALE), 0.0)
  return jnp.exp(log_scale - jax.lax.stop_gradient(excess))
