"""The local network against NumPy: what it is told of pieces, its layers, and what is hidden."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.model import reference
from xjepa_jax.config import HeadConfig, ModelConfig
from xjepa_jax.model.encoder import Encoder
from xjepa_jax.model.gradients import DIRECTIONS, oriented_gradients
from xjepa_jax.model.inputs import sensor_inputs
from xjepa_jax.model.local import LocalNetwork, features, structure
from xjepa_jax.model.trunk import BlockSpec
from xjepa_jax.model.xjepa import merge, split
from xjepa_jax.sensors import Band, Sensor

pytestmark = pytest.mark.usefixtures("compiled", "compiled_quickly")
BANDS = {"radar": 1, "optical": 3}
SENSORS = {
  key: Sensor(key, tuple(Band(f"b{n}", 10.0) for n in range(count)), "float32", "dB")
  for key, count in BANDS.items()
}
SIDE, PATCH, WIDTH, TOKEN = 32, 8, 6, 12
GRID = SIDE // PATCH
INPUTS = sensor_inputs(SENSORS, dict.fromkeys(SENSORS, (SIDE, SIDE)), PATCH)
chance = np.random.default_rng(0)
IMAGES = {
  key: (chance.normal(size=(2, SIDE, SIDE, count)) + 0.5).astype(np.float32)
  for key, count in BANDS.items()
}


def described(images: np.ndarray, count: int = 16) -> tuple[np.ndarray, np.ndarray]:
  """Of count x count pieces."""
  found, seen = jax.jit(structure, static_argnums=1)(images, (count, count))
  return np.asarray(found), np.asarray(seen)


def pieces(image: np.ndarray, count: int) -> np.ndarray:
  """(count, count, pixels, C) of (H, W, C)."""
  side = len(image) // count
  found = image.reshape(count, side, count, side, -1).swapaxes(1, 2)
  return found.reshape(count, count, side * side, -1)


@pytest.mark.parametrize("count", [16, 8])
def test_a_piece_is_told_by_gradients_means_and_spread_relative_to_its_image(count: int) -> None:
  images = IMAGES["optical"].copy()
  images[0, :5, :7] = 0  # pieces of which nothing, some, or all but a little was seen
  images[0, 0, :3] = IMAGES["optical"][0, 0, :3]  # of the first of 4 x 4 pixels less than a quarter
  found, seen = described(images, count)
  assert found.shape == (2, count**2, features(3)) == (2, count**2, DIRECTIONS + 9)
  for number, image in enumerate(images.astype(float)):
    cut = pieces(image, count)
    there = (cut != 0).any(-1)
    share = there.mean(-1)
    known = share >= 0.25
    np.testing.assert_array_equal(seen[number], known.ravel())
    total = np.maximum(there.sum(-1), 1)[..., None]
    mean, square = cut.sum(2) / total, (cut**2).sum(2) / total
    weight = (share * known)[..., None] / (share * known).sum()
    centre = (mean * weight).sum((0, 1))
    deviation = np.sqrt((square * weight).sum((0, 1)) - centre**2)
    spread = np.log(np.sqrt(np.maximum(square - mean**2, 0)) + 0.05)
    relative = (mean - centre) / (deviation + 0.1)
    texture = spread - (spread * weight).sum((0, 1))
    told = np.concatenate([mean, relative, texture], axis=-1) * known[..., None]
    expected = told.reshape(count**2, 9)
    # Of a piece of one pixel the deviation is float32's rounding, against .05.
    np.testing.assert_allclose(found[number, :, DIRECTIONS:], expected, atol=5e-3)
  gradients, there = map(np.asarray, oriented_gradients(jnp.asarray(images), count))
  told = np.where(there[..., None], 8 * (gradients - 1 / 3), 0)
  np.testing.assert_allclose(found[..., :DIRECTIONS], told, atol=1e-5)


def test_brightness_and_contrast_leave_what_is_relative_to_the_image() -> None:
  image = 10 * IMAGES["radar"]
  plain, other = (described(values)[0] for values in (image, 3 * image + 7))
  relative = slice(DIRECTIONS + 1, None)  # but for .1 in a deviation of 10
  np.testing.assert_allclose(plain[..., relative], other[..., relative], rtol=0.02, atol=0.01)


def test_an_image_of_nothing_but_fill_or_without_contrast_is_described() -> None:
  for value in (0.0, 2.0):
    image = np.full((1, SIDE, SIDE, 2), value, np.float32)
    found, seen = described(image)
    assert np.isfinite(found).all() and seen.all() == bool(value)
    assert np.abs(found[..., DIRECTIONS + 2 :]).max() < 1e-3


@pytest.fixture(scope="module")
def network() -> tuple[Any, Any]:
  """A definition, and parameters that are not those drawn."""

  def build() -> LocalNetwork:
    return LocalNetwork(INPUTS, BlockSpec(WIDTH, 1, 2.0), 2, TOKEN, nnx.Rngs(0))

  definition, parameters = split(build())
  return definition, reference.drawn(parameters)


def parts(network: tuple[Any, Any], images: Any, indices: Any = None) -> dict[str, np.ndarray]:
  definition, parameters = network
  run = jax.jit(lambda p, x: merge(definition, p)(x, indices))
  return {key: np.asarray(each) for key, each in run(parameters, images).items()}


def by_hand(parameters: Any, key: str, image: np.ndarray, looked: np.ndarray) -> np.ndarray:
  """(8, 8, D) of an image, of patches that may be looked at."""
  parameters = reference.wide(parameters)
  found, _ = described(image[None])
  cut = found[0].astype(float).reshape(8, 2, 8, 2, -1).swapaxes(1, 2).reshape(8, 8, -1)
  allowed = looked.reshape(GRID, GRID).repeat(2, 0).repeat(2, 1)[..., None]
  x = reference.linear(parameters["enter"][key], cut) * allowed
  for number in range(2):
    each = reference.layer(parameters["layers"]["blocks"], number)
    wide = np.pad(reference.layer_norm(each["norm"], x), ((1, 1), (1, 1), (0, 0)), mode="edge")
    near = np.concatenate([wide[i : i + 8, j : j + 8] for i in range(3) for j in range(3)], axis=-1)
    x = x + reference.mlp(each, near)
  return reference.layer_norm(parameters["norm"], x) * allowed


def test_its_features_are_those_of_numpy(network: tuple[Any, Any]) -> None:
  found = parts(network, IMAGES)
  for key in BANDS:
    for sample in range(2):
      expected = by_hand(network[1], key, IMAGES[key][sample], np.ones(GRID**2, bool))
      np.testing.assert_allclose(found[key][sample], expected.reshape(64, WIDTH), atol=1e-3)


def test_of_patches_that_are_hidden_it_sees_no_more_than_the_image_s_means(
  network: tuple[Any, Any],
) -> None:
  indices = {key: np.array([[0, 1, 2, 4, 5, 8], [15, 14, 11, 3, 2, 1]]) for key in BANDS}
  found = parts(network, IMAGES, indices)
  for key in BANDS:
    for sample in range(2):
      looked = np.zeros(GRID**2, bool)
      looked[indices[key][sample]] = True
      expected = by_hand(network[1], key, IMAGES[key][sample], looked)
      np.testing.assert_allclose(found[key][sample], expected.reshape(64, WIDTH), atol=1e-3)
  # A piece amid a hidden patch, beyond the reach of blurs, of another order but the same mean.
  changed = {key: each.copy() for key, each in IMAGES.items()}
  changed["radar"][0, 28:30, 28:30] = changed["radar"][0, 28:30, 28:30][::-1, ::-1]
  again = parts(network, changed, indices)
  np.testing.assert_allclose(again["radar"][0], found["radar"][0], atol=1e-3)
  assert not np.allclose(parts(network, changed)["radar"][0], parts(network, IMAGES)["radar"][0])


def test_a_token_takes_of_its_own_patch_s_parts(network: tuple[Any, Any]) -> None:
  definition, parameters = network
  values = chance.normal(size=(2, 64, WIDTH)).astype(np.float32)
  chosen = np.array([[3, 0], [9, 15]])
  every, some = jax.jit(
    lambda p: tuple(merge(definition, p).tokens(values, which) for which in (None, chosen))
  )(parameters)
  leave = reference.wide(parameters["leave"])
  cut = values.reshape(2, 4, 2, 4, 2, WIDTH).swapaxes(2, 3).reshape(2, 16, -1)
  np.testing.assert_allclose(every, reference.linear(leave, cut), atol=1e-4)
  np.testing.assert_array_equal(some, np.stack([every[n][chosen[n]] for n in range(2)]))


def test_it_enters_the_tokens_and_adds_nothing_to_a_canonical_head_at_first() -> None:
  heads = {"layout": HeadConfig(pooling="canonical", cells=8, numbers=3, size=100)}
  seen = {key: np.ones((2, count), bool) for key, count in BANDS.items()}

  def tokens(local: int) -> tuple[Any, Any]:
    config = ModelConfig(preset="debug", patch=PATCH, local=local)
    definition, parameters = split(Encoder(config, heads, INPUTS, np.float32, nnx.Rngs(0)))
    return jax.jit(lambda p: merge(definition, p).tokens(IMAGES, seen))(parameters), parameters

  plain, other = tokens(0)
  assert "local" not in other and list(other["layouts"]["layout"]["additions"]) == ["tokens"]
  found, parameters = tokens(WIDTH)
  for key in BANDS:
    assert not np.allclose(plain[key], found[key], atol=0.1)
  kernel = parameters["layouts"]["layout"]["additions"]["parts"]["project"]["kernel"]
  assert kernel.shape == (WIDTH, 3) and not np.any(kernel)
