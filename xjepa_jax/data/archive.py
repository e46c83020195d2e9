"""The interface between importers and the writer: the pairs of an archive, and how to read one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from xjepa_jax.data.pairs import Pair
from xjepa_jax.sensors import Sensor


@dataclasses.dataclass(frozen=True)
class Entry:
  """A pair that is still in its archive.

  Attributes:
    pair_id: unique within the archive.
    source: whatever the archive's `read` needs; small and picklable.
  """

  pair_id: str
  source: Any


@dataclasses.dataclass(frozen=True)
class Skip:
  """Something that was left out, and why: a row of `skipped.csv`.

  Attributes:
    pair_id: id of a pair, or the name of a file that holds several.
    reason: a sentence for people.
    pairs: number of pairs lost with it.
    odd: whether it is readable, but its values contradict its sensor.
  """

  pair_id: str
  reason: str
  pairs: int = 1
  odd: bool = False


@dataclasses.dataclass(frozen=True)
class Archive:
  """Co-located scenes in a layout of their own.

  Attributes:
    name: name of the data set to be written: lower-case letters, digits, underscores.
    sensors: sensor key -> description; the pair's grid is that of the first sensor.
    splits: "train", "validation", "test", ... -> entries, in the order in which they are written.
    read: entry -> pair. A function or partial that can be pickled, because it runs in worker
      processes. Raises a DataError, whose message becomes the reason for skipping the pair.
    skipped: what was left out when the archive was listed.
    notes: lines for the import's summary, such as how bands were resampled.
    sizes: entry -> height and width of each sensor's image as returned by `read`, without reading a
      pixel; raises a DataError where `read` would, as far as headers show. None if that takes as
      long as reading.
  """

  name: str
  sensors: Mapping[str, Sensor]
  splits: Mapping[str, Sequence[Entry]]
  read: Callable[[Entry], Pair]
  skipped: Sequence[Skip] = ()
  notes: Sequence[str] = ()
  sizes: Callable[[Entry], Mapping[str, tuple[int, int]]] | None = None
