"""A view of a serialised `tf.train.Example` without any copy.

Parsing an Example of half a megabyte with protobuf copies its bytes twice, under Python's global
lock, whereas a training run only needs the position of the values. Wire format:
protobuf.dev/programming-guides/encoding; messages: tensorflow/core/example/{example,feature}.proto.

  Example { Features features = 1 }            Features { map<string, Feature> feature = 1 }
  Feature { BytesList = 1 | FloatList = 2 | Int64List = 3 }, each { repeated value = 1 }
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from xjepa_jax.errors import ExampleError

_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_ENTRY, _KEY, _VALUE = 0x0A, 0x0A, 0x12  # tags of fields 1, 1 and 2, length-delimited


class ExampleView:
  """The positions of an Example's features in a buffer, which it keeps alive.

  Args:
    record: bytes, or a contiguous (n,) uint8 array.

  Raises:
    ExampleError: the buffer does not hold an Example.
  """

  def __init__(self, record: Any):
    self._buffer = memoryview(record)
    self._spans: dict[bytes, tuple[int, int]] = {}
    for number, start, end in _fields(self._buffer, 0, len(self._buffer)):
      if number == 1:
        self._add_features(start, end)

  def names(self) -> list[str]:
    """Names of the features, in the order of the record."""
    return [name.decode("utf-8", "replace") for name in self._spans]

  def span(self, name: str) -> tuple[int, int]:
    """Start and stop, in the record, of the value of a feature with a single byte string.

    Raises:
      ExampleError: the feature is missing, or holds something else.
    """
    spans = self._spans_of(name, 1)
    if len(spans) != 1:
      raise ExampleError(f"feature {name!r} holds {len(spans)} byte strings, expected 1.")
    return spans[0]

  def bytes(self, name: str) -> memoryview:
    """The value of a feature with a single byte string, not copied. Raises like `span`."""
    start, stop = self.span(name)
    return self._buffer[start:stop]

  def text(self, name: str) -> str:
    """The value of a feature with a single UTF-8 string."""
    return _decode_text(self.bytes(name), name)

  def texts(self, name: str) -> tuple[str, ...]:
    """The values of a feature with any number of UTF-8 strings."""
    spans = self._spans_of(name, 1)
    return tuple(_decode_text(self._buffer[start:stop], name) for start, stop in spans)

  def number(self, name: str) -> float:
    """The value of a feature with a single float32."""
    # A FloatList may be packed into one length-delimited field, or have one 32-bit field per value.
    spans = [(a, b) for a, b in self._spans_of(name, 2, (_LEN, _I32)) if a < b]
    sizes = [b - a for a, b in spans]
    if sizes != [4]:
      raise ExampleError(f"feature {name!r} holds floats of {sizes} bytes, expected one of 4.")
    return float(np.frombuffer(self._buffer[slice(*spans[0])], "<f4")[0])

  def _spans_of(
    self, name: str, kind: int, wires: tuple[int, ...] = (_LEN,)
  ) -> list[tuple[int, int]]:
    """Span of every value in the named feature's list, which must be of the given kind."""
    place = self._spans.get(name.encode())
    if place is None:
      raise ExampleError(f"feature {name!r} is missing; the record has {self.names()}.")
    spans: list[tuple[int, int]] = []
    # Kinds are the field numbers of a Feature: 1 BytesList, 2 FloatList, 3 Int64List.
    for number, start, end in _fields(self._buffer, *place, 3):
      if number == kind:
        spans += [(a, b) for n, a, b in _fields(self._buffer, start, end, 1, wires) if n == 1]
      elif number <= 3:
        raise ExampleError(f"feature {name!r} is of another kind than expected ({number}).")
    return spans

  def _add_features(self, start: int, end: int) -> None:
    buffer = self._buffer
    at = start
    while at < end:
      # Fast path for a map entry as every protobuf library writes it, because a training run spends
      # its parsing time in this loop. Anything else is left to `_add_any`.
      tag, length, stop = buffer[at], 0, at + 1
      if tag == _ENTRY:
        length, stop = _varint(buffer, at + 1, end)
      entry, entry_end = stop, stop + length
      if tag == _ENTRY and entry_end <= end and length > 4 and buffer[entry] == _KEY:
        name_end = entry + 2 + buffer[entry + 1]
        if buffer[entry + 1] < 128 and name_end < entry_end and buffer[name_end] == _VALUE:
          size, value = _varint(buffer, name_end + 1, entry_end)
          if value + size == entry_end:
            self._spans[bytes(buffer[entry + 2 : name_end])] = (value, entry_end)
            at = entry_end
            continue
      at = self._add_any(at, end)

  def _add_any(self, at: int, end: int) -> int:
    """Add the field at `at` if it is an entry of the map, and return where it ends."""
    number, entry, entry_end = next(_fields(self._buffer, at, end))
    if number == 1:
      name, value = b"", (entry, entry)
      for field, a, b in _fields(self._buffer, entry, entry_end, 2):
        if field == 1:
          name = bytes(self._buffer[a:b])
        elif field == 2:
          value = (a, b)
      self._spans[name] = value
    return entry_end


def _fields(
  buffer: memoryview, start: int, end: int, known: int = 1, wires: tuple[int, ...] = (_LEN,)
) -> Iterator[tuple[int, int, int]]:
  """Field number and span of the content of each field of the message at [start, end).

  Fields up to number `known` must have one of the wire types `wires`; others are unknown fields, of
  any type.
  """
  at = start
  while at < end:
    tag = buffer[at]
    at += 1
    if tag >= 128:
      tag, at = _varint(buffer, at - 1, end)
    wire = tag & 7
    if wire == _LEN:
      length, at = _varint(buffer, at, end)
      stop = at + length
    elif wire == _VARINT:
      stop = _varint(buffer, at, end)[1]
    elif wire in (_I64, _I32):
      stop = at + (8 if wire == _I64 else 4)
    else:
      raise ExampleError(f"no Example: wire type {wire} at byte {at} is not used by protobuf 3.")
    if stop > end:
      raise ExampleError(f"no Example: a field at byte {at} runs {stop - end} bytes past its end.")
    if tag >> 3 == 0 or (tag >> 3 <= known and wire not in wires):
      raise ExampleError(f"no Example: unexpected field {tag >> 3} of wire type {wire} at {at}.")
    yield tag >> 3, at, stop
    at = stop


def _varint(buffer: memoryview, at: int, end: int) -> tuple[int, int]:
  value = shift = 0
  while at < end and shift < 64:
    byte = buffer[at]
    at += 1
    value |= (byte & 127) << shift
    if byte < 128:
      return value, at
    shift += 7
  raise ExampleError(f"no Example: a number at byte {at} does not end.")


def _decode_text(value: memoryview, name: str) -> str:
  try:
    return bytes(value).decode()
  except UnicodeDecodeError as error:
    raise ExampleError(f"feature {name!r} is not UTF-8 ({error}).") from error
