"""A data set in object storage: what is read equals the local one, or the error names it."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.spec import AbstractFileSystem

from xjepa_jax.data import shard_index, storage
from xjepa_jax.data.batch_source import BatchSource
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.description import INFO_FILE, describe
from xjepa_jax.data.order import Order
from xjepa_jax.data.pairs import Pair
from xjepa_jax.data.tfrecord import RecordSource
from xjepa_jax.errors import CorruptRecordError, DatasetError, ShardIndexError, WriteError

BUCKET = "pairs-of-a-test"
SHARD = "small-train.tfrecord-00001-of-00003"

# --- three object stores --------------------------------------------------------------------------


class Shelf:
  """A copy of the small data set in an object store, changed by other means than the package."""

  def __init__(self, address: str, files: Any):
    self.address = address
    self._files = files

  def get(self, name: str) -> bytes:
    return bytes(self._files.cat_file(f"{self.address}/{name}"))

  def put(self, name: str, content: bytes | bytearray) -> None:
    self._files.pipe_file(f"{self.address}/{name}", bytes(content))

  def remove(self, name: str) -> None:
    self._files.rm_file(f"{self.address}/{name}")

  def names(self) -> list[str]:
    self._files.invalidate_cache()
    return sorted(path.rsplit("/", 1)[-1] for path in self._files.find(self.address))


def fill(shelf: Shelf, directory: str) -> Shelf:
  for path in pathlib.Path(directory).iterdir():
    shelf.put(path.name, path.read_bytes())
  return shelf


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
  """The address of an S3 server on this machine; credentials and region are in the environment."""
  server_module = pytest.importorskip("moto.server")
  s3fs = pytest.importorskip("s3fs")
  server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
  server.start()
  host, port = server.get_host_and_port()
  with pytest.MonkeyPatch.context() as patch:
    for name in list(os.environ):
      if name.startswith("AWS_"):
        patch.delenv(name)
    for name, value in {
      "AWS_ENDPOINT_URL": f"http://{host}:{port}",
      "AWS_ACCESS_KEY_ID": "a-test",
      "AWS_SECRET_ACCESS_KEY": "a-test",
      "AWS_DEFAULT_REGION": "us-east-1",
      "AWS_EC2_METADATA_DISABLED": "true",
      "AWS_MAX_ATTEMPTS": "1",
      "AWS_CONFIG_FILE": os.devnull,
      "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
      "NO_PROXY": "127.0.0.1",
    }.items():
      patch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    storage.filesystem.cache_clear()
    s3fs.S3FileSystem(use_listings_cache=False).mkdir(BUCKET)
    yield f"http://{host}:{port}"
    s3fs.S3FileSystem.clear_instance_cache()
    storage.filesystem.cache_clear()
  server.stop()


@pytest.fixture
def s3(s3_server: str, small_dataset: str, tmp_path: pathlib.Path) -> Shelf:
  import s3fs

  files = s3fs.S3FileSystem(use_listings_cache=False)  # another than the package's own
  return fill(Shelf(f"s3://{BUCKET}/{tmp_path.name}", files), small_dataset)


@pytest.fixture
def memory(small_dataset: str, tmp_path: pathlib.Path) -> Iterator[Shelf]:
  files = fsspec.filesystem("memory")
  yield fill(Shelf(f"memory://{tmp_path.name}", files), small_dataset)
  files.rm(f"memory://{tmp_path.name}", recursive=True)


@pytest.fixture(params=["memory", "s3"])
def shelf(request: pytest.FixtureRequest) -> Shelf:
  found: Shelf = request.getfixturevalue(request.param)
  return found


class OtherError(Exception):
  """What a file system may raise that knows nothing of ours, as botocore does."""


class FaultyFileSystem(AbstractFileSystem):
  """Local files behind an address, with answers that are cut short or fail."""

  protocol = "faulty"
  cachable = False
  cut: ClassVar[dict[int, int]] = {}  # how many bytes of the n-th answer come; others are whole
  failures: ClassVar[dict[int, Exception]] = {}  # what the n-th answer is instead
  broken: ClassVar[Exception | None] = None  # what every call raises
  asked: ClassVar[list[tuple[int, int]]] = []  # ranges, in order

  @classmethod
  def _strip_protocol(cls, path: str) -> str:
    return "/" + path.split("://", 1)[-1].lstrip("/")

  def _check(self) -> None:
    if self.broken is not None:
      raise self.broken

  def info(self, path: str, **_: Any) -> dict[str, Any]:
    self._check()
    path = self._strip_protocol(path)
    return {"name": path, "size": os.path.getsize(path), "type": "file"}

  def exists(self, path: str, **_: Any) -> bool:
    self._check()
    return os.path.exists(self._strip_protocol(path))

  def ls(self, path: str, detail: bool = True, **_: Any) -> Any:
    self._check()
    return [f"{path}/{name}" for name in os.listdir(self._strip_protocol(path))]

  def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
    self._check()
    return open(self._strip_protocol(path), mode)

  def pipe_file(self, path: str, value: bytes, *_: Any, **__: Any) -> None:
    self._check()
    pathlib.Path(self._strip_protocol(path)).write_bytes(value)

  def cat_file(
    self, path: str, start: int | None = None, end: int | None = None, **_: Any
  ) -> bytes:
    self._check()
    content = pathlib.Path(self._strip_protocol(path)).read_bytes()
    if start is None or end is None or path.endswith(".index"):
      return content[start:end]
    turn = len(self.asked)
    self.asked.append((start, end))
    if turn in self.failures:
      raise self.failures[turn]
    return content[start:end][: self.cut.get(turn)]


@pytest.fixture
def faulty(small_dataset: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
  """The address of the small data set behind a file system without a fault so far."""
  fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
  faultless: dict[str, Any] = {"cut": {}, "failures": {}, "broken": None, "asked": []}
  for name, value in faultless.items():
    monkeypatch.setattr(FaultyFileSystem, name, value)
  storage.filesystem.cache_clear()
  yield f"faulty:/{small_dataset}"
  storage.filesystem.cache_clear()


# --- what is read ---------------------------------------------------------------------------------


def assert_same_pair(found: Pair, expected: Pair) -> None:
  np.testing.assert_equal(dataclasses.asdict(found), dataclasses.asdict(expected))


def assert_same_batch(found: dict[str, Any], expected: dict[str, Any]) -> None:
  assert found.keys() == expected.keys()
  for part in ("values", "present"):
    assert list(found[part]) == list(expected[part])
    for key in expected[part]:
      assert found[part][key].dtype == expected[part][key].dtype
      np.testing.assert_array_equal(found[part][key], expected[part][key])
  for part in ("valid", "dataset", "record"):
    np.testing.assert_array_equal(found[part], expected[part])


def test_descriptions_pairs_and_records_equal_the_local_ones(
  shelf: Shelf, small_dataset: str
) -> None:
  # By their text: a nodata value of NaN equals nothing, not even itself.
  assert repr(describe(shelf.address)) == repr(describe(small_dataset))
  with PairDataset(shelf.address, None) as far, PairDataset(small_dataset, None) as near:
    assert len(far) == len(near) == 18
    numbers = [17, 0, 5, 5, 11, 12, 3]
    records = far.records.read(numbers)
    for record, expected in zip(records, near.records.read(numbers), strict=True):
      assert record.dtype == np.uint8
      np.testing.assert_array_equal(record, expected)
    for number in range(18):
      assert_same_pair(far[number], near[number])
    with pytest.raises(IndexError):
      far[18]


@pytest.mark.parametrize("bands", [None, {"s2": ["B8A", "B02"]}])
def test_batches_equal_the_local_ones(
  shelf: Shelf, small_dataset: str, bands: dict[str, list[str]] | None
) -> None:
  with PairDataset(shelf.address) as far, PairDataset(small_dataset) as near:
    assert not far.records.scatters
    sources = [
      BatchSource([one], Order([12], seed=4), 5, range(5), bands=bands, pairs=12)
      for one in (far, near)
    ]
    assert len(sources[0]) == 3
    for step in range(3):
      assert_same_batch(sources[0][step], sources[1][step])


def test_threads_read_from_object_storage_at_once(shelf: Shelf, small_dataset: str) -> None:
  with PairDataset(small_dataset) as near:
    expected = [near.records[number].tobytes() for number in range(12)]
  with PairDataset(shelf.address) as far, concurrent.futures.ThreadPoolExecutor(4) as pool:
    numbers = list(range(12)) * 3
    found = pool.map(lambda number: far.records[number].tobytes(), numbers)
    assert list(found) == [expected[number] for number in numbers]


def test_a_listing_names_what_is_there(shelf: Shelf, small_dataset: str) -> None:
  assert storage.listing(shelf.address) == sorted(os.listdir(small_dataset)) == shelf.names()


def test_a_missing_index_is_built_and_kept_in_object_storage(shelf: Shelf) -> None:
  written = shelf.get(SHARD + shard_index.SUFFIX)
  shelf.remove(SHARD + shard_index.SUFFIX)
  with PairDataset(shelf.address) as pairs:
    assert len(pairs[5].observations) > 0
  assert shelf.get(SHARD + shard_index.SUFFIX) == written


def test_a_file_in_object_storage_reads_like_a_local_one(shelf: Shelf) -> None:
  shelf.put("digits", b"0123456789")
  shelf.put("empty", b"")
  path, empty = f"{shelf.address}/digits", f"{shelf.address}/empty"
  assert storage.size(path) == 10 and storage.size(empty) == 0
  assert storage.read_file(path) == b"0123456789" and storage.read_file(empty) == b""
  assert storage.read_range(path, 2, 5) == b"234"
  assert storage.read_range(path, 8, 50) == b"89"
  assert storage.read_range(path, 10, 50) == storage.read_range(path, 30, 50) == b""
  assert storage.read_range(empty, 0, 32) == b""
  assert storage.read_ranges([(path, 0, 1), (path, 9, 10)]) == [b"0", b"9"]
  with storage.open_file(path) as file:
    assert file.read() == b"0123456789"
  storage.write_file(path, b"other")
  assert shelf.get("digits") == b"other"
  assert storage.exists(path) and not storage.exists(path + "-not")


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("byte", [3, 9, 200, -1])
def test_a_flipped_byte_is_caught_and_its_object_named(shelf: Shelf, byte: int) -> None:
  content = bytearray(shelf.get(SHARD))
  content[byte] ^= 16
  shelf.put(SHARD, content)
  record = 0 if byte >= 0 else 3
  with PairDataset(shelf.address) as pairs:
    with pytest.raises(
      CorruptRecordError, match=f"^{shelf.address}/{SHARD}: record {record}: its bytes do not match"
    ):
      pairs.records.read([0, 4 + record, 11])
    source = BatchSource([pairs], Order([12], shuffle=False), 4, range(4))
    source[0]
    with pytest.raises(CorruptRecordError, match=f"^{shelf.address}/{SHARD}: record {record}: "):
      source[1]


def test_a_damaged_or_stale_index_is_caught_and_named(shelf: Shelf) -> None:
  index = SHARD + shard_index.SUFFIX
  content = bytearray(shelf.get(index))
  content[40] ^= 1
  shelf.put(index, content)
  with (
    PairDataset(shelf.address) as pairs,
    pytest.raises(ShardIndexError, match=f"^{shelf.address}/{index}: the index is damaged"),
  ):
    pairs[4]
  for damage in (b"", content[:20], b"another file in its place, with more than 32 bytes"):
    shelf.put(index, damage)
    with pytest.raises(ShardIndexError, match=f"^{shelf.address}/{index}: the index is damaged"):
      PairDataset(shelf.address)
  content[40] ^= 1
  shelf.put(index, content)
  shelf.put(SHARD, shelf.get(SHARD)[:-1])
  with pytest.raises(ShardIndexError, match=f"^{shelf.address}/{SHARD}: .* made for"):
    PairDataset(shelf.address)


def test_an_object_that_vanishes_while_it_is_read_is_named(shelf: Shelf) -> None:
  with PairDataset(shelf.address) as pairs:
    _ = pairs[4]
    shelf.remove(SHARD)
    with pytest.raises(CorruptRecordError, match=f"^{shelf.address}/{SHARD}: bytes .* 0 of "):
      pairs[4]


# --- what is not there ----------------------------------------------------------------------------


def test_a_missing_object_is_named(shelf: Shelf) -> None:
  shelf.remove(SHARD)
  for _ in range(2):  # with its index, then without
    with pytest.raises(CorruptRecordError, match=f"^{shelf.address}/{SHARD}: the shard is missing"):
      PairDataset(shelf.address)
    if SHARD + shard_index.SUFFIX in shelf.names():
      shelf.remove(SHARD + shard_index.SUFFIX)
  shelf.remove(INFO_FILE)
  with pytest.raises(DatasetError, match=f"^{shelf.address}/{INFO_FILE} is missing"):
    PairDataset(shelf.address)


def test_a_missing_bucket_is_named(s3_server: str) -> None:
  address = "s3://no-bucket-of-this-name/pairs"
  with pytest.raises(DatasetError, match=f"^{address}/{INFO_FILE} is missing"):
    PairDataset(address)
  with pytest.raises(CorruptRecordError, match=f"^{address}/shard: the shard is missing"):
    RecordSource([f"{address}/shard"])
  with pytest.raises(OSError):
    storage.write_file(f"{address}/file", b"content")


def every_way_to_read(path: str) -> list[Any]:
  return [
    lambda: storage.size(path),
    lambda: storage.exists(path),
    lambda: storage.listing(path),
    lambda: storage.open_file(path),
    lambda: storage.read_file(path),
    lambda: storage.read_range(path, 0, 4),
    lambda: shard_index.ensure(path),
    lambda: RecordSource([path]),
  ]


@pytest.mark.parametrize("trouble", ["no credentials", "no server"])
def test_what_keeps_s3_from_answering_names_the_address(
  s3: Shelf, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
  import s3fs

  with PairDataset(s3.address) as pairs:
    _ = pairs[5]
    if trouble == "no credentials":
      monkeypatch.delenv("AWS_ACCESS_KEY_ID")
      monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
      why = "NoCredentialsError"
    else:
      monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # the port that discards
      why = "EndpointConnectionError"
    s3fs.S3FileSystem.clear_instance_cache()
    storage.filesystem.cache_clear()
    try:
      path = f"{s3.address}/{SHARD}"
      for read in every_way_to_read(path):
        with pytest.raises(DatasetError, match=rf"^{path}(\.index)?: cannot be read \({why}: "):
          read()
      with pytest.raises(CorruptRecordError, match=f"^{path}: bytes .* 0 of "):
        pairs.records.read([5])
      with pytest.raises(WriteError, match=f"^{path}: cannot be written .{why}"):
        storage.write_file(path, b"content")
      with pytest.raises(DatasetError, match=f"^{s3.address}/{INFO_FILE}: .*{why}"):
        PairDataset(s3.address)
    finally:
      s3fs.S3FileSystem.clear_instance_cache()
      storage.filesystem.cache_clear()


def test_an_unknown_protocol_names_the_extra_to_install() -> None:
  for read in every_way_to_read("nosuch://bucket/shard"):
    with pytest.raises(DatasetError, match=r"^nosuch://.* cannot be read: .*xjepa_jax\[s3\]"):
      read()
  with pytest.raises(DatasetError, match="nosuch://"):
    PairDataset("nosuch://bucket/pairs")


def test_a_protocol_whose_package_is_missing_names_the_extra_to_install(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  monkeypatch.setitem(sys.modules, "gcsfs", None)  # as if it were not installed
  with pytest.raises(DatasetError, match=r"gs:// cannot be read: .*gcsfs.*xjepa_jax\[gcs\]"):
    storage.size("gs://bucket/shard")


# --- answers that are not whole -------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [{0: 0}, {0: 7}, {0: 100, 1: -1}])
def test_a_range_that_came_back_short_is_asked_for_again(
  faulty: str, small_dataset: str, cuts: dict[int, int]
) -> None:
  FaultyFileSystem.cut.update(cuts)
  with PairDataset(faulty) as far, PairDataset(small_dataset) as near:
    assert_same_pair(far[2], near[2])
  asked = FaultyFileSystem.asked
  assert len(asked) == len(cuts) + 1 and len(set(asked)) == 1


def test_of_several_ranges_only_those_that_came_back_short_are_asked_for_again(
  faulty: str, small_dataset: str
) -> None:
  FaultyFileSystem.cut.update({1: 5, 3: 0})
  FaultyFileSystem.failures[2] = OtherError("a moment, please")
  with PairDataset(faulty) as far, PairDataset(small_dataset) as near:
    found = far.records.read([0, 1, 2, 9])
    for record, number in zip(found, [0, 1, 2, 9], strict=True):
      np.testing.assert_array_equal(record, near.records[number])
  asked = FaultyFileSystem.asked
  assert asked[4:] == asked[1:4]


@pytest.mark.parametrize("verify", [True, False])
def test_a_range_that_stays_short_is_refused_after_three_times(faulty: str, verify: bool) -> None:
  FaultyFileSystem.cut.update(dict.fromkeys(range(100), -1))
  with (
    PairDataset(faulty, verify=verify) as pairs,
    pytest.raises(CorruptRecordError, match="asked for 3 times, and .* bytes came") as caught,
  ):
    pairs[5]
  assert str(caught.value).startswith(f"{faulty}/{SHARD}: bytes ")
  assert len(FaultyFileSystem.asked) == 3


def test_a_store_that_takes_no_notice_of_ranges_is_refused(
  faulty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  def whole(self: FaultyFileSystem, path: str, *_: Any, **__: Any) -> bytes:
    return pathlib.Path(self._strip_protocol(path)).read_bytes()

  with PairDataset(faulty) as pairs:
    monkeypatch.setattr(FaultyFileSystem, "cat_file", whole)
    with pytest.raises((CorruptRecordError, ShardIndexError), match=f"^{faulty}/{SHARD}"):
      pairs[5]


@pytest.mark.parametrize(
  "error", [OtherError("of its own kind"), PermissionError(13, "not for you"), TimeoutError("late")]
)
def test_whatever_a_file_system_raises_becomes_an_error_that_names_the_address(
  faulty: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
  path = f"{faulty}/{SHARD}"
  with PairDataset(faulty) as pairs:
    _ = pairs[5]
    monkeypatch.setattr(FaultyFileSystem, "broken", error)
    for read in every_way_to_read(path):
      with pytest.raises(DatasetError) as caught:
        read()
      assert str(caught.value).startswith(f"{path}")
      assert type(error).__name__ in str(caught.value) and str(error) in str(caught.value)
    with pytest.raises(CorruptRecordError, match=f"^{path}: bytes") as refused:
      pairs[5]
    assert str(error) in str(refused.value)
    with pytest.raises(OSError):  # ours if it was none
      storage.write_file(path, b"content")


def test_an_index_that_a_store_does_not_take_says_what_to_do(
  tmp_path: pathlib.Path, faulty: str, small_dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  shard = tmp_path / SHARD
  shard.write_bytes(pathlib.Path(small_dataset, SHARD).read_bytes())

  def refuse(*_: Any, **__: Any) -> None:
    raise OtherError("read only")

  monkeypatch.setattr(FaultyFileSystem, "pipe_file", refuse)
  with pytest.raises(ShardIndexError, match="no index and none can be written .*read only"):
    shard_index.ensure(f"faulty:/{shard}")
