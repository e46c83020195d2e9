"""From stored values to a network's input, on the device: missing bands, scaling and cropping.

Shards hold values as they came, and batches travel raw; they are scaled here, inside the jitted
step. Afterwards an unobserved pixel is 0 in every band, on which `fill` relies, and the crops of
all sensors of a sample show the same ground.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from xjepa_jax.model.inputs import SensorInput
from xjepa_jax.sensors import Sensor


def scale(sensor: Sensor, stored: Array) -> tuple[Array, Array]:
  """Scale stored values to the network's input.

  A band is missing from an image if none of its pixels has a valid value in it.

  Args:
    sensor: description with the bands of `stored`.
    stored: (B, H, W, C) values as stored.

  Returns:
    (B, H, W, C) float32, 0 where nothing was observed, and (B, C) bool, which bands are present.
  """
  seen = sensor.unmarked(stored).any(axis=(1, 2))
  return jnp.where(seen[:, None, None], sensor.scale(stored), 0.0), seen


def crop(
  values: Mapping[str, Array], inputs: Mapping[str, SensorInput], key: Array | None
) -> dict[str, Array]:
  """Crop images to the model's size, at a random place per sample, or centred if `key` is None.

  All sensors are cropped at the same share of their free margin, rounded to whole pixels of the
  coarsest sensor, so that they show the same ground.
  """
  found = {}
  batch = next(iter(values.values())).shape[0]
  shares = None if key is None else jax.random.uniform(key, (batch, 2))
  steps = _crop_steps(values, inputs)
  rows = math.gcd(*(each.height for each in inputs.values()))
  columns = math.gcd(*(each.width for each in inputs.values()))
  for name, each in values.items():
    given = inputs[name]
    size = (given.height, given.width)
    free = (each.shape[1] - given.height, each.shape[2] - given.width)
    if free == (0, 0):
      found[name] = each
    elif shares is None:
      # Computed from the model's sizes alone, because the other sensors may be absent.
      unit = [given.height // rows, given.width // columns]
      # The margin on each side is rounded down to whole units of the common grid.
      top, left = (
        margin // pixels // 2 * pixels for margin, pixels in zip(free, unit, strict=True)
      )
      found[name] = each[:, top : top + given.height, left : left + given.width]
    else:
      unit = [margin // max(count, 1) for margin, count in zip(free, steps, strict=True)]
      corner = jnp.floor(shares * (jnp.asarray(steps) + 1)).astype(jnp.int32) * jnp.asarray(unit)
      found[name] = jax.vmap(
        lambda image, at, size=size: jax.lax.dynamic_slice(
          image, (at[0], at[1], 0), (*size, image.shape[-1])
        )
      )(each, corner)
  return found


def _crop_steps(values: Mapping[str, Array], inputs: Mapping[str, SensorInput]) -> tuple[int, int]:
  """Number of positions, less one, along each side at which every sensor can be cropped alike."""
  margins = [
    (each.shape[1] - inputs[name].height, each.shape[2] - inputs[name].width)
    for name, each in values.items()
  ]
  return math.gcd(*(rows for rows, _ in margins)), math.gcd(*(columns for _, columns in margins))
