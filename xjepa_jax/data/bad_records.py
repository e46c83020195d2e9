"""Replacement of damaged records in a run: each is reported once, and too many stop the run.

A record that is damaged on two reads is replaced by the next record of its split, the last one by
the first. The replacement depends only on what is on disk, so batches stay the same after a restart
and for any number of processes.
"""

from __future__ import annotations

from absl import logging

from xjepa_jax.data.tfrecord import RecordSource
from xjepa_jax.errors import CorruptRecordError, CutShortError, DataError, ExampleError

# Messages logged so far. Global to the process, because a split is opened anew for every pass.
_told: set[str] = set()


class BadRecords:
  """The damaged records of one split and their replacements.

  Args:
    records: records of the split.
    limit: number of different records that may be replaced; 0 replaces none.
  """

  def __init__(self, records: RecordSource, limit: int):
    self.limit = limit
    self._records = records
    self._instead: dict[int, int] = {}

  def forgives(self, error: DataError) -> bool:
    """Whether an error means a damaged record, and damaged records may be replaced.

    A read that was cut short does not count: the record may be intact on the next attempt.
    """
    damaged = isinstance(error, CorruptRecordError | ExampleError)
    return self.limit > 0 and damaged and not isinstance(error, CutShortError)

  def read_instead(self, number: int) -> int:
    """The record to read in place of `number`: itself, unless it is known to be damaged."""
    while number in self._instead:
      number = self._instead[number]
    return number

  def replace(self, number: int, error: DataError) -> int:
    """Mark a record as damaged, log that once, and return the number of the next record.

    Raises:
      CorruptRecordError: more records are damaged than `limit` allows, or no intact one is left.
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
