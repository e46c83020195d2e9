"""What an importer hands to the writer: which pairs an archive holds, and how to read one."""

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
    source: whatever the archive's `read` needs; small, and picklable.
  """

  pair_id: str
  source: Any


@dataclasses.dataclass(frozen=True)
class Skip:
  """What was left out, and why: a row of `skipped.csv`.

  Attributes:
    pair_id: of a pair, or the name of a file that holds several.
    reason: a sentence for people.
    pairs: how many pairs are lost with it.
    odd: whether it can be read, and its values contradict its sensor.
  """

  pair_id: str
  reason: str
  pairs: int = 1
  odd: bool = False


@dataclasses.dataclass(frozen=True)
class Archive:
  """Co-located scenes in a layout of their own.

  Attributes:
    name: of the data set to be written: lower-case letters, digits, underscores.
    sensors: sensor key -> description, the first one's grid being the pair's.
    splits: "train", "validation", "test", ... -> entries, in the order in which they are written.
    read: entry -> pair. A function or partial that can be pickled, for it runs in worker
      processes. Raises a DataError, whose message becomes the skipped pair's reason.
    skipped: what listing the archive left out.
    notes: lines for the import's summary, such as how bands were resampled.
    sizes: entry -> height and width of each sensor's image as `read` gives it, told without reading
      a pixel; raises a DataError where `read` would, as far as that can be told. None where it
      takes as long as reading.
  """

  name: str
  sensors: Mapping[str, Sensor]
  splits: Mapping[str, Sequence[Entry]]
  read: Callable[[Entry], Pair]
  skipped: Sequence[Skip] = ()
  notes: Sequence[str] = ()
  sizes: Callable[[Entry], Mapping[str, tuple[int, int]]] | None = None
