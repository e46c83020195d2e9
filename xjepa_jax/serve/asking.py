"""The page's queries: from the parameters of an address to a query and a filter.

Everything here comes from outside, so every value is checked and refused in words.
"""

from __future__ import annotations

import dataclasses

from xjepa_jax.errors import SearchError
from xjepa_jax.retrieval.indexes.base import Filter
from xjepa_jax.retrieval.searching.time_range import TimeRange, time_range

OTHERS = "*other"  # all sensors except the query's
_EXAMPLES = 64  # largest number of examples
_MOST = 10_000  # largest number of hits


@dataclasses.dataclass(frozen=True)
class Question:
  """A query as the page asks it.

  Attributes:
    like, unlike: rows of the archive that serve as examples.
    upload: name of an upload, or "".
    sensor: sensor of the hits, "" for all, `OTHERS` for all but the query's.
    time: half-open range (from, to), either of them None if open, or None without a time filter.
    bbox: west, south, east, north, or None.
    k: number of hits.
  """

  like: tuple[int, ...] = ()
  unlike: tuple[int, ...] = ()
  upload: str = ""
  sensor: str = ""
  time: TimeRange | None = None
  bbox: tuple[float, float, float, float] | None = None
  k: int = 24

  def filter(self, sensors: tuple[str, ...], asked_with: str) -> Filter:
    """Return the filter that hits have to pass.

    Args:
      sensors: the sensors of the archive.
      asked_with: the query's sensor, or "" if its examples are of several sensors.
    """
    wanted: tuple[str, ...] = (self.sensor,) if self.sensor else ()
    if self.sensor == OTHERS:
      # With examples of all sensors, or with a single sensor in the archive, there are no others.
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
  """Parse a question from the text of its parameters.

  Args:
    like, unlike: rows, separated by commas.
    upload: see `Question`.
    sensor: see `Question`.
    since, until: days such as 2025-06-30, both included, or times; see `time_range`.
    bbox: four numbers, separated by commas.
    k: number of hits.

  Raises:
    SearchError: a parameter is not valid.
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
  # 18 digits fit in 64 bits; a longer number is no row of any archive, even when cut short.
  return tuple(dict.fromkeys(int(part.lstrip("0")[:18] or "0") for part in parts))


def box(text: str) -> tuple[float, float, float, float]:
  """Parse a box from text.

  Raises:
    SearchError: it is not four numbers.
  """
  try:
    west, south, east, north = (float(part) for part in text.split(","))
  except ValueError:
    raise SearchError("bbox: expected west,south,east,north in degrees.") from None
  return west, south, east, north
