"""Tokens without a single observed pixel: patches of nodata beside a swath or at a mosaic's edge.

Such a token carries no information about the ground. It cannot be dropped, since shapes are static,
so it is hidden: no token attends to it, no head pools it, the predictor ignores it, and as a target
it has weight 0. Masks avoid it as far as they can (`masking`). An encoder returns it as the null
vector, which a norm returns for no other token, so whoever receives tokens can tell which are
hidden (`shown`).
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from xjepa_jax.model.inputs import SensorInput, patches

# Logit of a hidden token. Its weight is 0; and where all tokens are hidden, as in an image of
# nothing but fill, a finite value makes all weights equal instead of NaN.
HIDDEN = -1e30


def seen_share(given: SensorInput, values: Array) -> Array:
  """The share of each token's pixels that were observed.

  Computed from the network's input, so it also holds after cropping and augmentation: an unobserved
  pixel is 0 in every band (`images.scale`) and stays 0. An observed pixel that happens to be 0 in
  every band looks the same to a network. A sensor that cannot lack pixels (integers without a
  nodata value) counts as fully observed.

  Args:
    given: the sensor's input.
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
  """(..., n) bool: which of the tokens (..., n, D) are not hidden."""
  return (tokens != 0).any(axis=-1)
