"""Augmentation: one geometry for a pair, a radiometry for each sensor, and 0 where nothing is."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from tests.compiling import compiled
from xjepa_jax.config import AugmentConfig
from xjepa_jax.training.augment import augment

BATCH, KEY = 256, jax.random.key(2)
STILL = {"gain": 0.0, "offset": 0.0, "noise": 0.0}


def augmented(values: Any, **settings: Any) -> Any:
  return compiled(lambda x: augment(x, AugmentConfig(**settings), KEY), values)


def places(rows: int, columns: int) -> Any:
  """(B, H, W, 2): a pixel's row and column as shares of the image, from -1 to 1."""
  axes = [(np.arange(size) + 0.5) * 2 / size - 1 for size in (rows, columns)]
  grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).astype(np.float32)
  return np.broadcast_to(grid, (BATCH, rows, columns, 2))


def corners(image: Any) -> tuple[tuple[float, float], ...]:
  """Which quarter of the original lies in each corner of an image of places."""
  return tuple(tuple(np.sign(image[i, j])) for i in (0, -1) for j in (0, -1))


@pytest.fixture(scope="module")
def turned() -> Any:
  """Three sensors of different pixels."""
  values = {"fine": places(8, 8), "coarse": places(4, 4), "odd": places(6, 6)}
  return augmented(values, **STILL)


def test_all_sensors_of_a_pair_are_turned_alike(turned: Any) -> None:
  for sample in range(BATCH):
    found = {corners(each[sample]) for each in turned.values()}
    assert len(found) == 1


def test_all_eight_orientations_are_reached_about_as_often(turned: Any) -> None:
  x = places(8, 8)[0]
  turns = [np.rot90(y, k) for y in (x, x[:, ::-1]) for k in range(4)]
  counts = np.zeros(8)
  for image in turned["fine"]:
    equal = [np.array_equal(image, other) for other in turns]
    assert sum(equal) == 1  # nothing but a turn or a mirrored turn
    counts += equal
  # 32 expected of each, with a standard deviation of 5.3.
  assert counts.min() > 8 and counts.max() < 60


def test_without_quarter_turns_images_are_mirrored_only_and_without_flips_turned_only() -> None:
  values = {"a": places(4, 4)}
  x = values["a"][0]
  for settings, allowed in (
    ({"quarter_turns": False}, [x, x[:, ::-1]]),
    ({"flips": False}, [np.rot90(x, k) for k in range(4)]),
    ({"flips": False, "quarter_turns": False}, [x]),
  ):
    found = augmented(values, **STILL, **settings)["a"]
    kinds = {next(k for k, y in enumerate(allowed) if np.array_equal(y, z)) for z in found}
    assert kinds == set(range(len(allowed)))


def test_images_that_are_not_square_are_not_turned() -> None:
  values = places(4, 6)
  for image in augmented({"a": values}, **STILL)["a"]:
    assert any(np.array_equal(image, other) for other in (values[0], values[0][:, ::-1]))


def test_each_band_of_each_sensor_and_sample_has_a_gain_and_an_offset_of_its_own() -> None:
  values = np.random.default_rng(0).standard_normal((BATCH, 4, 4, 3)).astype(np.float32)
  still = {"flips": False, "quarter_turns": False}
  found = augmented({"a": values, "b": values}, **still, gain=0.2, offset=0.3)
  drawn = []
  for each in found.values():
    x, y = (np.moveaxis(z, 3, 1).reshape(BATCH * 3, 16) for z in (values, each))
    gains = ((x - x.mean(1, keepdims=True)) * y).sum(1) / x.var(1) / 16
    offsets = y.mean(1) - gains * x.mean(1)
    np.testing.assert_allclose(y, gains[:, None] * x + offsets[:, None], atol=1e-5)
    drawn += [*gains.reshape(BATCH, 3).T, *offsets.reshape(BATCH, 3).T]
  gains, offsets = np.stack(drawn[:3] + drawn[6:9]), np.stack(drawn[3:6] + drawn[9:])
  # 1536 numbers: the deviation's own standard error is 1.8 %.
  assert gains.mean() == pytest.approx(1, abs=0.03)
  assert gains.std() == pytest.approx(0.2, rel=0.1)
  assert offsets.mean() == pytest.approx(0, abs=0.04)
  assert offsets.std() == pytest.approx(0.3, rel=0.1)
  correlations = np.corrcoef(drawn)[~np.eye(12, dtype=bool)]
  assert np.abs(correlations).max() < 5.5 / np.sqrt(BATCH)


