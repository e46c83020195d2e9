"""Sensors: what scaling does, what counts as seen, and that a description survives JSON."""

from __future__ import annotations

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xjepa_jax.errors import SensorError
from xjepa_jax.sensor_presets import PRESETS, preset
from xjepa_jax.sensors import Band, Channel, Scaling, Sensor, sensor_from_json, sensor_to_json

S2 = PRESETS["sentinel2_l2a"]
S1 = PRESETS["sentinel1_grd"]


def two_bands(**scaling: object) -> Sensor:
  return Sensor(
    product="two bands",
    bands=(Band("a", 10), Band("b", 20)),
    dtype="uint16",
    units="digital number",
    nodata=0,
    scaling=Scaling(**scaling),  # type: ignore[arg-type]
  )


def test_standard_scaling_is_the_textbook_formula() -> None:
  sensor = two_bands(offset=-1000, gain=0.5, clip=(0, 4000), mean=(100, 200), std=(10, 50))
  stored = np.array([[1200, 1500], [500, 60000]], np.uint16)
  # (1200-1000)/2 = 100, (1500-1000)/2 = 250; (500-1000)/2 clips to 0, (60000-1000)/2 to 4000
  expected = [[(100 - 100) / 10, (250 - 200) / 50], [(0 - 100) / 10, (4000 - 200) / 50]]
  np.testing.assert_allclose(sensor.scale(stored), expected, rtol=1e-6)


def test_percentile_scaling_maps_low_and_high_to_minus_one_and_one() -> None:
  sensor = two_bands(normalise="percentile", low=(100, 10), high=(300, 20))
  stored = np.array([[100, 20], [200, 15], [900, 1]], np.uint16)
  np.testing.assert_allclose(sensor.scale(stored), [[-1, 1], [0, 0], [1, -1]], atol=1e-6)


def test_no_normalisation_leaves_calibrated_values() -> None:
  sensor = two_bands(normalise="none", gain=2.0)
  np.testing.assert_allclose(sensor.scale(np.array([[3, 4]], np.uint16)), [[6, 8]])


