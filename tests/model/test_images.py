"""Stored values to a network's input: missing bands, unseen pixels, crops of the same ground."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiling import compiled
from xjepa_jax.model.images import crop, scale
from xjepa_jax.model.inputs import SensorInput
from xjepa_jax.sensors import Band, Scaling, Sensor

NAN = float("nan")


def sensor(dtype: str, nodata: float | None, **scaling: Any) -> Sensor:
  scaling = {"mean": (1.0, 2.0, 3.0), "std": (2.0, 4.0, 8.0)} | scaling
  bands = tuple(Band(name, 10.0) for name in "abc")
  return Sensor("a camera", bands, dtype, "counts", nodata, Scaling(**scaling))


SENSORS = {
  "counts": sensor("uint16", 0),
  "signed": sensor("int16", -9999, offset=-5, gain=0.5, clip=(-20.0, 60.0)),
  "decibel": sensor("float32", NAN),
  "marked": sensor("float32", -1.0),
  "plain": sensor("uint8", None),
  "stretched": sensor("uint8", 0, normalise="percentile", low=(10.0,) * 3, high=(90.0, 80.0, 70.0)),
}


def stored(given: Sensor, seed: int = 0) -> Any:
  """(2, 4, 5, 3) values, one pixel of which is nodata in every band, one in a single band."""
  values = np.random.default_rng(seed).integers(1, 100, (2, 4, 5, 3)).astype(given.dtype)
  if given.nodata is not None:
    values[0, 1, 2] = given.nodata
    if given.nodata == given.nodata:  # NaN in one band would hide the pixel
      values[1, 3, 4, 1] = given.nodata
  return values


@pytest.mark.parametrize("name", SENSORS)
def test_without_a_missing_band_it_is_the_sensor_s_own_scaling(name: str) -> None:
  given = SENSORS[name]
  values = stored(given)
  found, seen = compiled(lambda x: scale(given, x), values)
  assert found.dtype == np.float32 and seen.shape == (2, 3) and seen.all()
  np.testing.assert_allclose(found, given.scale(values), rtol=1e-6, atol=1e-6)
  assert given.nodata is None or not found[0, 1, 2].any()


@pytest.mark.parametrize("name", [name for name in SENSORS if name != "plain"])
def test_a_missing_band_is_0_and_leaves_the_others_as_if_it_did_not_exist(name: str) -> None:
  given = SENSORS[name]
  values = stored(given)
  assert given.nodata is not None
  values[1, ..., 0] = given.nodata
  found, seen = compiled(lambda x: scale(given, x), values)
  np.testing.assert_array_equal(seen, [[True] * 3, [False, True, True]])
  assert not found[1, ..., 0].any()
  rest = given.select(["b", "c"])
  np.testing.assert_allclose(
    found[1, ..., 1:], rest.scale(values[1, ..., 1:]), rtol=1e-6, atol=1e-6
  )
  np.testing.assert_allclose(found[0], given.scale(values[0]), rtol=1e-6, atol=1e-6)


def test_an_image_of_which_nothing_was_seen_is_0_in_bands_that_it_lacks() -> None:
  for name in ("counts", "decibel", "signed"):
    given = SENSORS[name]
    assert given.nodata is not None
    found, seen = compiled(
      lambda x, given=given: scale(given, x),
      np.full((1, 2, 2, 3), given.nodata, given.dtype),
    )
    assert not found.any() and not seen.any()


def test_infinite_values_hide_their_band_s_pixel_only() -> None:
  values = stored(SENSORS["marked"])
  values[0, 0, 0, 1] = np.inf
  found, seen = compiled(lambda x: scale(SENSORS["marked"], x), values)
  assert seen.all() and np.isfinite(found).all()
  expected = np.array(scale(SENSORS["marked"], jnp.asarray(stored(SENSORS["marked"])))[0])
  expected[0, 0, 0, 1] = 0
  np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def ground(batch: int, rows: int, columns: int, metres: int) -> Any:
  """(B, H, W, 2): row and column, in metres, of each pixel's upper left corner."""
  places = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1) * metres
  return np.broadcast_to(places.astype(np.float32), (batch, rows, columns, 2))


def given(metres: int, height: int, width: int) -> SensorInput:
  described = Sensor("a camera", (Band("y", metres), Band("x", metres)), "float32", "m")
  return SensorInput(described, height, width, 2)


# 10 m and 20 m, and 30 m beside 20 m, where no sensor is as fine as the shared steps of 60 m.
GRIDS = {
  "twice": ({10: (24, 28), 20: (12, 14)}, {10: (16, 16), 20: (8, 8)}),
  "odd margin": ({10: (22, 18), 20: (11, 9)}, {10: (16, 16), 20: (8, 8)}),
  "two thirds": ({20: (24, 24), 30: (16, 16)}, {20: (12, 12), 30: (8, 8)}),
  "one way": ({10: (16, 20), 20: (8, 10)}, {10: (16, 16), 20: (8, 8)}),
}


@pytest.mark.parametrize("name", GRIDS)
def test_all_sensors_are_cut_to_the_same_ground(name: str) -> None:
  sizes, wanted = GRIDS[name]
  values = {str(m): ground(200, *size, m) for m, size in sizes.items()}
  inputs = {str(m): given(m, *size) for m, size in wanted.items()}
  corners = {}
  for middle in (True, False):
    key = None if middle else jax.random.key(3)
    found = compiled(lambda x, key=key: crop(x, inputs, key), values)
    for m, size in wanted.items():
      cut = found[str(m)]
      if middle:  # as where an encoder is given one sensor alone
        np.testing.assert_array_equal(cut, crop({str(m): values[str(m)]}, inputs, None)[str(m)])
      assert cut.shape == (200, *size, 2)
      # Each is one piece of its image: places in it differ from its corner's as they should.
      np.testing.assert_array_equal(cut - cut[:, :1, :1], ground(200, *size, m))
    one, other = (found[str(m)][:, 0, 0] for m in wanted)
    np.testing.assert_array_equal(one, other)
    corners[middle] = one
  fine, coarse = wanted
  margin = [(a - b) * fine for a, b in zip(sizes[fine], wanted[fine], strict=True)]
  step = int(np.lcm(fine, coarse))
  for axis in range(2):
    assert abs(corners[True][0, axis] - margin[axis] / 2) < step
    assert set(corners[False][:, axis]) == set(range(0, margin[axis] + 1, step))


def test_images_of_the_model_s_size_are_not_touched() -> None:
  values = {"a": ground(2, 8, 8, 10)}
  found = crop(values, {"a": given(10, 8, 8)}, jax.random.key(0))
  assert found["a"] is values["a"]
