"""Tokens of which nothing was seen: patches of nodata, beside a swath or a mosaic's edge.

Such a token says nothing of the ground. It is kept, since shapes are static, and hidden: no token
attends to it, no head pools it, the predictor does not look at it, and as a target it has no
weight. Masks avoid it as far as they can (`masking`). An encoder gives it as the null vector, which
a norm gives no other token, so whoever is handed tokens knows which are meant (`shown`).
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from xjepa_jax.model.inputs import SensorInput, patches

# Of a logit: its weight is 0, and where all are hidden, as in an image of nothing but fill, all
# weights are alike instead of NaN.
HIDDEN = -1e30


def seen_share(given: SensorInput, values: Array) -> Array:
  """The share of each token's pixels that were seen.

  Told from what a network is given, and so after cropping and augmenting too: a pixel that was not
  seen is 0 in every band (`images.scale`), and stays that. To a network, one that was seen and is 0
  in every band looks the same; of a sensor that cannot lack pixels, all were seen.

  Args:
    given: the sensor.
    values: (B, H, W, C) scaled images.

  Returns:
    (B, N) float32, N in row-major order.
  """
  sensor = given.sensor
  if sensor.nodata is None and not sensor.dtype.startswith("float"):
    return jnp.ones((len(values), given.tokens), jnp.float32)
  there = (values != 0).any(axis=-1, keepdims=True)
  return patches(there.astype(jnp.float32), given.patch).mean(axis=(-2, -1))


def shown(tokens: Array) -> Array:
  """(..., n) bool: which of (..., n, D) tokens are not hidden."""
  return (tokens != 0).any(axis=-1)
