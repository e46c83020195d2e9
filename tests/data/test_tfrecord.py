"""Random access to the records of many shards."""

from __future__ import annotations

import concurrent.futures
import gc
import multiprocessing
import operator
import os
import pathlib
import pickle
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xjepa_jax.data import framing, shard_index, tfrecord
from xjepa_jax.data.tfrecord import RecordSource
from xjepa_jax.errors import CorruptRecordError, DatasetError, ShardIndexError

LENGTHS = [3, 0, 5, 1, 0, 0, 4, 0]  # records of each shard: empty shards at, before and after ends
ShardWriter = Callable[[str, Sequence[bytes]], None]


def record_of(number: int) -> bytes:
  return random.Random(number).randbytes(number * 37 % 200)


@pytest.fixture
def shards(tmp_path: pathlib.Path, write_shard: ShardWriter) -> list[str]:
  paths = [str(tmp_path / f"shard-{i}") for i in range(len(LENGTHS))]
  numbers = iter(range(sum(LENGTHS)))
  for path, length in zip(paths, LENGTHS, strict=True):
    write_shard(path, [record_of(next(numbers)) for _ in range(length)])
  return paths


def flip(path: str, byte: int) -> None:
  content = bytearray(pathlib.Path(path).read_bytes())
  content[byte] ^= 1
  pathlib.Path(path).write_bytes(content)


# --- which record ---------------------------------------------------------------------------------


def test_random_access_gives_what_a_scan_in_order_gives(shards: list[str]) -> None:
  scanned = []
  for path in shards:
    content = pathlib.Path(path).read_bytes()
    with open(path, "rb") as file:
      scanned += [content[a : a + length] for a, length, _ in framing.scan(file, path)]
  with RecordSource(shards) as source:
    assert len(source) == len(scanned) == sum(LENGTHS)
    numbers = list(range(len(source))) * 2
    random.Random(0).shuffle(numbers)
    for number in numbers:
      assert source[number].tobytes() == scanned[number] == record_of(number)
    assert [record.tobytes() for record in source.read(numbers)] == [scanned[n] for n in numbers]
    assert source.read([]) == []


def test_a_record_is_a_view_that_cannot_be_written(shards: list[str]) -> None:
  with RecordSource(shards) as source:
    record = source[1]
    assert record.dtype == np.uint8 and record.ndim == 1 and not record.flags.writeable
    assert np.shares_memory(record, source[1])


def test_numbers_outside_are_index_errors(shards: list[str]) -> None:
  with RecordSource(shards) as source:
    for number in (-1, -len(source), len(source), len(source) + 1, 2**70):
      with pytest.raises(IndexError, match=f"record {number} of 13"):
        source[number]
      with pytest.raises(IndexError):
        source.read_into(number, [])
      with pytest.raises(IndexError):
        source.where(number)


def test_shards_without_any_record_are_an_empty_source(shards: list[str]) -> None:
  with RecordSource([shards[1], shards[4]]) as source:
    assert len(source) == 0 and source.lengths() == [0, 0]
    with pytest.raises(IndexError):
      source[0]


def test_a_record_is_named_by_its_shard_and_its_number_there(shards: list[str]) -> None:
  with RecordSource(shards) as source:
    assert source.lengths() == LENGTHS
    assert source.where(0) == f"{shards[0]}: record 0"
    assert source.where(3) == f"{shards[2]}: record 0"
    assert source.where(8) == f"{shards[3]}: record 0"
    assert source.where(12) == f"{shards[6]}: record 3"


def test_no_shard_at_all_is_refused() -> None:
  with pytest.raises(DatasetError, match="at least one"):
    RecordSource([])


# --- open files -----------------------------------------------------------------------------------


def test_more_shards_than_stay_open_are_read_alike(
  tmp_path: pathlib.Path, write_shard: ShardWriter
) -> None:
  count = tfrecord._OPEN_SHARDS + 40
  paths = [str(tmp_path / f"{i:03d}") for i in range(count)]
  for i, path in enumerate(paths):
    write_shard(path, [b"%d" % i, b"second of %d" % i])
  before = len(os.listdir("/dev/fd"))
  with RecordSource(paths) as source:
    numbers = [n for _ in range(2) for n in range(2 * count)]
    random.Random(1).shuffle(numbers)
    for number in numbers:
      shard = number // 2
      assert source[number].tobytes() == (b"second of %d" if number % 2 else b"%d") % shard
    gc.collect()
    # A descriptor for the shard, and one that its map keeps for itself.
    assert len(os.listdir("/dev/fd")) - before <= 2 * tfrecord._OPEN_SHARDS
  gc.collect()
  assert len(os.listdir("/dev/fd")) <= before


def test_views_outlive_their_source_and_its_files(shards: list[str]) -> None:
  source = RecordSource(shards)
  views = [source[number] for number in range(len(source))]
  source.close()
  for path in shards:
    os.unlink(path)
  del source
  gc.collect()
  assert [view.tobytes() for view in views] == [record_of(n) for n in range(13)]


