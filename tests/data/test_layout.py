"""Guessed places of values: confirmed where they are right, and only there."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tensorflow_datasets.proto import tf_example_pb2

from xjepa_jax.data.batch_source import BatchSource
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.layout import Layout, announcement
from xjepa_jax.data.order import Order
from xjepa_jax.data.pairs import Pair, PairFormat
from xjepa_jax.errors import CorruptRecordError, ExampleError
from xjepa_jax.sensor_presets import PRESETS

FIXED = settings(max_examples=100, deadline=None, derandomize=True)
FORM = PairFormat(
  {"s1": PRESETS["sentinel1_grd"], "s2": PRESETS["sentinel2_l2a"]}, {"s1": (6, 5), "s2": (3, 4)}
)
KEYS = ("s1", "s2")


def gaps_of(record: bytes, stretches: Sequence[tuple[str, int, int]]) -> list[np.ndarray]:
  """What `RecordSource.read_into` gives back, the framing's bytes included."""
  framed = np.frombuffer(bytes(12) + record + bytes(4), np.uint8)
  bounds = [0]
  for _, start, stop in stretches:
    bounds += [12 + len(record) + start, 12 + len(record) + stop]
  bounds.append(len(framed))
  return [framed[a:b] for a, b in zip(bounds[::2], bounds[1::2], strict=True)]


def find(layout: Layout, record: bytes) -> tuple[tuple[str, int, int], ...]:
  return layout.find(np.frombuffer(record, np.uint8))


def places(record: bytes) -> dict[str, bytes]:
  """Sensor -> the bytes of its values, by protobuf."""
  features = tf_example_pb2.Example.FromString(record).features.feature
  return {key: features[f"sensors/{key}/values"].bytes_list.value[0] for key in KEYS}


# --- what stands in front of the values -----------------------------------------------------------


@FIXED
@given(
  name=st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
  size=st.one_of(
    st.integers(0, 300), st.sampled_from([2**14 - 20, 2**14, 2**21 - 9, 2**21, 3_000_000])
  ),
)
@example(name="sensors/s1/values", size=120 * 120 * 2 * 4)
@example(name="", size=0)
@example(name="größe", size=1)  # more bytes than characters
def test_an_announcement_is_what_protobuf_writes_in_front_of_the_value(
  name: str, size: int
) -> None:
  parsed = tf_example_pb2.Example()
  parsed.features.feature[name].bytes_list.value.append(b"v" * size)
  assert announcement(name, size) + b"v" * size == parsed.features.SerializeToString()


@pytest.mark.parametrize("size", [*range(90, 140), *range(16_340, 16_400)])
def test_an_announcement_is_right_where_a_length_needs_another_byte(size: int) -> None:
  parsed = tf_example_pb2.Example()
  parsed.features.feature["sensors/s1/values"].bytes_list.value.append(bytes(size))
  written = parsed.features.SerializeToString()
  assert announcement("sensors/s1/values", size) + bytes(size) == written


# --- the guess ------------------------------------------------------------------------------------


def test_a_layout_finds_the_values_where_protobuf_finds_them(
  make_pair: Callable[[int], Pair],
) -> None:
  for number in range(15):
    record = FORM.encode(make_pair(number))
    layout = Layout(FORM, KEYS)
    found = {key: record[start:stop] for key, start, stop in find(layout, record)}
    assert found == {key: value for key, value in places(record).items() if value}
    assert (layout.guess is None) == (len(found) < 2)  # of a whole pair only


def test_a_guess_is_confirmed_where_it_is_right_and_nowhere_else(
  make_pair: Callable[[int], Pair],
) -> None:
  records = [FORM.encode(make_pair(number)) for number in range(40)]
  confirmed = 0
  for one in records:
    layout = Layout(FORM, KEYS)
    find(layout, one)
    if layout.guess is None:
      continue
    for other in records:
      right = all(other[a : b or None] == places(other)[key] for key, a, b in layout.guess)
      fits = all(-a <= len(other) for _, a, _ in layout.guess)
      found = fits and layout.confirmed(layout.guess, gaps_of(other, layout.guess))
      assert found == right
      confirmed += found
  assert confirmed > 100  # or nothing was compared


