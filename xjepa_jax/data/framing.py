"""The framing and the checksums of TFRecord files.

A record is uint64 length | masked CRC32C(length) | data | masked CRC32C(data), little-endian
(tensorflow/core/lib/io/record_writer.h). It is implemented here so that neither reading nor
writing a data set needs TensorFlow; every byte of a record is covered by one of the checksums.
"""

from __future__ import annotations

import functools
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
_MASK_DELTA = 0xA282EAD8  # TFRecord's masked CRC is the CRC rotated right by 15 bits, plus this


def masked_crc(*pieces: Any) -> int:
  """The masked CRC32C of bytes or uint8 arrays, taken one after another as one stream."""
  crc = 0
  for piece in pieces:
    crc = google_crc32c.extend(crc, piece)
  return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


@functools.lru_cache(4096)  # records of a data set have few different lengths
def header_of(length: int) -> bytes:
  """The twelve bytes that precede the data of a record of this length."""
  content = struct.pack("<Q", length)
  return content + FOOTER.pack(masked_crc(content))


def frame(data: bytes) -> bytes:
  """A whole record, framing included, as it is stored in a file."""
  return header_of(len(data)) + data + FOOTER.pack(masked_crc(data))


def scan(file: BinaryIO, path: str) -> Iterator[tuple[int, int, int]]:
  """Walk a shard from its start and check every byte.

  Args:
    file: the shard, opened for reading; seekable.
    path: its name, for messages.

  Yields:
    (offset of the data, length of the data, masked CRC of the data) for each record.

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
    # A forged or damaged length could otherwise make `read` allocate all memory.
    fits = length <= size - at - OVERHEAD
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


def intact(pieces: Sequence[Any], length: int, crc: int) -> bool:
  """Whether every byte of one record is as it was written.

  Args:
    pieces: the record as it is stored in a file, split over one or more consecutive uint8 arrays;
      the first holds at least the header, the last at least the footer.
    length: length of the data in bytes, from the index.
    crc: masked CRC of the data, from the index.
  """
  first, last = pieces[0], pieces[-1]
  if first[: HEADER.size].tobytes() != header_of(length):
    return False
  if last[len(last) - FOOTER.size :].tobytes() != FOOTER.pack(crc):
    return False
  if len(pieces) == 1:
    return masked_crc(first[HEADER.size : len(first) - FOOTER.size]) == crc
  return masked_crc(first[HEADER.size :], *pieces[1:-1], last[: len(last) - FOOTER.size]) == crc


def damaged(where: str) -> CorruptRecordError:
  """The error to raise for a record that is not intact; `where` names its file and number."""
  return CorruptRecordError(f"{where}: its bytes do not match their checksums. {REPAIR}")
