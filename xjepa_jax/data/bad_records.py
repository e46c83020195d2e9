"""Damaged records that a run does without: named once, counted, and too many of them refused.

A record that is damaged when it is read twice is replaced by the one after it in its split, the
last one by the first. What takes its place depends on what is on disk and on nothing else, so
batches stay the same after a restart, and for any number of processes.
"""

from __future__ import annotations

from absl import logging

from xjepa_jax.data.tfrecord import RecordSource
from xjepa_jax.errors import CorruptRecordError, CutShortError, DataError, ExampleError

_told: set[str] = set()  # by this process: passes over a split open it again and again


class BadRecords:
  """Those of one split.

  Args:
    records: of the split.
    limit: how many different ones are replaced; 0 replaces none.
  """

  def __init__(self, records: RecordSource, limit: int):
    self.limit = limit
    self._records = records
    self._instead: dict[int, int] = {}

  def forgives(self, error: DataError) -> bool:
    """Whether an error is of a damaged record, and these may be replaced.

    Bytes that did not come say nothing of the record: asked for later, they may.
    """
    damaged = isinstance(error, CorruptRecordError | ExampleError)
    return self.limit > 0 and damaged and not isinstance(error, CutShortError)

  def read_instead(self, number: int) -> int:
    """The record that is read where `number` is wanted: itself, unless it is known as damaged."""
    while number in self._instead:
      number = self._instead[number]
    return number

  def replace(self, number: int, error: DataError) -> int:
    """Notes that a record is damaged, and says so once; the number of the one after it.

    Raises:
      CorruptRecordError: there are more than may be, or none is left.
    """
    count = len({*self._instead, number})
    if count > self.limit or count == len(self._records):
      raise CorruptRecordError(
        f"{error} It is the damaged record number {count} of its split, and data.bad_records is "
        f"{self.limit}."
      ) from error
    following = (number + 1) % len(self._records)
    self._instead[number] = following
    if str(error) not in _told:
      _told.add(str(error))
      logging.warning(
        "%s Until then %s is read in its place (damaged so far %d, data.bad_records %d).",
        error,
        self._records.where(following),
        count,
        self.limit,
      )
    return following
