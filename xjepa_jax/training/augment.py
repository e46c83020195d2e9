"""Augmentation on the device: the same geometry for a pair's sensors, radiometry for each alone.

Mirrors, turns and zoom must be drawn once per pair, or the sensors' tokens would no longer lie on
the same ground. Gain, offset, curve and noise are drawn per sensor. Pixels and bands that were not
seen are 0 before and stay 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from xjepa_jax.config import AugmentConfig


def augment(values: Mapping[str, Array], settings: AugmentConfig, key: Array) -> dict[str, Array]:
  """Mirror, turn and zoom images, and perturb their radiometry.

  Args:
    values: sensor -> (B, H, W, C) scaled images; 0 is a band's mean and marks what was not seen.
    settings: the augmentations and their strengths.
    key: the random key.

  Returns:
    Images of the same sensors and shapes.
  """
  batch = next(iter(values.values())).shape[0]
  turn_key, radiometry_key = jax.random.split(key)
  zoom_key = jax.random.fold_in(turn_key, 1)
  turns = jax.random.bernoulli(turn_key, 0.5, (3, batch))
  found = {}
  for number, (name, each) in enumerate(values.items()):
    x = each
    if settings.flips:
      x = _where(turns[0], x[:, :, ::-1], x)
    if settings.quarter_turns and x.shape[1] == x.shape[2]:
      # A mirrored transpose is a quarter turn, and two mirrors are a half turn.
      x = _where(turns[1], jnp.swapaxes(x, 1, 2)[:, ::-1], x)
      x = _where(turns[2], x[:, ::-1, ::-1], x)
    if settings.zoom:
      x = _zoomed(x, settings.zoom, zoom_key)
    found[name] = _disturb(x, settings, jax.random.fold_in(radiometry_key, number))
  return found


def _disturb(values: Array, settings: AugmentConfig, key: Array) -> Array:
  """Apply a random gain and offset per band and noise per pixel; unseen pixels and bands stay 0."""
  gain_key, offset_key, noise_key = jax.random.split(key, 3)
  shape = (values.shape[0], 1, 1, values.shape[-1])
  x = values
  if settings.gain:
    x = x * (1 + settings.gain * jax.random.normal(gain_key, shape))
  if settings.offset:
    x = x + settings.offset * jax.random.normal(offset_key, shape)
  if settings.curve:
    # The map is odd and monotone and keeps 0: it bends values towards or away from a band's mean.
    drawn = jax.random.normal(jax.random.fold_in(key, 1), shape)
    bend = jnp.exp(settings.curve * drawn)
    x = jnp.sinh(bend * jnp.arcsinh(x))
  if settings.noise:
    x = x + settings.noise * jax.random.normal(noise_key, values.shape)
  nothing = values == 0
  unseen, missing = nothing.all(axis=-1, keepdims=True), nothing.all(axis=(1, 2), keepdims=True)
  return jnp.where(unseen | missing, 0.0, x)


def _zoomed(values: Array, most: float, key: Array) -> Array:
  """Enlarge a random part of each image to the image's size, with linear interpolation.

  A pixel interpolated from any unseen pixel is unseen.
  """
  batch, height, width, _ = values.shape
  scale_key, place_key = jax.random.split(key)
  scales = jax.random.uniform(scale_key, (batch,), minval=1.0, maxval=1.0 + most)
  places = jax.random.uniform(place_key, (batch, 2))

  def one(image: Array, scale: Array, place: Array) -> Array:
    shift = -place * (scale - 1) * jnp.array([height, width], jnp.float32)
    both = jnp.stack([scale, scale])
    return jax.image.scale_and_translate(
      image, image.shape, (0, 1), both, shift, "linear", antialias=False
    )

  seen = (values != 0).any(axis=-1, keepdims=True).astype(values.dtype)
  whole = jax.vmap(one)(seen, scales, places) > 0.999  # 1 up to rounding: seen pixels only
  return jnp.where(whole, jax.vmap(one)(values, scales, places), 0.0)


def _where(chosen: Array, one: Array, other: Array) -> Array:
  return jnp.where(chosen[:, None, None, None], one, other)
