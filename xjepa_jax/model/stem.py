"""Stems: from a sensor's patches to tokens. Only the requested patches are projected.

One joint projection of all bands treats a missing band as average; one projection per band leaves
it out, so that the encoder also serves products with fewer bands.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array

from xjepa_jax.model.inputs import SensorInput, patches
from xjepa_jax.model.layers import exact, multiply
from xjepa_jax.model.trunk import BlockSpec


class JointStem(nnx.Module):
  """One projection of a patch's pixels in all bands. A missing band is replaced by its mean."""

  def __init__(self, given: SensorInput, spec: BlockSpec, rngs: nnx.Rngs):
    self.patch = given.patch
    self.project = spec.linear(given.patch**2 * given.bands, spec.width, rngs)

  def __call__(self, values: Array, seen: Array, indices: Array | None) -> Array:
    """Project images to tokens.

    Args:
      values: (B, H, W, C) scaled images.
      seen: (B, C) bool, whether the band is present.
      indices: (B, n) row-major places of the requested tokens; None means all.

    Returns:
      (B, n, D).
    """
    tokens = _chosen(patches(values, self.patch), indices)
    return self.project(tokens.reshape(*tokens.shape[:-2], -1))


class BandStem(nnx.Module):
  """One projection per band, summed over the bands that an image has.

  A missing band is left out instead of being filled with zeros, so that one encoder serves
  products with fewer bands. The sum is divided by the square root of the number of bands present,
  which keeps a token's variance independent of it.
  """

  def __init__(self, given: SensorInput, spec: BlockSpec, rngs: nnx.Rngs):
    self.patch = given.patch
    shape = (given.bands, given.patch**2, spec.width)
    init = nnx.initializers.variance_scaling(1.0, "fan_avg", "uniform", batch_axis=(0,))
    self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
    self.bias = nnx.Param(jnp.zeros((given.bands, spec.width), jnp.float32))
    self.dtype = spec.dtype

  def __call__(self, values: Array, seen: Array, indices: Array | None) -> Array:
    """Project images to tokens; arguments and result as in `JointStem`."""
    tokens = _chosen(patches(values, self.patch), indices)
    weights = seen / jnp.maximum(jnp.sqrt(jnp.sum(seen, -1, keepdims=True)), 1.0)
    weighted = (tokens * weights[:, None, None]).astype(self.dtype).swapaxes(-1, -2)
    kernel = self.kernel[...].reshape(-1, self.kernel.shape[-1])
    projected = multiply(weighted.reshape(*tokens.shape[:2], -1), kernel)
    return (
      projected + jnp.matmul(weights, self.bias[...], precision=exact(weights))[:, None]
    ).astype(self.dtype)


STEMS: dict[str, type[JointStem] | type[BandStem]] = {"joint": JointStem, "bands": BandStem}


def _chosen(tokens: Array, indices: Array | None) -> Array:
  """The requested tokens (B, n, P, C) of (B, N, P, C)."""
  if indices is None:
    return tokens
  return jnp.take_along_axis(tokens, indices[:, :, None, None], axis=1)
