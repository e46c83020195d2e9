"""Statistics of a whole image: brightness, texture at several scales, correlations of bands.

The classes that a scene shows depend on these rather than on where anything lies. Optical and radar
images differ in them, and canonical correlation keeps what they share (`training.canonical`).

  scaled image -> means and deviations of pieces of 2, 4, 8 and 16 pixels -> their moments
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from xjepa_jax.model.gradients import along_both, areas, oriented_gradients

STATISTICS_PIECES = (2, 4, 8, 16)  # side of a piece in pixels
_TEXTURE = 0.05  # in standard units: a smaller deviation counts as no texture
_LEAST_SEEN = 0.5  # least share of a piece that must be observed
STATISTICS_CELLS = 16  # cells along a side, over which the spread of gradients is measured
_OF_A_BAND = 3 + 3 * len(STATISTICS_PIECES)


def count_statistics(bands: int) -> int:
  """F, the number of `statistics` of an image with this many bands."""
  return _OF_A_BAND * bands + bands * (bands - 1) // 2 + 1


def statistics(values: Array) -> tuple[Array, Array]:
  """Statistics of whole images.

  Args:
    values: (B, H, W, C) scaled images; a pixel that is 0 in every band is unobserved.

  Returns:
    (B, F) float32. Per band: the mean, the logarithms of the deviation of pixels and of the means
    of pieces, mean and deviation over pieces of the logarithm of the deviation within a piece, and
    the skewness of pieces of 4 pixels (cube root of the third moment). Then the correlation of each
    pair of bands, and the spread of oriented gradients. Also (B,) bool, whether anything was
    observed; an image of nothing but fill has only zeros. A band that is 0 throughout is missing
    and gets the mean of the other bands' statistics.
  """
  x = jnp.moveaxis(values.astype(jnp.float32), -1, 1)
  there = (x != 0).any(axis=1, keepdims=True).astype(jnp.float32)
  height, width = x.shape[2:]
  mean = _over(x, there)
  deviations, within, spread = [_deviation(x, there)], [], []
  for side in STATISTICS_PIECES:
    rows = areas(height, max(height // side, 1))
    columns = areas(width, max(width // side, 1))
    share = along_both(rows, there, columns)
    known = (share >= _LEAST_SEEN).astype(jnp.float32)
    means, squares = (
      along_both(rows, of, columns) / jnp.maximum(share, _LEAST_SEEN) * known
      for of in (x, jnp.square(x))
    )
    deviations.append(_deviation(means, known))
    texture = jnp.log(jnp.sqrt(jnp.maximum(squares - jnp.square(means), 0)) + _TEXTURE)
    within.append(_over(texture, known))
    spread.append(_deviation(texture, known))
    if side == STATISTICS_PIECES[1]:
      centred = means - _over(means, known)[..., None, None]
      skewness = jnp.cbrt(_over(centred**3, known))
      together = _correlations(centred, known)
  of_bands = [mean, *(jnp.log(each + _TEXTURE) for each in deviations), *within, *spread, skewness]
  told = _filled_in(jnp.stack(of_bands, axis=-1), (x != 0).any(axis=(2, 3)))
  found = [told.reshape(len(x), -1), together, _directions(values)]
  seen = there.any(axis=(1, 2, 3))
  joined = jnp.where(seen[:, None], jnp.concatenate(found, axis=-1), 0)
  return jax.lax.stop_gradient(joined), seen


def _over(x: Array, weights: Array) -> Array:
  """Weighted means (B, C) of (B, C, H, W), weights (B, 1, H, W)."""
  return (x * weights).sum(axis=(2, 3)) / jnp.maximum(weights.sum(axis=(2, 3)), 1e-6)


def _deviation(x: Array, weights: Array) -> Array:
  """Weighted standard deviations (B, C), arguments as in `_over`."""
  return jnp.sqrt(jnp.maximum(_over(jnp.square(x), weights) - jnp.square(_over(x, weights)), 0))


def _correlations(centred: Array, known: Array) -> Array:
  """Correlations (B, C (C - 1) / 2) of each pair of bands over the observed pieces."""
  weighted = centred * known
  covariance = jnp.einsum("bchw,bdhw->bcd", weighted, weighted, precision="highest")
  covariance = covariance / jnp.maximum(known.sum(axis=(2, 3)), 1)[..., None]
  root = jnp.sqrt(jnp.maximum(jnp.diagonal(covariance, axis1=1, axis2=2), 1e-4))
  one, other = np.triu_indices(centred.shape[1], 1)
  return (covariance / (root[:, :, None] * root[:, None]))[:, one, other]


def _directions(values: Array) -> Array:
  """(B, 1): the deviation over cells of their oriented gradients, averaged over directions."""
  gradients, seen = oriented_gradients(values, STATISTICS_CELLS)
  weights = seen[..., None].astype(jnp.float32)
  count = jnp.maximum(weights.sum(axis=1), 1)
  mean = (gradients * weights).sum(axis=1) / count
  square = (jnp.square(gradients) * weights).sum(axis=1) / count
  spread = jnp.sqrt(jnp.maximum(square - jnp.square(mean), 0))
  return spread.mean(axis=-1, keepdims=True)


def _filled_in(told: Array, bands: Array) -> Array:
  """Statistics (B, C, K) per band, with missing bands (B, C) set to the mean of the others."""
  weights = bands[..., None].astype(told.dtype)
  mean = (told * weights).sum(axis=1, keepdims=True)
  mean = mean / jnp.maximum(weights.sum(axis=1, keepdims=True), 1)
  return jnp.where(bands[..., None], told, mean)
