"""The example on disk: what goes in comes out, here and through TFDS."""

from __future__ import annotations

import dataclasses
import math
import zlib

import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from xjepa_jax.data.pairs import Observation, Pair, PairFormat
from xjepa_jax.errors import ExampleError, PairError, SensorError
from xjepa_jax.sensor_presets import PRESETS

SENSORS = {"s1": PRESETS["sentinel1_grd"], "s2": PRESETS["sentinel2_l2a"]}
SHAPES = {"s1": (6, 5), "s2": (3, 4)}


def make_format(encoding: str = "bytes") -> PairFormat:
  return PairFormat(SENSORS, SHAPES, encoding)


def make_pair() -> Pair:
  rng = np.random.default_rng(1)
  s1 = rng.normal(-12, 4, (6, 5, 2)).astype(np.float32)
  s1[0, 0] = np.nan
  return Pair(
    pair_id="tile 7/ü",
    observations={
      "s1": Observation(s1, "2017-06-13T10:10:31Z"),
      "s2": Observation(rng.integers(1, 10000, (3, 4, 12)).astype(np.uint16)),
    },
    labels=("Non-irrigated arable land", "Sea and ocean"),
    longitude=20.123456789012,
    latitude=-44.987654321098,
    crs="EPSG:32634",
    transform=(10.0, 0.0, 600000.5, 0.0, -10.0, 4900000.25),
  )


def assert_same(found: Pair, expected: Pair) -> None:
  for field in dataclasses.fields(Pair):
    if field.name != "observations":
      np.testing.assert_equal(getattr(found, field.name), getattr(expected, field.name))
  assert list(found.observations) == list(expected.observations)
  for key, observation in expected.observations.items():
    assert found.observations[key].acquired == observation.acquired
    assert found.observations[key].values.dtype == observation.values.dtype
    np.testing.assert_array_equal(found.observations[key].values, observation.values)


@pytest.mark.parametrize("encoding", ["bytes", "zlib"])
def test_a_pair_comes_back_as_it_went_in(encoding: str) -> None:
  form = make_format(encoding)
  assert_same(form.decode(form.encode(make_pair())), make_pair())


@pytest.mark.parametrize("encoding", ["bytes", "zlib"])
def test_tfds_decodes_what_was_written(encoding: str) -> None:
  form, pair = make_format(encoding), make_pair()
  decoded = form.features().deserialize_example_np(form.encode(pair))
  assert decoded["pair_id"].decode() == pair.pair_id
  assert [label.decode() for label in decoded["labels"]] == list(pair.labels)
  assert decoded["longitude"] == pair.longitude  # all 52 bits: a TFDS scalar keeps 23
  assert decoded["latitude"] == pair.latitude
  np.testing.assert_array_equal(decoded["transform"], pair.transform)
  for key, observation in pair.observations.items():
    np.testing.assert_array_equal(decoded["sensors"][key]["values"], observation.values[None])
  assert decoded["sensors"]["s1"]["acquired"] == b"2017-06-13T10:10:31Z"
  assert decoded["sensors"]["s1"]["valid_fraction"] == np.float32(29 / 30)


def test_a_pair_may_lack_a_sensor() -> None:
  form, pair = make_format(), make_pair()
  only = dataclasses.replace(pair, observations={"s2": pair.observations["s2"]})
  record = form.encode(only)
  assert_same(form.decode(record), only)
  decoded = form.features().deserialize_example_np(record)
  assert decoded["sensors"]["s1"]["values"].shape == (0, 6, 5, 2)
  assert decoded["sensors"]["s1"]["valid_fraction"] == 0


def test_a_pair_may_hold_more_than_two_sensors() -> None:
  form = PairFormat({**SENSORS, "grey": PRESETS["grey"]}, {**SHAPES, "grey": (2, 2)})
  pair = make_pair()
  grey = Observation(np.full((2, 2, 1), 9, np.uint8))
  three = dataclasses.replace(pair, observations={**pair.observations, "grey": grey})
  assert_same(form.decode(form.encode(three)), three)


def test_unknown_place_and_no_labels_stay_unknown() -> None:
  form = make_format()
  bare = Pair("bare", make_pair().observations)
  found = form.decode(form.encode(bare))
  assert math.isnan(found.longitude) and math.isnan(found.transform[0])
  assert found.labels == () and found.crs == ""


def test_equal_pairs_give_equal_bytes_with_features_in_order_of_name() -> None:
  form = make_format()
  record = form.encode(make_pair())
  assert record == make_format().encode(make_pair())
  message = tf_example_pb2.Example.FromString(record)
  assert message.SerializeToString(deterministic=True) == record


@pytest.mark.parametrize(
  ("change", "complaint"),
  [
    ({"pair_id": ""}, "empty pair_id"),
    ({"observations": {}}, "'tile 7/ü' has no sensor"),
    ({"observations": {"s3": Observation(np.zeros((6, 5, 2), np.float32))}}, "sensor 's3'"),
    (
      {"observations": {"s1": Observation(np.ones((5, 6, 2), np.float32))}},
      r"\(5, 6, 2\), expected \(6, 5, 2\)",
    ),
    ({"observations": {"s1": Observation(np.ones((6, 5, 2)))}}, "float64, expected float32"),
    (
      {"observations": {"s1": Observation(np.full((6, 5, 2), np.nan, np.float32))}},
      "no pixel is valid",
    ),
    ({"observations": {"s2": Observation(np.zeros((3, 4, 12), np.uint16))}}, "no pixel is valid"),
    ({"transform": (1.0, 2.0)}, "six numbers"),
  ],
)
def test_a_pair_that_does_not_fit_is_refused_by_name(
  change: dict[str, object], complaint: str
) -> None:
  with pytest.raises(PairError, match=complaint):
    make_format().encode(dataclasses.replace(make_pair(), **change))  # type: ignore[arg-type]


def test_values_of_another_size_are_refused() -> None:
  record = make_format().encode(make_pair())
  other = PairFormat(SENSORS, {**SHAPES, "s2": (4, 4)})
  with pytest.raises(ExampleError, match=r"'sensors/s2/values' holds 288 bytes, expected 384"):
    other.decode(record)


def test_zlib_values_that_inflate_to_more_are_refused_without_inflating_them() -> None:
  form = make_format("zlib")
  message = tf_example_pb2.Example.FromString(form.encode(make_pair()))
  bomb = zlib.compress(bytes(50_000_000))
  message.features.feature["sensors/s2/values"].bytes_list.value[0] = bomb
  with pytest.raises(ExampleError, match="inflates to other than 288 bytes"):
    form.decode(message.SerializeToString())
  message.features.feature["sensors/s2/values"].bytes_list.value[0] = b"no zlib"
  with pytest.raises(ExampleError, match="is not zlib data"):
    form.decode(message.SerializeToString())


def test_a_sensor_key_must_be_able_to_name_a_feature() -> None:
  with pytest.raises(SensorError, match="'S 1'"):
    PairFormat({"S 1": SENSORS["s1"]}, {"S 1": (2, 2)})
