"""Damage anywhere in a data set is found, and said by name."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import random
import re
import shutil
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from xjepa_jax.data.batch_source import BatchSource
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.order import Order
from xjepa_jax.data.pairs import Observation, Pair, PairFormat
from xjepa_jax.errors import CorruptRecordError, DataError, ExampleError, ShardIndexError
from xjepa_jax.sensor_presets import PRESETS

FLIPS = 1000
Reader = Callable[[str], None]


def read_pairs(directory: str) -> None:
  with PairDataset(directory, None) as dataset:
    for number in range(len(dataset)):
      dataset[number]


def read_batches(directory: str) -> None:
  with PairDataset(directory, None) as dataset:
    order = Order([len(dataset)], shuffle=False)
    source = BatchSource([dataset], order, 5, range(5), pairs=len(dataset))
    for step in range(len(source)):
      source[step]


READERS = pytest.mark.parametrize("read", [read_pairs, read_batches])


@pytest.fixture
def damaged(small_dataset: str, tmp_path: pathlib.Path) -> str:
  """A copy of the small data set, for damage."""
  return str(shutil.copytree(small_dataset, tmp_path / "damaged"))


def shards_of(directory: str) -> list[str]:
  names = sorted(os.listdir(directory))
  return [f"{directory}/{name}" for name in names if re.search(r"-of-\d{5}$", name)]


def refusal(read: Reader, directory: str) -> DataError:
  with pytest.raises(DataError) as caught:
    read(directory)
  return caught.value


# --- bits that flipped ----------------------------------------------------------------------------


def test_a_thousand_flipped_bits_are_all_found_and_the_file_is_named(damaged: str) -> None:
  files = [path + suffix for path in shards_of(damaged) for suffix in ("", ".index")]
  assert len(files) == 10
  chosen = random.Random(20)
  for turn in range(FLIPS):
    path = files[turn % len(files)]
    bit = chosen.randrange(8 * os.path.getsize(path))
    with open(path, "r+b") as file:
      file.seek(bit // 8)
      byte = file.read(1)[0]
      file.seek(bit // 8)
      file.write(bytes([byte ^ 1 << bit % 8]))
    error = refusal(read_batches if turn % 4 == 3 else read_pairs, damaged)
    place = f"bit {bit} of {os.path.basename(path)}"
    if path.endswith(".index"):
      assert isinstance(error, ShardIndexError), place
      assert str(error).startswith(f"{path}: the index is damaged"), place
    else:
      assert isinstance(error, CorruptRecordError), place
      assert re.match(re.escape(path) + r": record [0-3]: its ", str(error)), place
    with open(path, "r+b") as file:
      file.seek(bit // 8)
      file.write(bytes([byte]))
  read_pairs(damaged)
  read_batches(damaged)


@READERS
def test_records_that_changed_places_are_found(damaged: str, read: Reader) -> None:
  # Each record is whole: only the index knows that this one is another one's.
  first, second = (pathlib.Path(path) for path in shards_of(damaged)[:2])
  one, other = first.read_bytes(), second.read_bytes()
  size = min(len(one), len(other))
  first.write_bytes(other[:size] + one[size:])
  assert str(refusal(read, damaged)).startswith(f"{first}: record 0: its ")


# --- files that are not whole ---------------------------------------------------------------------


@READERS
def test_a_shard_cut_short_is_found_when_it_is_opened(damaged: str, read: Reader) -> None:
  path = shards_of(damaged)[1]
  whole = os.path.getsize(path)
  for size in (whole - 1, whole // 2, 11, 1, 0):
    os.truncate(path, size)
    error = refusal(read, damaged)
    assert isinstance(error, ShardIndexError)
    assert str(error).startswith(f"{path}: {size} bytes, but its index was made for {whole}")


@READERS
def test_a_shard_cut_short_is_found_without_its_index_too(damaged: str, read: Reader) -> None:
  path = shards_of(damaged)[1]
  os.unlink(path + ".index")
  os.truncate(path, os.path.getsize(path) - 1)
  error = refusal(read, damaged)
  assert isinstance(error, CorruptRecordError)
  assert re.match(re.escape(path) + r": record 3 at byte \d+: the file ends within", str(error))
  assert not os.path.exists(path + ".index")


@READERS
def test_a_shard_that_lost_its_last_record_with_its_index_is_found(
  damaged: str, read: Reader, write_shard: Callable[[str, Sequence[bytes]], None]
) -> None:
  path = shards_of(damaged)[1]
  with PairDataset(damaged, "train") as dataset:
    records = [record.tobytes() for record in dataset.records.read([4, 5, 6])]
  write_shard(path, records)
  error = refusal(read, damaged)
  assert str(error).startswith(f"{path}: 3 records, but {damaged}/dataset_info.json says 4")


@READERS
def test_a_shard_or_an_index_that_is_something_else_is_found(damaged: str, read: Reader) -> None:
  path = shards_of(damaged)[0]
  index = pathlib.Path(path + ".index")
  content = index.read_bytes()
  index.write_bytes(b"PK\x03\x04" + content[4:])
  assert str(refusal(read, damaged)).startswith(f"{index}: the index is damaged (it starts with")
  index.unlink()
  pathlib.Path(path).write_bytes(b"PK\x03\x04 this is no TFRecord at all")
  assert str(refusal(read, damaged)).startswith(f"{path}: record 0 at byte 0: no TFRecord")


@READERS
def test_a_missing_shard_is_named(damaged: str, read: Reader) -> None:
  path = shards_of(damaged)[-1]
  os.unlink(path)
  assert str(refusal(read, damaged)).startswith(f"{path}: the shard is missing")


# --- records that are intact and yet not what they should be --------------------------------------


def altered(record: bytes, change: Callable[[Any], None]) -> bytes:
  parsed = tf_example_pb2.Example.FromString(record)
  change(parsed.features.feature)
  return parsed.SerializeToString(deterministic=True)


def without_s1(features: Any) -> None:
  del features["sensors/s1/values"]


def two_values(features: Any) -> None:
  features["sensors/s1/values"].bytes_list.value.append(b"another")


def numbers_for_bytes(features: Any) -> None:
  features["sensors/s1/values"].Clear()
  features["sensors/s1/values"].float_list.value.append(1.0)


def one_byte_less(features: Any) -> None:
  value = features["sensors/s1/values"].bytes_list.value
  value[0] = value[0][:-1]


ALTERATIONS = [
  (without_s1, "'sensors/s1/values' is missing"),
  (two_values, "'sensors/s1/values' holds 2 byte strings, expected 1"),
  (numbers_for_bytes, "'sensors/s1/values' is of another kind"),
  (one_byte_less, "'sensors/s1/values' holds 239 bytes, expected 240"),
]


@READERS
@pytest.mark.parametrize(("change", "complaint"), ALTERATIONS)
def test_an_example_of_other_features_names_file_record_and_pair(
  damaged: str,
  write_shard: Callable[[str, Sequence[bytes]], None],
  make_pair: Callable[[int], Pair],
  read: Reader,
  change: Callable[[Any], None],
  complaint: str,
) -> None:
  path = shards_of(damaged)[1]
  with PairDataset(damaged, "train") as dataset:
    records = [record.tobytes() for record in dataset.records.read([4, 5, 6, 7])]
  records[2] = altered(records[2], change)
  write_shard(path, records)
  error = refusal(read, damaged)
  assert isinstance(error, ExampleError)
  assert str(error).startswith(f"{path}: record 2, pair {make_pair(6).pair_id!r}: ")
  assert complaint in str(error)


@READERS
@pytest.mark.parametrize("content", [b"this is no Example", b"", b"\xff" * 50, b"\x0a\x05abc"])
def test_a_record_that_is_no_example_names_file_and_record(
  damaged: str,
  write_shard: Callable[[str, Sequence[bytes]], None],
  read: Reader,
  content: bytes,
) -> None:
  path = shards_of(damaged)[0]
  with PairDataset(damaged, "train") as dataset:
    records = [record.tobytes() for record in dataset.records.read([0, 1, 2, 3])]
  write_shard(path, [records[0], content, *records[2:]])
  error = refusal(read, damaged)
  assert isinstance(error, ExampleError)
  assert str(error).startswith(f"{path}: record 1: ")


@pytest.mark.parametrize("name", ["labels", "latitude", "transform", "crs", "pair_id"])
def test_a_pair_without_one_of_its_own_features_is_refused(
  damaged: str, write_shard: Callable[[str, Sequence[bytes]], None], name: str
) -> None:
  path = shards_of(damaged)[0]
  with PairDataset(damaged, "train") as dataset:
    records = [record.tobytes() for record in dataset.records.read([0, 1, 2, 3])]

  def remove(features: Any) -> None:
    del features[name]

  write_shard(path, [*records[:3], altered(records[3], remove)])
  error = refusal(read_pairs, damaged)
  assert isinstance(error, ExampleError)
  assert str(error).startswith(f"{path}: record 3")
  assert f"feature {name!r} is missing" in str(error)


@READERS
@pytest.mark.parametrize("what", ["shape", "dtype"])
def test_a_shard_of_another_data_set_is_refused_though_its_checksums_are_right(
  damaged: str,
  write_shard: Callable[[str, Sequence[bytes]], None],
  make_pair: Callable[[int], Pair],
  read: Reader,
  what: str,
) -> None:
  sensors = {"s1": PRESETS["sentinel1_grd"], "s2": PRESETS["sentinel2_l2a"]}
  pair = make_pair(0)
  s1 = pair.observations["s1"].values
  if what == "shape":
    form = PairFormat(sensors, {"s1": (6, 6), "s2": (3, 4)})
    values = np.repeat(s1[:, :1], 6, axis=1)
  else:
    sensors["s1"] = dataclasses.replace(sensors["s1"], dtype="float64")
    form = PairFormat(sensors, {"s1": (6, 5), "s2": (3, 4)})
    values = s1.astype(np.float64)
  other = dataclasses.replace(
    pair, pair_id="stranger", observations={**pair.observations, "s1": Observation(values)}
  )
  path = shards_of(damaged)[0]
  write_shard(path, [form.encode(other)] * 4)
  error = refusal(read, damaged)
  assert isinstance(error, ExampleError)
  assert str(error).startswith(f"{path}: record 0, pair 'stranger': 'sensors/s1/values' holds ")
  assert "expected 240 for (6, 5, 2) float32" in str(error)


@READERS
def test_compressed_values_of_another_size_name_file_record_and_pair(
  tmp_path: pathlib.Path,
  build_dataset: Callable[..., str],
  write_shard: Callable[[str, Sequence[bytes]], None],
  make_pair: Callable[[int], Pair],
  read: Reader,
) -> None:
  directory = build_dataset(tmp_path / "d", 4, 0, encoding="zlib")
  path = shards_of(directory)[0]
  with PairDataset(directory, "train") as dataset:
    records = [dataset.records[n].tobytes() for n in range(4)]
  for content in (zlib.compress(bytes(1 << 20)), zlib.compress(bytes(239)), b"no zlib"):

    def put(features: Any, content: bytes = content) -> None:
      features["sensors/s1/values"].bytes_list.value[0] = content

    write_shard(path, [records[0], altered(records[1], put), *records[2:]])
    error = refusal(read, directory)
    assert str(error).startswith(f"{path}: record 1, pair {make_pair(1).pair_id!r}: ")
