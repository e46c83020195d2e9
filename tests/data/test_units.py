"""Values in other units than a sensor claims are noticed."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from xjepa_jax.data.statistics import SensorStatistics
from xjepa_jax.data.units import Judge
from xjepa_jax.data.verdict import of_archive
from xjepa_jax.sensor_presets import PRESETS, preset
from xjepa_jax.sensors import Scaling, Sensor, sensor_from_json, sensor_to_json

RNG = np.random.default_rng(0)
DECIBELS = RNG.normal(-14, 5, (64, 64, 2)).astype(np.float32)
REFLECTANCE = RNG.gamma(4, 300, (64, 64, 12)).astype(np.uint16) + 1
S1, S2 = PRESETS["sentinel1_grd"], PRESETS["sentinel2_l2a"]
S2_LATER = PRESETS["sentinel2_l2a_n0400"]


def said_of(sensor: Sensor, image: np.ndarray) -> str:
  statistics = SensorStatistics.of(sensor)
  statistics.add(sensor, image)
  return " ".join(Judge(sensor, "--nodata s1=").of_statistics(statistics.to_json(sensor)))


@pytest.mark.parametrize(
  ("sensor", "image"),
  [(S1, DECIBELS), (S2, REFLECTANCE), (S2_LATER, REFLECTANCE + np.uint16(1000))],
)
def test_values_as_described_raise_no_word(sensor: Sensor, image: np.ndarray) -> None:
  assert said_of(sensor, image) == ""


def test_linear_power_and_bytes_are_not_decibels() -> None:
  linear = (10 ** (DECIBELS / 10)).astype(np.float32)
  assert "expected dB" in said_of(S1, linear)
  assert "expected dB" in said_of(S1, np.clip(DECIBELS * 8 + 200, 0, 255).astype(np.float32))


def test_polarisations_in_each_other_s_place_are_noticed() -> None:
  image = DECIBELS - np.array([0, 7], np.float32)
  assert said_of(S1, image) == ""
  assert "the mean of VH, -14" in (said := said_of(S1, image[..., ::-1]))
  assert "each other's place" in said
  assert said_of(S1.select(["VH", "VV"]), image[..., ::-1]) == ""


def test_levels_of_8_bits_are_no_reflectance() -> None:
  sensor = preset("sentinel2_l2a", dtype="uint8")
  assert "stored as uint8" in said_of(sensor, (REFLECTANCE % 256).astype(np.uint8))


def test_a_fill_value_among_decibels_is_noticed() -> None:
  filled = DECIBELS.copy()
  filled[:4] = -9999
  assert "--nodata s1=-9999" in said_of(S1, filled)


def test_the_offset_of_baseline_0400_is_noticed_when_it_is_not_declared() -> None:
  assert "sentinel2_l2a_n0400" in said_of(S2, REFLECTANCE + np.uint16(1000))


def test_an_offset_that_is_declared_but_absent_is_noticed() -> None:
  assert "do not carry the +1000" in said_of(S2_LATER, REFLECTANCE)


def test_reflectance_from_zero_to_one_is_noticed() -> None:
  sensor = preset("sentinel2_l2a", dtype="float32")
  assert "reflectance from 0 to 1" in said_of(sensor, (REFLECTANCE / 1e4).astype(np.float32))


def clipped_clouds(image: np.ndarray) -> np.ndarray:
  image[:20] = 10000
  return image


@pytest.mark.parametrize(
  ("sensor", "image"),
  [
    pytest.param(
      S1,
      np.where(np.arange(8192).reshape(64, 64, 2) == 77, np.float32(-72.1), DECIBELS),
      id="one dark pixel",
    ),
    pytest.param(S2, clipped_clouds(REFLECTANCE.copy()), id="clouds that were clipped"),
    pytest.param(S1.select(["VV"]), np.maximum(DECIBELS[..., :1], np.float32(-18)), id="a floor"),
    pytest.param(S2, np.full((64, 64, 12), 700, np.uint16), id="no contrast"),
    pytest.param(S2, REFLECTANCE + np.uint16(4000), id="a desert"),
    pytest.param(S2, (REFLECTANCE // 40 + 1).astype(np.uint16), id="a lake"),
    pytest.param(S1, DECIBELS[:5, :6] - np.array([0, 1], np.float32), id="a small image"),
    pytest.param(S2_LATER, (REFLECTANCE // 100 + 990).astype(np.uint16), id="water, offset"),
    pytest.param(
      preset("grey", dtype="uint8"), np.full((64, 64, 1), 255, np.uint8), id="a white picture"
    ),
  ],
)
def test_ordinary_images_are_not_odd(sensor: Sensor, image: np.ndarray) -> None:
  assert Judge(sensor).of_image(image.astype(sensor.dtype)) == []


@pytest.mark.parametrize(
  ("sensor", "image", "said"),
  [
    (S1, (10 ** (DECIBELS / 10)).astype(np.float32), "linear power"),
    (S2, REFLECTANCE.astype(np.float32) / 1e4, "reflectance from 0 to 1"),
    (S1, np.where(np.arange(64)[:, None, None] < 9, 0, DECIBELS), "14.1% .* hold 0, .*s1=0"),
    (S1, np.where(np.arange(64)[:, None, None] < 1, -9999, DECIBELS), "hold -9999, .*s1=-9999"),
    (S2, np.where(np.arange(64)[:, None, None] < 9, 65535, REFLECTANCE), "s1=65535"),
    (S1, (DECIBELS - np.array([0, 7], np.float32))[..., ::-1], "each other's place"),
  ],
)
def test_single_images_that_contradict_their_sensor_say_so(
  sensor: Sensor, image: np.ndarray, said: str
) -> None:
  typed = dataclasses.replace(sensor, dtype=image.dtype.name, nodata=None)
  assert re.search(said, " ".join(Judge(typed, "--nodata s1=").of_image(image)))


def water(number: int, size: int = 64) -> np.ndarray:
  """Reflectance x 1e4 of open water, which falls to the infrared."""
  rng = np.random.default_rng(number)
  falling = np.array([180, 150, 100, 60, 40, 30, 25, 20, 18, 30, 5, 3])
  return np.clip(falling + rng.normal(0, 2, (size, size, 12)), 1, 250).astype(np.uint16)


def land(number: int, size: int = 64) -> np.ndarray:
  rng = np.random.default_rng(number)
  usual = np.array([300, 400, 600, 550, 900, 1800, 2000, 2200, 2250, 2300, 1500, 900])
  return np.clip(usual * rng.gamma(9, 1 / 9, (size, size, 12)), 20, 9000).astype(np.uint16)


def decibels(number: int, size: int = 64) -> np.ndarray:
  rng = np.random.default_rng(number)
  return rng.normal((-11, -18), 2.5, (size, size, 2)).astype(np.float32)


ORDINARY = {
  "water": (S2, [water(i) for i in range(6)]),
  "water with the offset": (S2_LATER, [water(i) + np.uint16(1000) for i in range(6)]),
  "land and a lake": (S2, [*map(land, range(9)), water(0)]),
  "snow and a lake": (S2, [*(land(i) + np.uint16(7000) for i in range(9)), water(0)]),
  "clouds": (S2, [land(i) + np.uint16(4000) for i in range(6)]),
  "a desert": (S2, [land(i) + np.uint16(1500) for i in range(6)]),
  "clipped clouds": (S2, [clipped_clouds(land(i)) for i in range(6)]),
  "ocean": (S1, [decibels(i) - np.float32(14) for i in range(6)]),
  "decibels clipped to -25": (S1, [np.clip(decibels(i) - 9, -25, 0) for i in range(6)]),
  "tenths of decibels, clipped": (
    S1,
    [(np.rint(np.clip(decibels(i) - 9, -25, 0) * 10) / 10).astype(np.float32) for i in range(6)],
  ),
  "a part seen": (S2, [np.where(np.arange(64)[:, None] < 30, 0, land(i)) for i in range(6)]),
  "a coarse band": (
    S2,
    [land(i)[::8, ::8].repeat(8, axis=0).repeat(8, axis=1)[:16, :16] for i in range(6)],
  ),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_archives_are_not_refused(name: str) -> None:
  sensor, images = ORDINARY[name]
  typed = [image.astype(sensor.dtype) for image in images]
  verdict = of_archive(Judge(sensor), {str(i): image for i, image in enumerate(typed)})
  assert not verdict.wrong and not verdict.odd


@pytest.mark.parametrize(
  ("name", "said"),
  [
    ("water", "open water, or levels of a picture"),
    ("clouds", "bright ground, snow or cloud"),
    ("land and a lake", ""),
  ],
)
def test_what_values_cannot_decide_is_remarked(name: str, said: str) -> None:
  sensor, images = ORDINARY[name]
  verdict = of_archive(Judge(sensor), {str(i): image for i, image in enumerate(images)})
  assert said in " ".join(verdict.remarks()) and bool(verdict.remarks()) == bool(said)


@pytest.mark.parametrize(
  ("sensor", "images", "said"),
  [
    (S2, [np.minimum(land(i) // 16, 255) for i in range(4)], "levels of a picture of 8 bits"),
    (S2, [land(i) // 100 for i in range(4)], "8 bits or percent"),
    (S2, [land(i).astype(np.float32) * 15 for i in range(4)], "are no reflectance x 1e4"),
    (S1, [decibels(i) * 10 for i in range(4)], "expected dB within -120 to 70"),
    (S2, [land(i) + np.uint16(1000) for i in range(4)], "seem to carry the .1000"),
    (S2_LATER, [land(i) for i in range(4)], "do not carry the .1000"),
    (
      dataclasses.replace(S2, units="reflectance"),
      [land(i).astype(np.float32) / 100 for i in range(4)],
      "are no reflectance: they run from",
    ),
  ],
)
def test_archives_on_another_scale_are_refused(
  sensor: Sensor, images: list[np.ndarray], said: str
) -> None:
  typed = dataclasses.replace(sensor, dtype=images[0].dtype.name)
  judge = Judge(typed, "--nodata s1=")
  verdict = of_archive(judge, {str(i): image for i, image in enumerate(images)})
  assert re.search(said, " ".join(verdict.wrong))
  assert "--nodata" not in " ".join(verdict.wrong)


def test_decibels_that_are_a_hundredth_of_the_others_are_odd_under_a_gain() -> None:
  sensor = dataclasses.replace(S1, dtype="int16", nodata=None, scaling=Scaling(gain=0.01))
  images = {str(i): np.rint(decibels(i) * 100).astype(np.int16) for i in range(6)}
  images |= {f"plain {i}": np.rint(decibels(i)).astype(np.int16) for i in range(5)}
  verdict = of_archive(Judge(sensor), images)
  assert set(verdict.odd) == {f"plain {i}" for i in range(5)}


@pytest.mark.parametrize(
  ("spelled", "known"),
  [
    ("dB", "dB"),
    (" decibels ", "dB"),
    ("Reflectance", "reflectance"),
    ("reflectance*1e4", "reflectance x 1e4"),
    ("reflectance × 1e4", "reflectance x 1e4"),
    ("Reflectance x 10000", "reflectance x 1e4"),
    ("reflectance * 10^4", "reflectance x 1e4"),
    ("reflectance x 255", "reflectance x 255"),
    ("K", "K"),
  ],
)
def test_units_are_known_however_they_are_spelled(spelled: str, known: str) -> None:
  described = sensor_to_json(S2) | {"units": spelled}
  assert sensor_from_json(described, "s2").units == known
