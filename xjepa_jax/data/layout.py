"""Where the values lie in a record: guessed from the previous record, confirmed by its bytes.

Records of one data set differ in the lengths of a few strings before the values, but hardly ever in
what follows, so offsets counted from the record's end are nearly always the same. A guess costs
nothing: after the read, the bytes before each stretch show whether it was right, and only if it was
not is the record parsed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xjepa_jax.data.example import ExampleView
from xjepa_jax.data.pairs import PairFormat, values_name

Stretch = tuple[str, int, int]


class Layout:
  """The stretches of a record that hold the values of some sensors.

  Args:
    form: format of the data set; its encoding is "bytes".
    keys: keys of the sensors wanted.
  """

  def __init__(self, form: PairFormat, keys: Sequence[str]):
    self._format = form
    self.keys = tuple(keys)
    self._announcements = {
      key: announcement(values_name(key), form.value_bytes(key)) for key in self.keys
    }
    self.guess: tuple[Stretch, ...] | None = None

  def find(self, record: np.ndarray) -> tuple[Stretch, ...]:
    """Parse a record, and use its layout as the guess for the next.

    Args:
      record: (n,) uint8.

    Returns:
      (key, start, stop) for each sensor that the pair has, in ascending order; the offsets are
      negative, counted from the record's end.

    Raises:
      ExampleError: the record is not an Example, or not in this data set's format.
    """
    view = ExampleView(record)
    spans = {key: self._format.span(view, key) for key in self.keys}
    stretches = sorted(
      ((key, span[0] - len(record), span[1] - len(record)) for key, span in spans.items() if span),
      key=lambda stretch: stretch[1],
    )
    # A pair that lacks a sensor is an exception and would make a bad guess.
    if len(stretches) == len(self.keys):
      self.guess = tuple(stretches)
    return tuple(stretches)

  def confirmed(self, guess: Sequence[Stretch], gaps: Sequence[np.ndarray]) -> bool:
    """Whether the bytes before each stretch of a guess are its expected prefix.

    Args:
      guess: stretches that were read.
      gaps: (n,) uint8 each, the bytes between consecutive stretches, as returned by
        `RecordSource.read_into`.
    """
    for (key, _, _), gap in zip(guess, gaps, strict=False):
      expected = self._announcements[key]
      if gap[len(gap) - len(expected) :].tobytes() != expected:
        return False
    return True


def announcement(name: str, size: int) -> bytes:
  """The bytes that precede a feature's single byte string in its protobuf map entry."""
  # Tag 0x0a is field 1 and tag 0x12 field 2, both length-delimited. The lengths are nested: that of
  # the entry includes all that follows it, up to the string itself.
  string = b"\x0a" + _varint(size)
  feature = b"\x0a" + _varint(len(string) + size)
  encoded = name.encode()
  key = b"\x0a" + _varint(len(encoded)) + encoded
  value = b"\x12" + _varint(len(feature) + len(string) + size)
  entry = b"\x0a" + _varint(len(key) + len(value) + len(feature) + len(string) + size)
  return entry + key + value + feature + string


def _varint(value: int) -> bytes:
  # Seven bits per byte, least significant first; the high bit is set on all bytes but the last.
  groups = bytearray()
  while value > 127:
    groups.append(value & 127 | 128)
    value >>= 7
  return bytes([*groups, value])
