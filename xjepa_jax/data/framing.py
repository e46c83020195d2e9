"""TFRecord's framing of records, and its checksum.

A record is uint64 length | masked CRC32C(length) | data | masked CRC32C(data), little-endian
(tensorflow/core/lib/io/record_writer.h).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import google_crc32c

from xjepa_jax.errors import CorruptRecordError

HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")
OVERHEAD = HEADER.size + FOOTER.size
REPAIR = "Copy the shard again from its source, or import it again."
_MASK_DELTA = 0xA282EAD8


def masked_crc(*pieces: Any) -> int:
  """TFRecord's checksum of bytes or uint8 arrays, one after another."""
  crc = 0
  for piece in pieces:
    crc = google_crc32c.extend(crc, piece)
  return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def header_of(length: int) -> bytes:
  """The twelve bytes before a record's data."""
  content = struct.pack("<Q", length)
  return content + FOOTER.pack(masked_crc(content))


def frame(data: bytes) -> bytes:
  """A record as it stands in a file."""
  return header_of(len(data)) + data + FOOTER.pack(masked_crc(data))


def scan(file: BinaryIO, path: str) -> Iterator[tuple[int, int, int]]:
  """Walks a shard from its start and checks every byte.

  Args:
    file: the shard, opened for reading; seekable.
    path: its name, for messages.

  Yields:
    Of each record: where its data starts, its length, its masked CRC.

  Raises:
    CorruptRecordError: a checksum is wrong, or the file ends within a record.
  """
  size = file.seek(0, os.SEEK_END)
  file.seek(0)
  at = number = 0
  while header := file.read(HEADER.size):
    where = f"{path}: record {number} at byte {at}"
    if len(header) < HEADER.size:
      raise CorruptRecordError(f"{where}: the file ends within its header. {REPAIR}")
    length, length_crc = HEADER.unpack(header)
    if masked_crc(header[:8]) != length_crc:
      raise CorruptRecordError(f"{where}: no TFRecord, or its length is damaged. {REPAIR}")
    fits = length <= size - at - OVERHEAD  # else reading so much could take all memory
    data = file.read(length) if fits else b""
    footer = file.read(FOOTER.size)
    if len(data) < length or len(footer) < FOOTER.size:
      raise CorruptRecordError(f"{where}: the file ends within its {length} bytes. {REPAIR}")
    crc = masked_crc(data)
    if FOOTER.unpack(footer)[0] != crc:
      raise CorruptRecordError(f"{where}: its data does not match its checksum. {REPAIR}")
    yield at + HEADER.size, length, crc
    at += OVERHEAD + length
    number += 1


def check_frame(framed: Any, length: int, crc: int, where: str) -> None:
  """Checks every byte of one record as it stands in a file.

  Args:
    framed: (16 + length,) uint8 array, or bytes.
    length, crc: what the index says of it.
    where: file and record, for messages.

  Raises:
    CorruptRecordError: a byte differs from what was written.
  """
  check_pieces([framed], length, crc, where)


def check_pieces(pieces: Sequence[Any], length: int, crc: int, where: str) -> None:
  """As `check_frame`, of a record that was read into several arrays one after another.

  The first holds at least the header, the last at least the footer.
  """
  first, last = pieces[0], pieces[-1]
  if bytes(first[: HEADER.size]) != header_of(length):
    raise CorruptRecordError(f"{where}: its header is damaged. {REPAIR}")
  footer = bytes(last[len(last) - FOOTER.size :])
  if len(pieces) == 1:
    data = [first[HEADER.size : len(first) - FOOTER.size]]
  else:
    data = [first[HEADER.size :], *pieces[1:-1], last[: len(last) - FOOTER.size]]
  if masked_crc(*data) != crc or footer != FOOTER.pack(crc):
    raise CorruptRecordError(f"{where}: its data does not match its checksum. {REPAIR}")
