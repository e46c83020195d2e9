"""TFRecord's framing against vectors worked out by hand and another reader."""

from __future__ import annotations

import io
import pathlib
import struct

import grain
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xjepa_jax.data import framing
from xjepa_jax.errors import CorruptRecordError

FIXED = settings(max_examples=100, deadline=None, derandomize=True)


def crc32c(data: bytes) -> int:
  """CRC32C bit by bit, as RFC 3720 defines it: reflected, polynomial 0x1EDC6F41."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc ^= byte
    for _ in range(8):
      crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
  return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
  """TensorFlow's mask: rotated right by 15 bits, and a constant added."""
  crc = crc32c(data)
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def record(data: bytes) -> bytes:
  length = struct.pack("<Q", len(data))
  return b"".join(
    [length, struct.pack("<I", masked(length)), data, struct.pack("<I", masked(data))]
  )


def scanned(content: bytes) -> list[tuple[int, int, int]]:
  return list(framing.scan(io.BytesIO(content), "s"))


def test_the_reference_of_these_tests_meets_the_vectors_of_rfc_3720() -> None:
  assert crc32c(bytes(32)) == 0x8A9136AA
  assert crc32c(b"\xff" * 32) == 0x62A8AB43
  assert crc32c(bytes(range(32))) == 0x46DD794E
  assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize(
  ("data", "expected"),
  [
    # Of an empty record: crc32c of eight zero bytes is 0x8C28B28A, of nothing 0.
    (b"", "000000000000000029039807d8ea82a2"),
    # Of "123456789", which has 0xE3069283: rotated right by 15 that is 0x2507C60D, masked
    # 0xC78AB0E5. Its length, 9, has 0x872FCB77: rotated 0x96EF0E5F, masked 0x3971F937.
    (b"123456789", "090000000000000037f97139313233343536373839e5b08ac7"),
  ],
)
def test_a_frame_is_tensorflow_s_byte_for_byte(data: bytes, expected: str) -> None:
  assert record(data).hex() == expected
  assert framing.frame(data).hex() == expected
  assert framing.header_of(len(data)).hex() == expected[:24]


@FIXED
@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=4))
def test_frames_and_checksums_equal_the_bitwise_reference(data: bytes, cuts: list[int]) -> None:
  assert framing.frame(data) == record(data)
  bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
  pieces = [np.frombuffer(data, np.uint8)[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
  assert framing.masked_crc(*pieces) == masked(data)


def test_grain_reads_what_is_framed_here(tmp_path: pathlib.Path) -> None:
  records = [b"", b"x", bytes(range(256)) * 40]
  path = tmp_path / "shard"
  path.write_bytes(b"".join(framing.frame(data) for data in records))
  assert list(grain.experimental.TFRecordIterDataset(str(path))) == records


@FIXED
@given(records=st.lists(st.binary(max_size=60), max_size=5))
def test_a_scan_finds_every_record_where_it_lies(records: list[bytes]) -> None:
  content = b"".join(record(data) for data in records)
  found = scanned(content)
  assert [content[start : start + length] for start, length, _ in found] == records
  assert [crc for _, _, crc in found] == [masked(data) for data in records]


def test_a_scan_finds_a_truncation_at_every_byte() -> None:
  records = [b"first record", b"", bytes(range(200))]
  content = b"".join(record(data) for data in records)
  ends = [0, *np.cumsum([len(record(data)) for data in records]).tolist()]
  for length in range(len(content)):
    if length in ends:  # a shard that ends between records is a shard, which its index knows better
      assert len(scanned(content[:length])) == ends.index(length)
      continue
    number = sum(end <= length for end in ends) - 1
    complaint = f"^s: record {number} at byte {ends[number]}: the file ends within"
    with pytest.raises(CorruptRecordError, match=complaint):
      scanned(content[:length])


def test_a_scan_finds_every_flipped_bit() -> None:
  content = bytearray(record(b"first") + record(b"") + record(b"the third one"))
  for bit in range(8 * len(content)):
    content[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptRecordError, match=r"^s: record \d at byte \d+: "):
      scanned(bytes(content))
    content[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("length", [100 << 30, 2**62, 2**64 - 1])
def test_a_length_beyond_the_file_is_refused_without_asking_for_it(
  tmp_path: pathlib.Path, length: int
) -> None:
  header = struct.pack("<Q", length)
  path = tmp_path / "shard"
  path.write_bytes(record(b"fine") + header + struct.pack("<I", masked(header)) + b"data")
  with (
    open(path, "rb") as file,  # which takes the memory that it is asked for, as BytesIO does not
    pytest.raises(CorruptRecordError, match=f"s: record 1 at byte 20: .* its {length} bytes"),
  ):
    list(framing.scan(file, "s"))


def test_a_scan_yields_the_records_before_the_damage() -> None:
  found = []
  with pytest.raises(CorruptRecordError, match="record 2 at byte 35"):
    for place in framing.scan(io.BytesIO(record(b"ab") + record(b"c") + b"no record at all"), "s"):
      found.append(place[:2])
  assert found == [(12, 2), (30, 1)]


@pytest.mark.parametrize("cuts", [[], [12], [17], [13, 15], [12, 12, 20]])
def test_a_frame_read_in_pieces_is_checked_in_every_byte(cuts: list[int]) -> None:
  data = b"some data"
  content = np.frombuffer(record(data), np.uint8).copy()
  bounds = [0, *cuts, len(content)]
  pieces = [content[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
  assert framing.intact(pieces, len(data), masked(data))
  for bit in range(8 * len(content)):
    content[bit // 8] ^= 1 << bit % 8
    assert not framing.intact(pieces, len(data), masked(data))
    content[bit // 8] ^= 1 << bit % 8


def test_a_whole_record_of_another_place_is_refused() -> None:
  # Its own checksums are right; those of the index are not its.
  for other in (b"other", b"longer"):
    whole = np.frombuffer(record(other), np.uint8)
    assert not framing.intact([whole], 5, masked(b"these"))