def test_a_source_that_was_closed_opens_its_files_again(shards: list[str]) -> None:
  source = RecordSource(shards)
  for _ in range(3):
    assert source[7].tobytes() == record_of(7)
    source.close()


def test_nothing_is_left_for_the_garbage_collector_to_complain_about(shards: list[str]) -> None:
  # The repository's pytest settings turn a file that was not closed into an error.
  source = RecordSource(shards)
  source[0]
  del source
  gc.collect()


# --- elsewhere and at the same time ---------------------------------------------------------------


def test_a_source_works_in_a_process_that_it_was_sent_to(shards: list[str]) -> None:
  with RecordSource(shards) as source:
    source[0]  # what is open must not travel
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
      for number in (0, 4, 12):
        found = pool.submit(operator.getitem, source, number).result()
        assert found.tobytes() == record_of(number)
      with pytest.raises(IndexError):
        pool.submit(operator.getitem, source, 13).result()


def test_a_pickled_source_keeps_whether_it_verifies(shards: list[str]) -> None:
  for verify in (True, False):
    with pickle.loads(pickle.dumps(RecordSource(shards, verify))) as copy:
      assert copy.verify is verify and copy.shards == tuple(shards) and len(copy) == 13
      assert copy[12].tobytes() == record_of(12)


@pytest.mark.parametrize("open_shards", [1, 128])
def test_threads_that_read_at_once_get_the_right_bytes(
  shards: list[str], monkeypatch: pytest.MonkeyPatch, open_shards: int
) -> None:
  monkeypatch.setattr(tfrecord, "_OPEN_SHARDS", open_shards)  # 1: a shard is closed by the next
  monkeypatch.setattr(tfrecord, "_MAPPED_BYTES", 500)  # pages are given back all the time
  source = RecordSource(shards)
  wrong: list[int] = []
  together = threading.Barrier(8)

  def read(seed: int) -> None:
    chosen = random.Random(seed)
    together.wait(timeout=60)
    for turn in range(300):
      number = chosen.randrange(13)
      expected = record_of(number)
      array = np.empty(len(expected), np.uint8)
      source.read_into(number, [(-len(expected), 0, array)])
      if source[number].tobytes() != expected or array.tobytes() != expected:
        wrong.append(number)
      if turn % 50 == seed:
        source.close()

  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    for future in [pool.submit(read, seed) for seed in range(8)]:
      future.result(timeout=120)
  source.close()
  assert wrong == []


# --- damage ---------------------------------------------------------------------------------------


def test_damage_is_refused_when_verifying_and_passed_on_when_not(shards: list[str]) -> None:
  for byte in (0, 9, 12, 40, -2):  # length, its checksum, data, data, the data's checksum
    flip(shards[2], byte)
    with RecordSource(shards) as source:
      bad = 3 if byte >= 0 else 7
      with pytest.raises(CorruptRecordError, match=f"^{shards[2]}: record {bad - 3}: its "):
        source[bad]
      size = len(record_of(bad))
      with pytest.raises(CorruptRecordError, match=f"^{shards[2]}: record {bad - 3}: its "):
        source.read_into(bad, [(-size, 0, np.empty(size, np.uint8))])
      assert source[8].tobytes() == record_of(8)
    with RecordSource(shards, verify=False) as source:
      array = np.empty(size, np.uint8)
      source.read_into(bad, [(-size, 0, array)])
      different = sum(a != b for a, b in zip(source[bad].tobytes(), record_of(bad), strict=True))
      assert different == (1 if byte in (12, 40) else 0)
      assert array.tobytes() == source[bad].tobytes()
    flip(shards[2], byte)


def test_an_index_that_places_a_record_outside_its_shard_is_refused(shards: list[str]) -> None:
  index = shard_index.read(shards[0])
  size = index.shard_size
  entries = [(5, 3, 0), (12, size, 0), (2**63, 10, 0)]
  wild = shard_index.from_entries(entries, size)
  pathlib.Path(shards[0] + ".index").write_bytes(wild.to_bytes())
  with RecordSource(shards, verify=False) as source:
    for row in range(3):
      with pytest.raises(CorruptRecordError, match=f"^{shards[0]}: record {row}: its index places"):
        source[row]
      with pytest.raises(CorruptRecordError, match=f"^{shards[0]}: record {row}: its index places"):
        source.read_into(row, [])


def test_a_shard_replaced_by_one_of_another_count_is_refused_each_time(
  shards: list[str], write_shard: ShardWriter
) -> None:
  with RecordSource(shards) as source:
    write_shard(shards[2], [b"one", b"two"])
    for _ in range(2):  # not only when it is opened
      for number in (3, 6):
        with pytest.raises(ShardIndexError, match="2 records, but 5 when it was opened"):
          source[number]