def test_a_guess_is_refused_where_any_byte_that_announces_it_differs(
  make_pair: Callable[[int], Pair],
) -> None:
  record = FORM.encode(make_pair(1))
  layout = Layout(FORM, KEYS)
  stretches = find(layout, record)
  assert layout.confirmed(stretches, gaps_of(record, stretches))
  for key, start, _ in stretches:
    size = len(announcement(f"sensors/{key}/values", FORM.value_bytes(key)))
    for back in range(1, size + 1):
      changed = bytearray(record)
      changed[start - back] ^= 1
      assert not layout.confirmed(stretches, gaps_of(bytes(changed), stretches))


def test_a_gap_that_is_shorter_than_the_announcement_refutes_a_guess() -> None:
  layout = Layout(FORM, ("s1",))
  whole = announcement("sensors/s1/values", FORM.value_bytes("s1"))
  for length in range(len(whole) + 1):
    gap = np.frombuffer(whole[len(whole) - length :], np.uint8)
    assert layout.confirmed([("s1", -240, 0)], [gap]) == (length == len(whole))


def test_a_record_of_another_format_is_refused(make_pair: Callable[[int], Pair]) -> None:
  record = FORM.encode(make_pair(0))
  other = PairFormat(FORM.sensors, {"s1": (6, 6), "s2": (3, 4)})
  with pytest.raises(ExampleError, match="'sensors/s1/values' holds 240 bytes, expected 288"):
    find(Layout(other, KEYS), record)
  with pytest.raises(ExampleError):
    find(Layout(FORM, KEYS), record[:-1])


# --- batches --------------------------------------------------------------------------------------


def assert_batches_hold_the_pairs(source: BatchSource, keys: Sequence[str], steps: int) -> None:
  """Every row of every batch equals the pair that protobuf's way of reading gives."""
  for step in range(steps):
    batch = source[step]
    assert list(batch["values"]) == list(batch["present"]) == list(keys)
    for row in np.flatnonzero(batch["valid"]):
      dataset = source.datasets[batch["dataset"][row]]
      number = int(batch["record"][row])
      parsed = tf_example_pb2.Example.FromString(dataset.records[number].tobytes())
      pair = dataset[number]
      assert parsed.features.feature["pair_id"].bytes_list.value[0].decode() == pair.pair_id
      for key in keys:
        values, present = batch["values"][key][row], batch["present"][key][row]
        assert present == (key in pair.observations)
        if present:
          np.testing.assert_array_equal(values, pair.observations[key].values)
        else:
          assert not values.any()


@pytest.mark.parametrize("encoding", ["bytes", "zlib"])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("keys", [("s1", "s2"), ("s2", "s1"), ("s2",), ("s1",)])
def test_batches_are_right_though_strings_differ_in_length_and_sensors_lack(
  tmp_path: pathlib.Path,
  build_dataset: Callable[..., str],
  make_pair: Callable[[int], Pair],
  encoding: str,
  shuffle: bool,
  keys: tuple[str, ...],
) -> None:
  directory = build_dataset(tmp_path / "d", 30, 5, encoding=encoding, pairs_a_shard=11)
  with PairDataset(directory) as dataset:
    assert {len(dataset.records[n]) for n in range(30)} != {len(dataset.records[0])}
    for number in range(30):  # what was written is what was meant
      for key, observation in make_pair(number).observations.items():
        np.testing.assert_array_equal(dataset[number].observations[key].values, observation.values)
    order = Order([30], shuffle=shuffle)
    source = BatchSource([dataset], order, 7, range(7), sensors=keys, pairs=30)
    assert_batches_hold_the_pairs(source, keys, len(source))
    assert source[4]["valid"].tolist() == [True, True] + [False] * 5


