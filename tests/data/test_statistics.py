"""Statistics of stored values, against NumPy over all pixels at once."""

from __future__ import annotations

import numpy as np
import pytest

from xjepa_jax.data.statistics import PERCENTILES, SensorStatistics, with_statistics
from xjepa_jax.sensor_presets import PRESETS, preset
from xjepa_jax.sensors import Band, Sensor


def sensor_of(dtype: str, nodata: float | None = None) -> Sensor:
  return Sensor("x", (Band("a", 10), Band("b", 10)), dtype, "digital number", nodata)


def images_of(dtype: str, count: int = 6) -> list[np.ndarray]:
  rng = np.random.default_rng(0)
  scale = {"uint8": 40, "int16": 3000, "uint16": 9000, "int32": 10**6}.get(dtype, 12)
  low = 0 if dtype.startswith("u") else -5 * scale
  values = rng.normal(scale * 2, scale, (count, 16, 16, 2)) * [1, 0.5]
  return list(np.clip(values, low, 6 * scale).astype(dtype))


def counted(sensor: Sensor, images: list[np.ndarray]) -> SensorStatistics:
  statistics = SensorStatistics.of(sensor)
  for image in images:
    statistics.add(sensor, image)
  return statistics


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_moments_and_percentiles_are_numpys(dtype: str) -> None:
  sensor, images = sensor_of(dtype), images_of(dtype)
  statistics = counted(sensor, images)
  pixels = np.stack(images).reshape(-1, 2).astype(np.float64)
  np.testing.assert_allclose(statistics.mean(), pixels.mean(0), rtol=1e-12)
  np.testing.assert_allclose(statistics.std(), pixels.std(0), rtol=1e-9)
  np.testing.assert_array_equal(statistics.lowest, pixels.min(0))
  np.testing.assert_array_equal(statistics.highest, pixels.max(0))
  exact = dtype in ("uint8", "int16", "uint16")
  for q in PERCENTILES:
    expected = np.percentile(pixels, q, axis=0, method="lower")
    # Otherwise a bin of the histogram is at most 1/128 of a value wide.
    tolerance = 0 if exact else np.abs(expected) / 128
    assert (np.abs(statistics.percentile(q) - expected) <= tolerance).all()


def test_percentiles_cross_zero_in_order() -> None:
  sensor = sensor_of("float32")
  image = np.linspace(-3, 3, 16 * 16 * 2, dtype=np.float32).reshape(16, 16, 2)
  statistics = counted(sensor, [image])
  found = [statistics.percentile(q)[0] for q in (1, 5, 50, 95, 99)]
  np.testing.assert_allclose(found, [-2.94, -2.7, 0, 2.7, 2.94], atol=0.03)


def test_merging_parts_gives_the_whole_to_the_bit() -> None:
  sensor, images = sensor_of("uint16"), images_of("uint16")
  whole = counted(sensor, images)
  parts = counted(sensor, images[:2])
  parts.merge(counted(sensor, images[2:]))
  for name, array in whole.arrays().items():
    np.testing.assert_array_equal(parts.arrays()[name], array)


def test_unseen_values_count_only_as_unseen() -> None:
  sensor = sensor_of("float32", float("nan"))
  image = np.ones((2, 2, 2), np.float32)
  image[0, 0, 1] = np.nan
  image[0, 1] = 3, np.nan
  image[1, 1] = -np.inf
  statistics = counted(sensor, [image])
  assert (statistics.pixels, statistics.valid) == (4, 3)
  assert statistics.to_json(sensor)["valid_fraction"] == 0.75
  np.testing.assert_array_equal(statistics.counted, [3, 1])
  np.testing.assert_allclose(statistics.mean(), [5 / 3, 1])
  np.testing.assert_allclose(statistics.std(), [float(np.std([1, 1, 3])), 0.0], atol=1e-7)


def test_a_band_of_which_nothing_was_seen_has_no_numbers_and_scales_to_0() -> None:
  sensor = sensor_of("float32", float("nan"))
  image = np.ones((2, 2, 2), np.float32)
  image[..., 1] = np.nan
  statistics = counted(sensor, [image])
  assert list(statistics.to_json(sensor)["bands"]) == [sensor.band_names[0]]
  assert not with_statistics(sensor, statistics).scale(image)[..., 1].any()


def test_arrays_carry_everything() -> None:
  sensor = sensor_of("float32")
  statistics = counted(sensor, images_of("float32"))
  again = SensorStatistics.of(sensor).load(statistics.arrays())
  assert again.to_json(sensor) == statistics.to_json(sensor)


def test_a_sensor_takes_its_scaling_from_statistics_in_calibrated_units() -> None:
  sensor = preset("sentinel2_l2a_n0400")
  rng = np.random.default_rng(1)
  images = [rng.integers(1000, 6000, (32, 32, 12)).astype(np.uint16) for _ in range(8)]
  scaled = with_statistics(sensor, counted(sensor, images)).scale(np.stack(images))
  np.testing.assert_allclose(scaled.mean((0, 1, 2)), 0, atol=1e-3)
  np.testing.assert_allclose(scaled.std((0, 1, 2)), 1, atol=1e-3)


def test_a_band_that_never_varies_still_scales() -> None:
  sensor = PRESETS["grey"]
  images = [np.full((4, 4, 1), 7, np.uint8)]
  scaled = with_statistics(sensor, counted(sensor, images)).scale(images[0])
  np.testing.assert_array_equal(scaled, 0)
