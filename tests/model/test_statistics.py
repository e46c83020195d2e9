"""Statistics of whole images against NumPy, and what fill and missing bands do."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy import ndimage

from xjepa_jax.model.gradients import oriented_gradients
from xjepa_jax.model.statistics import count_statistics, statistics

pytestmark = pytest.mark.usefixtures("compiled", "compiled_quickly")
measure = jax.jit(statistics)
gradients = jax.jit(oriented_gradients, static_argnums=1)
chance = np.random.default_rng(0)
SIDE = 32
SMOOTH = ndimage.gaussian_filter(chance.normal(size=(2, SIDE, SIDE, 3)), (0, 2, 2, 0))
IMAGES = (6 * SMOOTH + chance.normal(size=SMOOTH.shape) * (1 + SMOOTH**2)).astype(np.float32)
IMAGES[1, :, :9] = 0  # fill: half a piece of 2 pixels, a quarter of one of 4


def found(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  told, seen = measure(images)
  return np.asarray(told), np.asarray(seen)


def by_hand(image: np.ndarray) -> np.ndarray:
  """(F,) of an image (32, 32, C), in float64, a piece after the other."""
  bands = image.shape[-1]
  seen = (image != 0).any(-1)
  of_bands = [image[seen].mean(0), np.log(image[seen].std(0) + 0.05)]
  deviations, within, spread = [], [], []
  for side in (2, 4, 8, 16):
    cut = image.astype(float).reshape(SIDE // side, side, SIDE // side, side, bands)
    there = seen.reshape(SIDE // side, side, SIDE // side, side).swapaxes(1, 2)
    pieces = [
      piece[mask]
      for piece, mask in zip(
        cut.swapaxes(1, 2).reshape(-1, side, side, bands),
        there.reshape(-1, side, side),
        strict=True,
      )
      if mask.mean() >= 0.5
    ]
    means = np.array([piece.mean(0) for piece in pieces])
    texture = np.log(np.array([piece.std(0) for piece in pieces]) + 0.05)
    deviations.append(np.log(means.std(0) + 0.05))
    within.append(texture.mean(0))
    spread.append(texture.std(0))
    if side == 4:
      skewness = np.cbrt(((means - means.mean(0)) ** 3).mean(0))
      together = np.corrcoef(means.T)[np.triu_indices(bands, 1)]
  told = np.stack([*of_bands, *deviations, *within, *spread, skewness], axis=-1)
  cells, there = gradients(image[None], 16)
  directions = np.asarray(cells)[0][np.asarray(there)[0]].std(0).mean()
  return np.concatenate([told.ravel(), together, [directions]])


def test_they_are_those_of_numpy_over_what_was_seen() -> None:
  told, seen = found(IMAGES)
  assert told.shape == (2, count_statistics(3)) == (2, 49) and seen.all()
  for number, image in enumerate(IMAGES):
    np.testing.assert_allclose(told[number], by_hand(image), rtol=1e-3, atol=2e-3)


def test_turns_and_flips_change_them_little_or_not_at_all() -> None:
  told, _ = found(IMAGES[:1])
  for turned in (IMAGES[:1, ::-1], np.rot90(IMAGES[:1], axes=(1, 2)), IMAGES[:1].swapaxes(1, 2)):
    other, _ = found(np.ascontiguousarray(turned))
    np.testing.assert_allclose(other[:, :-1], told[:, :-1], atol=1e-4)
    np.testing.assert_allclose(other[:, -1], told[:, -1], atol=0.01)  # nine directions


def test_an_image_of_nothing_but_fill_is_told_so_and_one_without_contrast_is_finite() -> None:
  nothing = np.zeros((1, SIDE, SIDE, 3), np.float32)
  told, seen = found(nothing)
  assert not told.any() and not seen.any()
  told, seen = found(nothing + np.float32(0.7))
  assert np.isfinite(told).all() and seen.all()
  np.testing.assert_allclose(told[0, 0], 0.7, rtol=1e-4)


def test_a_band_that_is_missing_is_told_as_the_mean_of_the_others() -> None:
  lacking = IMAGES[:1].copy()
  lacking[..., 1] = 0
  told = found(lacking)[0][0, :45].reshape(3, 15)
  np.testing.assert_allclose(told[1], told[[0, 2]].mean(axis=0), rtol=1e-5)
  whole = found(IMAGES[:1])[0][0, :45].reshape(3, 15)
  np.testing.assert_allclose(told[[0, 2]], whole[[0, 2]], atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 16, 1), (24, 40, 2), (7, 9, 12)])
def test_images_of_any_size_and_bands_are_told_finitely(shape: tuple[int, int, int]) -> None:
  told, _ = found(chance.normal(size=(2, *shape)).astype(np.float32))
  assert told.shape == (2, count_statistics(shape[2])) and np.isfinite(told).all()
