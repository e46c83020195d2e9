"""The sidecar file `<shard>.index`, which gives a TFRecord shard random access.

bytes 0-7    magic "XJEPAIDX"
bytes 8-11   uint32 version, 1
bytes 12-19  uint64 number of records, n
bytes 20-27  uint64 size of the shard in bytes
bytes 28-31  uint32 CRC32C of bytes 0-27
then         n uint64: offset of each record's data
             n uint32: its length
             n uint32: its masked CRC32C, as in the shard
last 4       uint32 CRC32C of everything between the header and here
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable

import google_crc32c
import numpy as np

from xjepa_jax.data import framing, storage
from xjepa_jax.errors import CorruptRecordError, ShardIndexError

SUFFIX = ".index"
_MAGIC = b"XJEPAIDX"
_VERSION = 1
_FIELDS = struct.Struct("<8sIQQ")  # the header without its CRC
_HEADER_SIZE = _FIELDS.size + 4
_ENTRY_SIZE = 16  # uint64 offset, uint32 length, uint32 CRC


@dataclasses.dataclass(frozen=True)
class ShardIndex:
  """The places of the n records of a shard.

  Attributes:
    shard_size: size of the shard in bytes.
    offsets: (n,) uint64, offset of each record's data.
    lengths: (n,) uint32, length of the data in bytes.
    crcs: (n,) uint32, masked CRC32C of the data.
  """

  shard_size: int
  offsets: np.ndarray
  lengths: np.ndarray
  crcs: np.ndarray

  def __len__(self) -> int:
    return len(self.offsets)

  def to_bytes(self) -> bytes:
    fields = _FIELDS.pack(_MAGIC, _VERSION, len(self), self.shard_size)
    body = self.offsets.tobytes() + self.lengths.tobytes() + self.crcs.tobytes()
    return fields + _crc(fields) + body + _crc(body)


def from_entries(entries: Iterable[tuple[int, int, int]], shard_size: int) -> ShardIndex:
  """The index of a shard with the given (offset, length, masked CRC) of its records."""
  table = np.array(list(entries), np.uint64).reshape(-1, 3)
  return ShardIndex(
    shard_size,
    table[:, 0].astype("<u8"),
    table[:, 1].astype("<u4"),
    table[:, 2].astype("<u4"),
  )


def build(shard: str) -> ShardIndex:
  """Read and check a whole shard, and return its index.

  Raises:
    CorruptRecordError: the shard is damaged; the message names the record.
  """
  with storage.reading(shard), storage.open_file(shard) as file:
    return from_entries(framing.scan(file, shard), storage.size(shard))


def read_header(shard: str) -> tuple[int, int]:
  """Number of records and size of the shard, from the first bytes of its index.

  Raises:
    ShardIndexError: the index is damaged, or was made for a shard of another size.
    FileNotFoundError: there is no index.
  """
  content = storage.read_range(shard + SUFFIX, 0, _HEADER_SIZE)
  return _check_header(shard, content)


def summary(shard: str) -> bytes:
  """Bytes that identify the records of a shard without reading them.

  They are the header, with the number of records and the shard's size, and the checksum over all
  offsets, lengths and checksums.

  Raises:
    ShardIndexError: the index is damaged, or was made for a shard of another size.
    FileNotFoundError: there is no index.
  """
  header = storage.read_range(shard + SUFFIX, 0, _HEADER_SIZE)
  count, _ = _check_header(shard, header)
  end = _HEADER_SIZE + count * _ENTRY_SIZE
  return header + storage.read_range(shard + SUFFIX, end, end + 4)


def read(shard: str) -> ShardIndex:
  """The whole index of a shard, with every byte checked.

  Raises:
    ShardIndexError: the index is damaged, or was made for a shard of another size.
    FileNotFoundError: there is no index.
  """
  content = storage.read_file(shard + SUFFIX)
  count, shard_size = _check_header(shard, content[:_HEADER_SIZE])
  body = content[_HEADER_SIZE:-4]
  if len(content) != _HEADER_SIZE + count * _ENTRY_SIZE + 4:
    raise _damaged(shard, f"{len(content)} bytes cannot hold {count} records")
  if _crc(body) != content[-4:]:
    raise _damaged(shard, "its entries do not match their checksum")
  return ShardIndex(
    shard_size,
    np.frombuffer(body, "<u8", count),
    np.frombuffer(body, "<u4", count, 8 * count),
    np.frombuffer(body, "<u4", count, 12 * count),
  )


def ensure(shard: str) -> tuple[int, int]:
  """Like `read_header`, but builds and writes the index first if there is none yet.

  Raises:
    ShardIndexError: the index is damaged or stale, or is missing and cannot be written.
    CorruptRecordError: there was no index and the shard is damaged.
    DatasetError: a file exists and cannot be read at all.
  """
  try:
    return read_header(shard)
  except FileNotFoundError:
    pass
  if not storage.exists(shard):
    raise CorruptRecordError(f"{shard}: the shard is missing. Copy it again from its source.")
  index = build(shard)
  try:
    storage.write_file(shard + SUFFIX, index.to_bytes())
  except OSError as error:
    raise ShardIndexError(
      f"{shard + SUFFIX}: the shard has no index and none can be written ({error}). Make the "
      "directory writable once, or copy the data set to one that is."
    ) from error
  return len(index), index.shard_size


def _check_header(shard: str, content: bytes) -> tuple[int, int]:
  if len(content) < _HEADER_SIZE:
    raise _damaged(shard, f"it ends after {len(content)} bytes")
  magic, version, count, shard_size = _FIELDS.unpack_from(content)
  if magic != _MAGIC:
    raise _damaged(shard, f"it starts with {magic!r}, expected {_MAGIC!r}")
  if _crc(content[: _FIELDS.size]) != content[_FIELDS.size :]:
    raise _damaged(shard, "its header does not match its checksum")
  # Checked after the CRC, so that a damaged header is not mistaken for another version.
  if version != _VERSION:
    raise ShardIndexError(
      f"{shard + SUFFIX}: version {version}, this program reads {_VERSION}. Delete the file to "
      "have it built again."
    )
  try:
    actual = storage.size(shard)
  except FileNotFoundError:
    raise CorruptRecordError(
      f"{shard}: the shard is missing, though its index is there. Copy it again from its source."
    ) from None
  if actual != shard_size:
    raise ShardIndexError(
      f"{shard}: {actual} bytes, but its index was made for {shard_size}. The shard is cut short "
      f"or has changed since. Copy the shard again, or delete {shard + SUFFIX} to have it built "
      "from the shard as it is."
    )
  return count, shard_size


def _crc(content: bytes) -> bytes:
  return struct.pack("<I", google_crc32c.value(content))


def _damaged(shard: str, what: str) -> ShardIndexError:
  return ShardIndexError(
    f"{shard + SUFFIX}: the index is damaged ({what}). Delete it to have it built again."
  )