def test_scaling_inside_jit_equals_scaling_in_numpy() -> None:
  rng = np.random.default_rng(0)
  stored = rng.integers(0, 12000, (2, 5, 5, 12)).astype(np.uint16)
  on_device = jax.jit(S2.scale)(jnp.asarray(stored))
  assert on_device.dtype == jnp.float32
  np.testing.assert_allclose(on_device, S2.scale(stored), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("unseen", [np.nan, -np.inf, np.inf])
def test_a_band_that_is_not_finite_is_unseen_there_and_hides_no_other(unseen: float) -> None:
  stored = np.full((2, 2, 2), -10, np.float32)
  stored[0, 1, 1] = unseen
  stored[1, 0] = unseen
  np.testing.assert_array_equal(S1.valid(stored), [[True, True], [False, True]])
  scaled = S1.scale(stored)
  assert np.isfinite(scaled).all()
  assert scaled[0, 1, 1] == 0 and scaled[0, 1, 0] == scaled[0, 0, 0] != 0
  np.testing.assert_array_equal(scaled[1, 0], [0, 0])


@pytest.mark.parametrize(
  ("units", "dtype", "marker", "possible"),
  [
    ("dB", "float32", -9999, False),
    ("dB", "float32", 0, True),
    ("dB", "float32", np.nan, False),
    ("reflectance x 1e4", "uint16", 0, True),
    ("reflectance x 1e4", "uint16", 65535, False),
    ("reflectance x 1e4", "int16", -9999, False),
    ("reflectance", "float32", 0, True),
    ("reflectance", "float32", -1, False),
    ("digital number", "uint8", 255, True),
    ("digital number", "uint8", 0, True),
    ("metres", "float32", -9999, False),
    ("metres", "int16", -32768, False),
    ("metres", "float32", 0, True),
    ("metres", "float32", float(np.finfo(np.float32).min), False),
    ("K", "uint16", 65535, False),
    ("K", "uint16", 0, True),
  ],
)
def test_a_marker_that_cannot_be_measured_hides_its_band_and_another_where_all_bands_have_it(
  units: str, dtype: str, marker: float, possible: bool
) -> None:
  bands = (Band("a", 10), Band("b", 10))
  sensor = Sensor("x", bands, dtype, units, nodata=marker, scaling=Scaling(normalise="none"))
  stored = np.array([[1, 1], [marker, 1], [1, marker], [marker, marker]], dtype)
  known = [[True] * 2, [possible, True], [True, possible], [False] * 2]
  for array in (stored, jnp.asarray(stored)):
    np.testing.assert_array_equal(sensor.known(array), known)
    np.testing.assert_array_equal(sensor.valid(array), [True, True, True, False])
    expected = np.where(known, stored, 0)
    np.testing.assert_array_equal(sensor.scale(array), expected)


def test_a_gain_is_applied_before_it_is_asked_whether_a_marker_can_be_measured() -> None:
  bands = (Band("VV", 10), Band("VH", 10))
  scaling = Scaling(gain=0.01, normalise="none")
  sensor = Sensor("dB x 100", bands, "int16", "dB", nodata=-9999, scaling=scaling)
  assert not sensor.nodata_is_possible  # -99.99 dB
  assert dataclasses.replace(sensor, nodata=0).nodata_is_possible
  assert dataclasses.replace(sensor, nodata=-3000).nodata_is_possible


def test_a_pixel_is_unseen_only_if_all_its_bands_are_nodata() -> None:
  sensor = two_bands(mean=(0, 0), std=(1, 1))
  stored = np.array([[[0, 0], [0, 7]]], np.uint16)
  np.testing.assert_array_equal(sensor.valid(stored), [[False, True]])


def test_bands_are_chosen_and_ordered_by_name_with_their_statistics() -> None:
  chosen = S2.select(["B8A", "B02"])
  assert chosen.band_names == ("B8A", "B02")
  assert S2.index(["B8A", "B02"]) == (8, 1)
  assert chosen.scaling.mean == (2236.0, 438.0)
  assert chosen.scaling.std == (1357.0, 607.0)


def test_selecting_a_band_that_is_not_there_names_those_that_are() -> None:
  with pytest.raises(SensorError, match="no band 'B10'; its bands are B01, B02.*B12"):
    S2.select(["B10"])
  with pytest.raises(SensorError, match="name one twice"):
    S2.select(["B02", "B02"])


def test_a_wrong_band_count_says_what_came_and_what_was_expected() -> None:
  with pytest.raises(SensorError, match=r"got 13 bands, expected 12 \(B01"):
    S2.scale(np.zeros((4, 4, 13), np.uint16))


def test_scaling_without_statistics_is_refused() -> None:
  with pytest.raises(SensorError, match="scaling.mean is empty"):
    two_bands().scale(np.ones((1, 2), np.uint16))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_json(name: str) -> None:
  sensor = PRESETS[name]
  content = json.loads(json.dumps(sensor_to_json(sensor), allow_nan=False))
  again = sensor_from_json(content, "test")
  if sensor.nodata is not None and math.isnan(sensor.nodata):
    assert again.nodata is not None and math.isnan(again.nodata)
    assert sensor_to_json(again) == sensor_to_json(sensor)
  else:
    assert again == sensor


def test_presets_have_the_bands_of_their_products_in_order() -> None:
  assert S1.band_names == ("VV", "VH")
  assert len(S2.bands) == 12 and "B10" not in S2.band_names
  assert len(PRESETS["sentinel2_l1c"].bands) == 13
  assert PRESETS["sentinel2_ben14k"].band_names == (
    *("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B11", "B12", "B8A"),
  )
  assert PRESETS["sentinel2_l2a_n0400"].scaling.offset == -1000


def test_an_unknown_preset_names_the_nearest() -> None:
  with pytest.raises(SensorError, match="Did you mean 'sentinel1_grd'"):
    preset("sentinel1_gdr")


@pytest.mark.parametrize(
  ("change", "complaint"),
  [
    ({"dtype": "complex64"}, "dtype 'complex64'"),
    ({"nodata": 70000}, "nodata 70000 is no uint16"),
    ({"bands": ()}, "no bands"),
    ({"bands": (Band("a", 10), Band("a", 10))}, "name one twice"),
    ({"bands": (Band("a", 0), Band("b", 10))}, "metres above 0"),
    ({"scaling": Scaling(gain=0.0)}, "gain not 0"),
    ({"scaling": Scaling(normalise="z")}, "'z' is not one of"),
    ({"scaling": Scaling(clip=(1.0, 0.0))}, "lower first"),
    ({"scaling": Scaling(mean=(1.0,))}, "1 values for 2 bands"),
    ({"scaling": Scaling(std=(1.0, 0.0))}, "above 0 in every band"),
    ({"scaling": Scaling(low=(1.0, 1.0), high=(1.0, 2.0))}, "must be below"),
    ({"display": (Channel("a", 0, 1), Channel("b", 0, 1))}, "2 channels"),
    ({"display": (Channel("c", 0, 1),)}, "no band 'c'"),
  ],
)
def test_a_description_that_makes_no_sense_is_refused(
  change: dict[str, object], complaint: str
) -> None:
  fields = {"product": "p", "bands": two_bands().bands, "dtype": "uint16", "units": "u"}
  with pytest.raises(SensorError, match=complaint):
    Sensor(**{**fields, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize(
  ("damage", "complaint"),
  [
    (lambda content: content.pop("units"), "'units' of a Sensor is missing"),
    (lambda content: content.update(unit="dB"), "unknown key 'unit'"),
    (lambda content: content["scaling"].update(ofset=1), "unknown key 'ofset'"),
    (lambda content: content["bands"].append(3), r"bands\[12\]"),
    (lambda content: content.update(bands=4), "not a sensor's description"),
    (lambda content: content.update(nodata="none"), "not a sensor's description"),
  ],
)
def test_a_damaged_description_names_file_and_key(damage: object, complaint: str) -> None:
  content = sensor_to_json(S2)
  damage(content)  # type: ignore[operator]
  with pytest.raises(SensorError, match=f"^sensors.json: s2.*{complaint}"):
    sensor_from_json(content, "sensors.json: s2")