def test_what_was_not_seen_stays_0_and_a_missing_band_too() -> None:
  values = np.ones((BATCH, 4, 4, 3), np.float32)
  values[:, 1, 2] = 0  # an unseen pixel
  values[:100, ..., 1] = 0  # a missing band
  values[:, 3, 3, 0] = 0  # a pixel that is at its band's mean
  values[200:] = 0  # an absent image
  still = {"flips": False, "quarter_turns": False}
  found = augmented({"a": values}, **still, gain=0.5, offset=0.5, noise=0.5)["a"]
  assert not found[:, 1, 2].any()
  assert not found[:100, ..., 1].any()
  assert not found[200:].any()
  assert found[:200, 3, 3, 0].all()
  assert found[100:200, 0, 0].all()


def test_noise_is_a_pixel_s_own() -> None:
  values = np.ones((BATCH, 4, 4, 2), np.float32)
  still = {"flips": False, "quarter_turns": False}
  noise = augmented({"a": values}, **still, gain=0.0, offset=0.0, noise=0.1)["a"] - 1
  assert noise.std() == pytest.approx(0.1, rel=0.05)
  assert np.abs(noise.mean(axis=(1, 2))).max() < 0.1 / 4 * 5.5


def test_a_tone_curve_keeps_the_order_of_values_their_sign_and_0() -> None:
  values = np.broadcast_to(np.linspace(-3, 3, 16).reshape(4, 4, 1), (BATCH, 4, 4, 1)).copy()
  values[:, 0, 1] = 0
  still = {"flips": False, "quarter_turns": False, "gain": 0.0, "offset": 0.0}
  found = augmented({"a": values.astype(np.float32)}, **still, curve=0.3)["a"]
  assert (np.sign(found) == np.sign(values)).all()
  order = np.argsort(values[0].ravel(), kind="stable")
  assert (np.diff(found.reshape(BATCH, -1)[:, order], axis=1) > 0).all()
  # sinh(b asinh(x)) with log b drawn: read off the largest value.
  bends = np.log(np.arcsinh(found[:, -1, -1, 0]) / np.arcsinh(3.0))
  assert bends.std() == pytest.approx(0.3, rel=0.1)


def test_zoomed_images_are_a_part_of_the_whole_alike_for_all_sensors() -> None:
  rows, columns = np.meshgrid(np.arange(16.0), np.arange(16.0), indexing="ij")
  ramp = np.stack([rows + 1, columns + 1], axis=-1).astype(np.float32)  # linear in between, too
  values = np.broadcast_to(ramp, (BATCH, 16, 16, 2))
  still = {"flips": False, "quarter_turns": False, "gain": 0.0, "offset": 0.0}
  found = augmented({"a": values, "b": values}, **still, zoom=0.5)
  np.testing.assert_array_equal(found["a"], found["b"])
  inner = found["a"][:, 4:12, 4:12]
  steps = np.stack(
    [np.diff(inner[..., 0], axis=1)[:, 0, 0], np.diff(inner[..., 1], axis=2)[:, 0, 0]]
  )
  np.testing.assert_allclose(steps[0], steps[1], atol=1e-3)
  scales = 1 / steps[0]
  assert 1 <= scales.min() < 1.03 and 1.47 < scales.max() <= 1.5 + 1e-3
  assert (inner > 0).all() and (inner < 17).all()


def test_what_a_zoom_makes_of_unseen_pixels_is_unseen() -> None:
  values = np.ones((BATCH, 8, 8, 2), np.float32)
  values[:, :, :3] = 0
  still = {"flips": False, "quarter_turns": False, "gain": 0.0, "offset": 0.0}
  found = augmented({"a": values}, **still, zoom=0.5)["a"]
  assert set(np.unique(found).round(4)) == {0.0, 1.0}
  assert (found[:, :, 0] == 0).all(axis=(1, 2)).any() and (found[:, :, -1] > 0.99).all()
