"""Fill: which tokens have any pixel, pixel by pixel; encoders are as if it were cut out."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiling import compiled
from tests.model.test_encoder import INDICES, INPUTS, SEEN, VALUES, build
from xjepa_jax.config import AugmentConfig
from xjepa_jax.model.fill import seen_share, shown
from xjepa_jax.model.images import scale
from xjepa_jax.model.inputs import SensorInput
from xjepa_jax.model.xjepa import merge
from xjepa_jax.sensors import Band, Scaling, Sensor
from xjepa_jax.training.augment import augment

BANDS = (Band("a", 10.0), Band("b", 10.0))
STANDARD = Scaling(mean=(3.0, 40.0), std=(2.0, 5.0))
RADAR = Sensor("radar", BANDS, "float32", "dB", scaling=STANDARD)
OPTICAL = Sensor("optical", BANDS, "uint16", "counts", nodata=0, scaling=STANDARD)


def stored(sensor: Sensor, size: int = 8) -> Any:
  """(3, size, size, 2) with a stretch of fill in the first image, all fill in the second."""
  rng = np.random.default_rng(0)
  values = rng.uniform(1, 90, (3, size, size, 2)).astype(sensor.dtype)
  fill = np.nan if sensor.dtype == "float32" else 0
  values[0, :, : size // 2 + 1] = fill
  values[0, -1, -1, 1] = fill  # one band of a dark pixel
  values[1] = fill
  return values


@pytest.mark.parametrize("sensor", [RADAR, OPTICAL], ids=["float", "nodata"])
def test_a_token_s_share_is_counted_over_its_pixels(sensor: Sensor) -> None:
  given, values = SensorInput(sensor, 8, 8, 2), stored(sensor)
  found = compiled(lambda x: seen_share(given, scale(sensor, x)[0]), values)
  valid = sensor.valid(values)
  if sensor.dtype == "float32":
    valid = np.isfinite(values).any(axis=-1)  # a band that is missing does not hide the other
    valid[0, -1, -1] = sensor.valid(values)[0, -1, -1]
  for image in range(3):
    for token in range(16):
      row, column = divmod(token, 4)
      patch = valid[image, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
      assert found[image, token] == patch.mean(), (image, token)
  assert found[1].max() == 0 and found[2].min() == 1


def test_a_sensor_that_cannot_lack_pixels_has_all_even_where_it_is_dark() -> None:
  plain = dataclasses.replace(OPTICAL, nodata=None, scaling=Scaling(normalise="none"))
  given = SensorInput(plain, 8, 8, 2)
  found = compiled(lambda x: seen_share(given, scale(plain, x)[0]), np.zeros((1, 8, 8, 2), "u2"))
  assert found.min() == 1


def test_augmenting_moves_fill_and_makes_none() -> None:
  given = SensorInput(RADAR, 8, 8, 2)
  settings = AugmentConfig(noise=0.5)

  def both(values: Any) -> Any:
    plain = scale(RADAR, values)[0]
    moved = augment({"radar": plain}, settings, jax.random.key(2))["radar"]
    return seen_share(given, plain), seen_share(given, moved)

  plain, moved = compiled(both, stored(RADAR))
  np.testing.assert_allclose(np.sort(moved, axis=1), np.sort(plain, axis=1))


def with_fill() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Images of which the encoder's sensors saw parts, and which tokens they saw."""
  values = {key: each.copy() for key, each in VALUES.items()}
  values["radar"][0, :4, :8] = 0  # the first two tokens of 2 x 3, each of 4 x 4 pixels
  there = {key: np.ones((2, 6), bool) for key in values}
  there["radar"][0, :2] = False
  return values, there


@pytest.mark.parametrize(
  "settings", [{}, {"shared_layers": 1, "registers": 2}, {"positions": "rotary"}]
)
def test_an_encoder_describes_what_was_seen_as_if_the_fill_were_cut_out(settings: Any) -> None:
  definition, parameters = build(**settings)
  values, there = with_fill()

  def tokens(parameters: Any, values: Any, indices: Any = None) -> Any:
    return merge(definition, parameters).tokens(values, {"radar": SEEN["radar"]}, indices)["radar"]

  radar = {"radar": values["radar"]}
  found = compiled(tokens, parameters, radar)
  np.testing.assert_array_equal(np.asarray(shown(jnp.asarray(found))), there["radar"])
  places = {"radar": np.broadcast_to(np.flatnonzero(there["radar"][0]), (2, 4)).astype(np.int32)}
  cut = compiled(lambda p, v: tokens(p, v, places), parameters, radar)
  np.testing.assert_allclose(found[0, 2:], cut[0], atol=1e-5)
  # The other image has all of its tokens, which look at each other.
  whole = compiled(tokens, parameters, {"radar": VALUES["radar"]})
  np.testing.assert_allclose(found[1], whole[1], atol=1e-5)
  assert np.abs(found[1, 2:] - cut[1]).max() > 1e-3


def test_what_fill_would_look_like_has_no_influence_on_tokens_that_are_asked_for() -> None:
  definition, parameters = build()
  values, there = with_fill()

  def tokens(parameters: Any, values: Any) -> Any:
    return merge(definition, parameters).tokens(values, SEEN, INDICES)["radar"]

  found = compiled(tokens, parameters, values)
  expected = there["radar"][np.arange(2)[:, None], INDICES["radar"]]
  np.testing.assert_array_equal(found.any(axis=-1), expected)


def test_an_image_of_nothing_but_fill_has_null_tokens_and_finite_gradients() -> None:
  definition, parameters = build(registers=1)
  empty = {key: np.zeros_like(each) for key, each in VALUES.items()}
  assert all(given.sensor.nodata is None for given in INPUTS.values())

  def loss(parameters: Any) -> Any:
    module = merge(definition, parameters)
    tokens = module.tokens(empty, SEEN)
    described = module.descriptors(empty, tokens)
    return sum(each.sum() for each in jax.tree.leaves(described)), tokens

  gradients, tokens = compiled(jax.grad(loss, has_aux=True), parameters)
  assert not tokens["radar"].any()
  assert tokens["optical"].any(axis=-1).all()  # whole numbers without nodata: seen, and dark
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
