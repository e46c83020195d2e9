"""What the page asks, from an address's parameters to a query and a filter."""

from __future__ import annotations

import dataclasses

from xjepa_jax.errors import SearchError
from xjepa_jax.retrieval.indexes.base import Filter
from xjepa_jax.retrieval.searching.time_range import TimeRange, time_range

OTHERS = "*other"  # sensors than the query's
_EXAMPLES = 64
_MOST = 10_000


@dataclasses.dataclass(frozen=True)
class Question:
  """What is asked.

  Attributes:
    like, unlike: rows of the archive.
    upload: the name of an upload, or "".
    sensor: hits' sensor, "" for all, `OTHERS` for all but the query's.
    time: from, to: half-open; None where nothing is asked of it.
    bbox: west, south, east, north, or None.
    k: hits.
  """

  like: tuple[int, ...] = ()
  unlike: tuple[int, ...] = ()
  upload: str = ""
  sensor: str = ""
  time: TimeRange | None = None
  bbox: tuple[float, float, float, float] | None = None
  k: int = 24

  def filter(self, sensors: tuple[str, ...], asked_with: str) -> Filter:
    """What hits have to pass.

    Args:
      sensors: of the archive.
      asked_with: the query's sensor, or "" where it is of several.
    """
    wanted: tuple[str, ...] = (self.sensor,) if self.sensor else ()
    if self.sensor == OTHERS:
      # With examples of all sensors, or an archive of one, there is no other to ask for.
      wanted = tuple(key for key in sensors if key != asked_with) if asked_with in sensors else ()
    return Filter(sensors=wanted, bbox=self.bbox, time=self.time)


def question(
  like: str = "",
  unlike: str = "",
  upload: str = "",
  sensor: str = "",
  since: str = "",
  until: str = "",
  bbox: str = "",
  k: int = 24,
) -> Question:
  """A question from the text of its parameters.

  Args:
    like, unlike: rows, separated by commas.
    upload: as `Question` has it.
    sensor: as `Question` has it.
    since, until: days such as 2025-06-30, both included, or times; see `time_range`.
    bbox: four numbers, separated by commas.
    k: hits.

  Raises:
    SearchError: something of it cannot be meant.
  """
  if not 1 <= k <= _MOST:
    raise SearchError(f"k is {k}; ask for 1 to {_MOST:,} hits.")
  found = Question(
    like=_rows(like, "like"),
    unlike=_rows(unlike, "unlike"),
    upload=upload,
    sensor=sensor,
    time=time_range(since, until) if since or until else None,
    bbox=box(bbox) if bbox else None,
    k=k,
  )
  if not (found.like or found.upload):
    raise SearchError("nothing is asked: name a tile, or upload an image.")
  return found


def _rows(text: str, name: str) -> tuple[int, ...]:
  parts = [part for part in text.split(",") if part]
  if len(parts) > _EXAMPLES or not all(part.isascii() and part.isdecimal() for part in parts):
    raise SearchError(f"{name}: expected up to {_EXAMPLES} row numbers, separated by commas.")
  return tuple(dict.fromkeys(int(part.lstrip("0")[:18] or "0") for part in parts))


def box(text: str) -> tuple[float, float, float, float]:
  """A box from text.

  Raises:
    SearchError: it is not four numbers.
  """
  try:
    west, south, east, north = (float(part) for part in text.split(","))
  except ValueError:
    raise SearchError("bbox: expected west,south,east,north in degrees.") from None
  return west, south, east, north
