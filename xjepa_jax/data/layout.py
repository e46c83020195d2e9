"""Where in a record the values lie, guessed from the record before and confirmed by its bytes.

Records of one data set differ in the lengths of a few strings before the values, hardly ever in
what follows, so places counted from a record's end are nearly always the same. A guess costs
nothing to try: whether the bytes in front of each stretch are the ones that announce it is seen
after the record was read, and only then is a record walked through.
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
    form: of the data set; its encoding is "bytes".
    keys: of the sensors wanted.
  """

  def __init__(self, form: PairFormat, keys: Sequence[str]):
    self._format = form
    self.keys = tuple(keys)
    self._announcements = {
      key: announcement(values_name(key), form.value_bytes(key)) for key in self.keys
    }
    self.guess: tuple[Stretch, ...] | None = None

  def find(self, record: np.ndarray) -> tuple[Stretch, ...]:
    """Walks through a record, and guesses the same of the next.

    Args:
      record: (n,) uint8.

    Returns:
      (key, start, stop) of each sensor that the pair has, in rising order; negative, as they are
      counted from the record's end.

    Raises:
      ExampleError: it is no Example, or not one of this data set's format.
    """
    view = ExampleView(record)
    spans = {key: self._format.span(view, key) for key in self.keys}
    stretches = sorted(
      ((key, span[0] - len(record), span[1] - len(record)) for key, span in spans.items() if span),
      key=lambda stretch: stretch[1],
    )
    if len(stretches) == len(self.keys):
      self.guess = tuple(stretches)
    return tuple(stretches)

  def confirmed(self, guess: Sequence[Stretch], gaps: Sequence[np.ndarray]) -> bool:
    """Whether each stretch of a guess is announced by the bytes in front of it.

    Args:
      guess: what was read.
      gaps: (n,) uint8, the bytes between one stretch and the next, as `RecordSource.read_into`
        gives them.
    """
    for (key, _, _), gap in zip(guess, gaps, strict=False):
      expected = self._announcements[key]
      if gap[len(gap) - len(expected) :].tobytes() != expected:
        return False
    return True


def announcement(name: str, size: int) -> bytes:
  """The bytes in front of a feature's one byte string, as protobuf writes its entry of the map."""
  string = b"\x0a" + _varint(size)
  feature = b"\x0a" + _varint(len(string) + size)
  encoded = name.encode()
  key = b"\x0a" + _varint(len(encoded)) + encoded
  value = b"\x12" + _varint(len(feature) + len(string) + size)
  entry = b"\x0a" + _varint(len(key) + len(value) + len(feature) + len(string) + size)
  return entry + key + value + feature + string


def _varint(value: int) -> bytes:
  groups = bytearray()
  while value > 127:
    groups.append(value & 127 | 128)
    value >>= 7
  return bytes([*groups, value])
