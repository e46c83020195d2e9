"""SIGReg: as a set, every sensor's descriptors should look like samples of a standard normal."""

from __future__ import annotations

import dataclasses
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
  mean_of_counted,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SIGReg(Term):
  """Sketched isotropic Gaussian regularisation (LeJEPA, Balestriero and LeCun, arXiv 2511.08544).

  Along each random unit direction u, it computes the Epps-Pulley statistic of the n projections
  x_i = u' z_i of the samples that have the sensor:

    n * integral of |phi(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt,  phi(t) = mean of exp(i t x_i)

  over [-extent, extent], computed by the trapezoid rule as twice the integral over [0, extent],
  because the integrand is even; then it averages over directions and sensors. As in the paper, the
  factor n makes the statistic of true standard normal samples independent of n, so that its
  gradient at one sample does not shrink with the batch.

  Cells of a grid head's descriptor without a token of the context are left out: x_i is u' z_i over
  the numbers present, with u rescaled to unit length over these. If z is standard normal, x_i then
  is too, whatever is missing.

  Sensors are treated separately: pooled, a gap between sensors could hide in the total variance.

  The directions are drawn anew at every step: a standard normal (K, slices) array whose columns
  are divided by their lengths. It logs each sensor's statistic as "sensor/<sensor>".
  """

  on: str = setting("layout", "head whose raw descriptors are taken")
  slices: int = setting(256, "random directions", least=1)
  points: int = setting(17, "at which the integrand is evaluated, ends included", least=2)
  extent: float = setting(3.0, "of the integral", above=0)

  needs: ClassVar[str] = DESCRIPTORS
  over_samples: ClassVar[bool] = True

  def loss(
    self, params: dict[str, Any], outputs: Outputs, key: jax.Array
  ) -> tuple[jax.Array, Scalars]:
    del params
    parts = {
      sensor: (self._statistic(field, key), field.there.any())
      for sensor, field in descriptors(outputs, self.on).items()
    }
    logged = {f"sensor/{sensor}": value for sensor, (value, _) in parts.items()}
    return mean_of_counted(parts.values()), logged

  def _statistic(self, field: Field, key: jax.Array) -> jax.Array:
    values, there = field.numbers()
    drawn = jax.random.normal(key, (values.shape[-1], self.slices), jnp.float32)
    directions = drawn / jnp.linalg.norm(drawn, axis=0)
    projected = jnp.einsum("bk,ks->bs", values, directions, precision="highest")
    # Squared length of each direction over the numbers that a sample has.
    left = jnp.einsum("bk,ks->bs", there.astype(jnp.float32), directions**2, precision="highest")
    projected = projected * jax.lax.rsqrt(jnp.where(left > 0, left, 1.0))
    present = there.any(axis=1)
    t = jnp.linspace(0.0, self.extent, self.points, dtype=jnp.float32)
    normal = jnp.exp(-t * t / 2)
    angles = projected[..., None] * t
    seen = present[:, None, None]
    number = present.sum().astype(jnp.float32)
    real = jnp.sum(jnp.cos(angles), axis=0, where=seen) / jnp.maximum(number, 1)
    imaginary = jnp.sum(jnp.sin(angles), axis=0, where=seen) / jnp.maximum(number, 1)
    distance = (real - normal) ** 2 + imaginary**2
    return number * 2 * jnp.trapezoid(distance * normal, t, axis=-1).mean()
