"""The index beside a shard: no damaged or stale one is ever believed."""

from __future__ import annotations

import os
import pathlib
import shutil
import struct
from collections.abc import Callable, Sequence

import google_crc32c
import pytest

from xjepa_jax.data import framing, shard_index
from xjepa_jax.data.shard_index import SUFFIX
from xjepa_jax.errors import CorruptRecordError, DatasetError, ShardIndexError

RECORDS = [b"first", b"", bytes(range(100))]


@pytest.fixture
def shard(tmp_path: pathlib.Path, write_shard: Callable[[str, Sequence[bytes]], None]) -> str:
  path = str(tmp_path / "small-train.tfrecord-00000-of-00001")
  write_shard(path, RECORDS)
  return path


def content_of(path: str) -> bytes:
  return pathlib.Path(path).read_bytes()


def put(path: str, content: bytes | bytearray) -> None:
  pathlib.Path(path).write_bytes(content)


def crc(content: bytes) -> bytes:
  return struct.pack("<I", google_crc32c.value(content))


def layout_of(records: Sequence[bytes], version: int = 1, magic: bytes = b"XJEPAIDX") -> bytes:
  """An index, put together from the description of the format."""
  starts, at = [], 0
  for record in records:
    starts.append(at + 12)
    at += len(record) + 16
  masked = [struct.unpack("<I", framing.frame(record)[-4:])[0] for record in records]
  header = magic + struct.pack("<IQQ", version, len(records), at)
  count = len(records)
  body = struct.pack(f"<{count}Q", *starts)
  body += struct.pack(f"<{count}I", *map(len, records)) + struct.pack(f"<{count}I", *masked)
  return header + crc(header) + body + crc(body)


@pytest.mark.parametrize("records", [RECORDS, [], [b""]])
def test_an_index_has_the_bytes_that_its_format_describes(
  tmp_path: pathlib.Path,
  write_shard: Callable[[str, Sequence[bytes]], None],
  records: list[bytes],
) -> None:
  path = str(tmp_path / "shard")
  write_shard(path, records)
  assert content_of(path + SUFFIX) == layout_of(records)
  index = shard_index.read(path)
  assert len(index) == len(records) and index.shard_size == os.path.getsize(path)
  assert index.lengths.tolist() == [len(record) for record in records]
  assert index.to_bytes() == layout_of(records)