def test_batches_are_right_where_some_guesses_hold_and_others_do_not(
  tmp_path: pathlib.Path, build_dataset: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
  walked = []
  find_slowly = Layout.find

  def find_and_count(layout: Layout, record: np.ndarray) -> Any:
    walked.append(len(record))
    return find_slowly(layout, record)

  monkeypatch.setattr(Layout, "find", find_and_count)
  directory = build_dataset(tmp_path / "d", 60, 0, lacking=False)
  with PairDataset(directory) as dataset:
    source = BatchSource([dataset], Order([60], seed=1), 60, range(60))
    assert_batches_hold_the_pairs(source, KEYS, 1)
  assert 10 < len(walked) < 50


def test_values_that_look_like_another_layout_s_announcement_are_read_right(
  tmp_path: pathlib.Path,
  build_dataset: Callable[..., str],
  write_shard: Callable[[str, Sequence[bytes]], None],
  make_pair: Callable[[int], Pair],
) -> None:
  """Strings and unknown sensors that hold announcements do not lead a guess astray."""
  directory = build_dataset(tmp_path / "d", 4, 0, lacking=False)
  with PairDataset(directory) as dataset:
    records = [dataset.records[n].tobytes() for n in range(4)]
    shard = dataset.records.shards[0]
  bait = b"".join(announcement(f"sensors/{key}/values", FORM.value_bytes(key)) for key in KEYS)
  baited: list[Any] = [records[0]]
  for record in records[1:]:
    parsed = tf_example_pb2.Example.FromString(record)
    parsed.features.feature["zzz"].bytes_list.value.append(bait * 3)  # after the values
    parsed.features.feature["aaa"].bytes_list.value.append(bait * 3)  # before them
    baited.append(parsed.SerializeToString(deterministic=True))
  write_shard(shard, baited)
  with PairDataset(directory) as dataset:
    source = BatchSource([dataset], Order([4], shuffle=False), 4, range(4))
    assert_batches_hold_the_pairs(source, KEYS, 2)


def test_features_in_any_order_and_twice_give_right_batches(
  tmp_path: pathlib.Path,
  build_dataset: Callable[..., str],
  write_shard: Callable[[str, Sequence[bytes]], None],
) -> None:
  directory = build_dataset(tmp_path / "d", 4, 0, lacking=False)
  with PairDataset(directory) as dataset:
    record = dataset.records[0].tobytes()
    shard = dataset.records.shards[0]
  parsed = tf_example_pb2.Example.FromString(record)
  entries = []
  for name in sorted(parsed.features.feature):
    alone = tf_example_pb2.Example()
    alone.features.feature[name].CopyFrom(parsed.features.feature[name])
    entries.append(alone.SerializeToString())  # Examples one after another are one Example
  overwritten = tf_example_pb2.Example()
  overwritten.features.feature["sensors/s2/values"].bytes_list.value.append(
    bytes(FORM.value_bytes("s2"))
  )
  twice = overwritten.SerializeToString() + record  # the last one counts
  write_shard(shard, [b"".join(entries), b"".join(entries[::-1]), twice, record])
  with PairDataset(directory) as dataset:
    source = BatchSource([dataset], Order([4], shuffle=False), 4, range(4))
    assert_batches_hold_the_pairs(source, KEYS, 2)
    assert source[0]["values"]["s2"][2].any()


def test_a_damaged_record_in_a_batch_is_refused_by_name(
  tmp_path: pathlib.Path, build_dataset: Callable[..., str]
) -> None:
  directory = build_dataset(tmp_path / "d", 8, 0)
  shard = next(pathlib.Path(directory).glob("*-00001-of-*[0-9]"))
  content = bytearray(shard.read_bytes())
  content[-5] ^= 64
  shard.write_bytes(content)
  with PairDataset(directory) as dataset:
    source = BatchSource([dataset], Order([8], shuffle=False), 4, range(4))
    source[0]
    with pytest.raises(CorruptRecordError, match=f"^{shard}: record 3: its bytes do not match"):
      source[1]
