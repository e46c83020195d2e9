"""The contrastive term: identify a sample's other sensor among the samples of the batch."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from xjepa_jax.config.fields import setting
from xjepa_jax.errors import ConfigError
from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.term import (
  DESCRIPTORS,
  Field,
  Scalars,
  Term,
  descriptors,
  masked_mean,
  mean_of_counted,
)

# Upper bound of a learned inverse temperature, CLIP's, without which training can become unstable.
LARGEST_SCALE = 100.0
_MASKED = -1e30  # finite, so that a row without candidates has a finite log-sum and no NaN gradient


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrastive(Term):
  """Symmetric InfoNCE between the descriptors of every two sensors (CLIP, Radford et al., 2021).

  With s_ij = cos(a_i, b_j) / temperature, over samples i, j that have both sensors, the loss is

    mean over i of (log sum_j exp s_ij + log sum_j exp s_ji) / 2 - s_ii

  averaged over pairs of sensors. With a grid head, a cosine is taken over the cells in which both
  contexts have a token.

  Attributes:
    learn_temperature: log(1 / temperature) is the parameter "log_scale" (), initialised from
      `temperature`, and "temperature" is logged. The inverse temperature in use is clipped to at
      most 100, but the gradient passes the clip, so that the parameter can return.
    cells: number of equal parts into which a descriptor is split, each normalised separately, in
      the order of a grid head: number j of cell c is at j * cells + c, so (B, d * cells) is
      (B, d, cells); 0 or 1 compares whole descriptors.
    across_cells: False contrasts cell c of a sample with cell c of the others, averaged over cells;
      True contrasts it with all cells of all samples, including the other cells of its own sample,
      so that the layout matters and there are B * cells candidates.
  """

  on: str = setting("layout", "head whose descriptors are compared")
  temperature: float = setting(0.1, "at the start if it is learned, else always", above=0)
  learn_temperature: bool = setting(False, "learn log(1 / temperature)")
  cells: int = setting(0, "parts of a descriptor that are compared apart; 0 is the whole", least=0)
  across_cells: bool = setting(False, "contrast a cell with all cells, not only with its own place")

  needs: ClassVar[str] = DESCRIPTORS
  over_samples: ClassVar[bool] = True

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.learn_temperature and self.temperature < 1 / LARGEST_SCALE:
      raise ConfigError(
        f"temperature is {self.temperature!r}; a learned one is kept at {1 / LARGEST_SCALE} or "
        "above."
      )

  def init(self, key: jax.Array) -> dict[str, Any]:
    del key
    if not self.learn_temperature:
      return {}
    return {"log_scale": jnp.float32(-math.log(self.temperature))}

  def loss(
    self, params: dict[str, Any], outputs: Outputs, key: jax.Array
  ) -> tuple[jax.Array, Scalars]:
    del key
    scale = jnp.float32(1 / self.temperature)
    if self.learn_temperature:
      scale = _clipped_scale(params["log_scale"])
    fields = descriptors(outputs, self.on)
    parts = [
      self._between(fields[one], fields[other], scale)
      for one, other in itertools.combinations(fields, 2)
    ]
    return mean_of_counted(parts), {"temperature": 1 / scale} if self.learn_temperature else {}

  def _between(self, one: Field, other: Field, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
    """() InfoNCE of two sensors, and () whether a sample has both."""
    (a, a_there), (b, b_there) = self._split(one), self._split(other)
    similarity = scale * _cosines(a, a_there, b, b_there)
    both = (a_there * b_there).any(axis=-1).T  # (cells, B)
    same = jnp.diagonal(similarity, axis1=1, axis2=2)
    among = jnp.where(both[:, :, None] & both[:, None, :], similarity, _MASKED)
    forth = jax.nn.logsumexp(among, axis=2) - same
    back = jax.nn.logsumexp(among, axis=1) - same
    return masked_mean((forth + back) / 2, both), both.any()

  def _split(self, field: Field) -> tuple[jax.Array, jax.Array]:
    """(B, cells, d) numbers and whether they are there, as float32."""
    values, there = field.numbers()
    rows, size = values.shape
    cells = max(self.cells, 1)
    if size % cells:
      raise ConfigError(f"cells is {cells}, which does not divide descriptors of size {size}.")
    parts = [
      each.reshape(rows, size // cells, cells).swapaxes(1, 2).astype(jnp.float32)
      for each in (values, there)
    ]
    if self.across_cells:
      parts = [each.reshape(rows * cells, 1, -1) for each in parts]
    return parts[0], parts[1]


def _cosines(a: jax.Array, a_there: jax.Array, b: jax.Array, b_there: jax.Array) -> jax.Array:
  """(C, B, E) cosines of (B, C, d) and (E, C, d), each over the numbers that both have.

  Args:
    a, b: 0 where a number is not there.
    a_there, b_there: 1 where it is there, else 0.
  """

  def products(one: jax.Array, other: jax.Array) -> jax.Array:
    return jnp.einsum("bcd,ecd->cbe", one, other, precision="highest")

  def inverse_root(squares: jax.Array) -> jax.Array:
    some = squares > 0
    return jnp.where(some, jax.lax.rsqrt(jnp.where(some, squares, 1.0)), 0.0)

  lengths = inverse_root(products(a * a, b_there)) * inverse_root(products(a_there, b * b))
  return products(a, b) * lengths


def _clipped_scale(log_scale: jax.Array) -> jax.Array:
  excess = jnp.maximum(log_scale.astype(jnp.float32) - math.log(LARGEST_SCALE), 0.0)
  # The excess is subtracted without a gradient: the value is clipped, the gradient is not.
  return jnp.exp(log_scale - jax.lax.stop_gradient(excess))