def test_an_index_or_a_shard_that_vanishes_after_opening_is_named(shards: list[str]) -> None:
  with RecordSource(shards) as source:
    os.unlink(shards[0] + ".index")
    with pytest.raises(ShardIndexError, match=f"^{shards[0]}.index: the index is gone"):
      source[0]
    os.unlink(shards[2])
    with pytest.raises(CorruptRecordError, match=f"^{shards[2]}: the shard is missing"):
      source[3]
    os.mkdir(shards[2])
    with pytest.raises(ShardIndexError, match=f"^{shards[2]}: "):
      source[3]


@pytest.mark.parametrize("verify", [True, False])
def test_a_shard_cut_short_while_it_is_open_is_an_error_and_not_the_end_of_the_process(
  tmp_path: pathlib.Path, write_shard: ShardWriter, verify: bool
) -> None:
  path = str(tmp_path / "shard")
  write_shard(path, [b"a" * 5000, b"b" * 50_000])
  with RecordSource([path], verify) as source:
    assert source[1].tobytes() == b"b" * 50_000
    os.truncate(path, 6000)
    assert source[0].tobytes() == b"a" * 5000
    with pytest.raises(CorruptRecordError, match=f"^{path}: record 1: the file ends within it"):
      source[1]
    with pytest.raises(CorruptRecordError, match=f"^{path}: record 1: the file ends within it"):
      source.read_into(1, [(-50_000, 0, np.empty(50_000, np.uint8))])


# --- reading into arrays --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_record(tmp_path_factory: pytest.TempPathFactory) -> RecordSource:
  path = tmp_path_factory.mktemp("one") / "shard"
  path.write_bytes(framing.frame(b"before") + framing.frame(record_of(5)) + framing.frame(b"after"))
  return RecordSource([str(path)])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(cuts=st.lists(st.integers(-190, 0), max_size=6).map(sorted))
def test_reading_into_arrays_equals_slicing(one_record: RecordSource, cuts: list[int]) -> None:
  data = one_record[1].tobytes()
  assert data == record_of(5) and len(data) == 185
  spans = list(zip(cuts[::2], cuts[1::2], strict=False))
  parts = [(a, b, np.full(b - a, 77, np.uint8)) for a, b in spans]
  gaps = one_record.read_into(1, parts)
  if spans and spans[0][0] < -len(data):
    assert gaps is None
    assert all((array == 77).all() for _, _, array in parts)
    return
  assert gaps is not None and len(gaps) == len(spans) + 1
  framed = framing.frame(data)  # the first and the last gap reach over header and checksum
  at = 0
  for (start, stop, array), gap in zip(parts, gaps[:-1], strict=True):
    a, b = 12 + len(data) + start, 12 + len(data) + stop
    assert gap.tobytes() == framed[at:a]
    assert array.tobytes() == framed[a:b]
    at = b
  assert gaps[-1].tobytes() == framed[at:]


def test_stretches_that_overlap_or_fall_back_are_not_read(one_record: RecordSource) -> None:
  a, b = np.full(10, 77, np.uint8), np.full(10, 77, np.uint8)
  for parts in ([(-50, -40, a), (-45, -35, b)], [(-50, -40, a), (-70, -60, b)]):
    assert one_record.read_into(1, parts) is None
    assert (a == 77).all() and (b == 77).all()


# --- memory ---------------------------------------------------------------------------------------

_READ_ALL = """
import sys
from xjepa_jax.data.tfrecord import RecordSource

def peak():
  lines = open("/proc/self/status").read().splitlines()
  return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

source = RecordSource(sys.argv[2:], verify=sys.argv[1] == "verify")
before = peak()
total = 0
for number in range(len(source)):
  total += int(source[number].sum())  # every byte is looked at
print(total, (peak() - before) >> 10)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's /proc")
@pytest.mark.parametrize("record_bytes", [500_000, 12_000_000])
def test_memory_stays_bounded_when_far_more_is_read(
  tmp_path: pathlib.Path, record_bytes: int
) -> None:
  megabytes = 600
  assert megabytes << 20 > 4 * tfrecord._MAPPED_BYTES
  data = bytes(record_bytes - 1) + b"\1"
  framed = framing.frame(data)
  per_shard = 100_000_000 // record_bytes
  paths = []
  for number in range(megabytes // 100):
    path = tmp_path / f"shard-{number}"
    with open(path, "wb") as file:  # holes for the zeros: the disk holds next to nothing
      for row in range(per_shard):
        file.seek(row * len(framed))
        file.write(framed[:12])
        file.seek(record_bytes - 1, os.SEEK_CUR)
        file.write(framed[-5:])
    crc = framing.masked_crc(data)
    rows = [(row * len(framed) + 12, record_bytes, crc) for row in range(per_shard)]
    index = shard_index.from_entries(rows, path.stat().st_size)
    pathlib.Path(f"{path}.index").write_bytes(index.to_bytes())
    paths.append(str(path))
  try:
    for verify in ("verify", "trust"):
      command = [sys.executable, "-c", _READ_ALL, verify, *paths]
      answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
      total, grown = map(int, answer.stdout.split())
      assert total == len(paths) * per_shard
      assert grown < 400
  finally:
    for name in paths:
      os.unlink(name)