def test_every_flipped_bit_of_an_index_is_refused_and_named(shard: str) -> None:
  content = bytearray(content_of(shard + SUFFIX))
  for bit in range(8 * len(content)):
    content[bit // 8] ^= 1 << bit % 8
    put(shard + SUFFIX, content)
    with pytest.raises(ShardIndexError) as caught:
      shard_index.read(shard)
    assert shard + SUFFIX in str(caught.value)
    if bit < 8 * 32:
      with pytest.raises(ShardIndexError):
        shard_index.ensure(shard)
    content[bit // 8] ^= 1 << bit % 8


def test_every_truncation_and_any_addition_is_refused(shard: str) -> None:
  content = content_of(shard + SUFFIX)
  for length in range(len(content)):
    put(shard + SUFFIX, content[:length])
    with pytest.raises(ShardIndexError, match="the index is damaged"):
      shard_index.read(shard)
    if length < 32:
      with pytest.raises(ShardIndexError, match=f"ends after {length} bytes"):
        shard_index.ensure(shard)
  for more in (b"\0", b"\0" * 16, content):
    put(shard + SUFFIX, content + more)
    with pytest.raises(ShardIndexError, match="cannot hold 3 records"):
      shard_index.read(shard)


def test_another_file_in_its_place_is_refused(shard: str) -> None:
  put(shard + SUFFIX, layout_of(RECORDS, magic=b"XJEPAXXX"))
  with pytest.raises(ShardIndexError, match="starts with b'XJEPAXXX', expected b'XJEPAIDX'"):
    shard_index.ensure(shard)
  put(shard + SUFFIX, content_of(shard))
  with pytest.raises(ShardIndexError, match="expected b'XJEPAIDX'"):
    shard_index.ensure(shard)


def test_another_version_is_refused_by_its_number(shard: str) -> None:
  put(shard + SUFFIX, layout_of(RECORDS, version=2))
  with pytest.raises(ShardIndexError, match="version 2, this program reads 1"):
    shard_index.ensure(shard)


def test_an_index_of_more_records_than_it_can_hold_is_refused(shard: str) -> None:
  header = b"XJEPAIDX" + struct.pack("<IQQ", 1, 2**60, os.path.getsize(shard))
  put(shard + SUFFIX, header + crc(header) + crc(b""))
  with pytest.raises(ShardIndexError, match=f"cannot hold {2**60} records"):
    shard_index.read(shard)


@pytest.mark.parametrize("change", ["grew", "shrank", "is empty"])
def test_an_index_of_another_state_of_the_shard_is_refused(shard: str, change: str) -> None:
  size = os.path.getsize(shard)
  whole = content_of(shard)
  put(shard, {"grew": whole + framing.frame(b"more"), "shrank": whole[:-116]}.get(change, b""))
  for read in (shard_index.ensure, shard_index.read, shard_index.read_header):
    with pytest.raises(ShardIndexError, match=f"bytes, but its index was made for {size}"):
      read(shard)
  os.unlink(shard + SUFFIX)
  assert shard_index.ensure(shard)[0] == {"grew": 4, "shrank": 2}.get(change, 0)


def test_a_missing_index_is_built_once_and_equals_the_writer_s(
  small_dataset: str, tmp_path: pathlib.Path
) -> None:
  copy = shutil.copytree(small_dataset, tmp_path / "copy")
  indexes = sorted(copy.glob("*.index"))
  assert len(indexes) == 5
  for index in indexes:
    written = index.read_bytes()
    index.unlink()
    count, size = shard_index.ensure(str(index).removesuffix(SUFFIX))
    assert index.read_bytes() == written
    assert (count, size) == struct.unpack_from("<QQ", written, 12)
    before = index.stat()
    shard_index.ensure(str(index).removesuffix(SUFFIX))
    after = index.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_no_index_is_made_of_a_damaged_shard(shard: str) -> None:
  os.unlink(shard + SUFFIX)
  put(shard, content_of(shard)[:-1])
  with pytest.raises(CorruptRecordError, match=f"^{shard}: record 2 at byte 37: "):
    shard_index.ensure(shard)
  assert not os.path.exists(shard + SUFFIX)


def test_a_missing_shard_is_named_with_and_without_its_index(shard: str) -> None:
  os.unlink(shard)
  with pytest.raises(CorruptRecordError, match=f"^{shard}: the shard is missing, though"):
    shard_index.ensure(shard)
  os.unlink(shard + SUFFIX)
  with pytest.raises(CorruptRecordError, match=f"^{shard}: the shard is missing"):
    shard_index.ensure(shard)
  assert os.listdir(os.path.dirname(shard)) == []


def test_an_index_that_cannot_be_written_says_what_to_do(
  tmp_path: pathlib.Path, write_shard: Callable[[str, Sequence[bytes]], None]
) -> None:
  # Rights do not stop an administrator, but the length of a name does: a temporary name for the
  # index of this shard is longer than the 255 bytes that file systems allow.
  path = str(tmp_path / ("s" * 240))
  write_shard(path, RECORDS)
  os.unlink(path + SUFFIX)
  with pytest.raises(ShardIndexError, match="has no index and none can be written") as caught:
    shard_index.ensure(path)
  assert path + SUFFIX in str(caught.value)
  assert os.listdir(tmp_path) == ["s" * 240]


def test_what_cannot_be_read_in_place_of_an_index_or_a_shard_is_named(shard: str) -> None:
  os.unlink(shard + SUFFIX)
  os.mkdir(shard + SUFFIX)
  for read in (shard_index.ensure, shard_index.read):
    with pytest.raises(DatasetError, match=f"^{shard + SUFFIX}: cannot be read .*IsADirectory"):
      read(shard)
  os.rmdir(shard + SUFFIX)
  os.symlink(shard + SUFFIX, shard + SUFFIX)
  with pytest.raises(DatasetError, match=f"^{shard + SUFFIX}: cannot be read"):
    shard_index.ensure(shard)
  os.unlink(shard + SUFFIX)
  os.unlink(shard)
  os.mkdir(shard)
  with pytest.raises(DatasetError, match=f"^{shard}: cannot be read .*IsADirectory"):
    shard_index.ensure(shard)


def test_a_path_through_a_file_is_named(shard: str) -> None:
  with pytest.raises(DatasetError, match=f"^{shard}/inside.index: cannot be read .*NotADirectory"):
    shard_index.ensure(f"{shard}/inside")
