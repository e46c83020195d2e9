"""Writes one shard of an archive: read, check, encode, frame, index.

The summary is written last, and its presence marks the shard as finished. Until then its files have
temporary names, and a resumed import writes the shard again from the start.
"""

from __future__ import annotations

import dataclasses
import io
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from xjepa_jax.data import framing, shard_index, storage, units
from xjepa_jax.data.archive import Entry, Skip
from xjepa_jax.data.pairs import Pair, PairFormat
from xjepa_jax.data.statistics import SensorStatistics
from xjepa_jax.errors import DataError

SUMMARY_SUFFIX = ".summary.npz"
TEMPORARY_SUFFIX = ".tmp"


@dataclasses.dataclass(frozen=True)
class ShardTask:
  """One shard to be written: `entries` of `split`, in order, into the file `path`."""

  split: str
  path: str
  entries: Sequence[Entry]
  read: Callable[[Entry], Pair]
  format: PairFormat
  judges: Mapping[str, units.Judge]  # pairs whose values contradict their sensors are left out
  skip_odd: bool  # accept a finished shard without its odd pairs, instead of judging them again

  @property
  def strictness(self) -> int:
    """How many checks the values must pass: 0 for none, 1 for all but offsets, 2 for all."""
    return len(self.judges) and 1 + all(judge.offset for judge in self.judges.values())


@dataclasses.dataclass(frozen=True)
class ShardSummary:
  """The contents of a finished shard.

  Attributes:
    pairs: number of records.
    nbytes: size of the shard.
    skipped: entries that were left out, and why.
    statistics: sensor key -> statistics of its stored values.
    labels: label -> number of pairs that have it.
    strictness: strictness of the task that wrote it.
  """

  pairs: int
  nbytes: int
  skipped: Sequence[Skip]
  statistics: Mapping[str, SensorStatistics]
  labels: Mapping[str, int]
  strictness: int = 0


def write_shard(task: ShardTask, progress: Callable[[int], None]) -> ShardSummary:
  """Write a shard, its index and its summary.

  Args:
    task: what to write, and where.
    progress: called with 1 after each entry.

  Raises:
    WriteError: the disk is full, or the directory cannot be written to. No partial file is left
      under a final name.
  """
  try:
    return _write_shard(task, progress)
  except OSError as error:
    raise storage.writing_failed(task.path, error) from error


def read_summary(path: str, form: PairFormat) -> ShardSummary | None:
  """The summary of a shard if it is finished, else None."""
  try:
    with np.load(path + SUMMARY_SUFFIX, allow_pickle=False) as arrays:
      return _summary_from_arrays(arrays, form)
  except (OSError, ValueError, KeyError, EOFError):
    return None
  except Exception as error:  # np.load lets zipfile's and zlib's own error classes through
    if type(error).__module__ in ("zipfile", "zlib"):
      return None
    raise


def finished(task: ShardTask) -> ShardSummary | None:
  """The summary of a task's shard if it is finished as the task requires, else None.

  A shard with odd pairs is written again, because by now they may be corrected or trusted, unless
  they are to be left out; so is a shard whose values were judged less strictly.
  """
  summary = read_summary(task.path, task.format)
  if summary is None or summary.strictness < task.strictness:
    return None
  odd = any(skip.odd for skip in summary.skipped)
  if odd and not (task.skip_odd and summary.strictness == task.strictness):
    return None
  return summary


def _write_shard(task: ShardTask, progress: Callable[[int], None]) -> ShardSummary:
  form = task.format
  statistics = {key: SensorStatistics.of(sensor) for key, sensor in form.sensors.items()}
  labels: dict[str, int] = {}
  skipped: list[Skip] = []
  entries: list[tuple[int, int, int]] = []
  temporary = f"{task.path}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"  # unique to this attempt
  try:
    with open(temporary, "wb") as file:
      at = 0
      for entry in task.entries:
        encoded = _encode(task, entry, skipped)
        if encoded is not None:
          pair, data = encoded
          crc = framing.masked_crc(data)
          file.write(framing.header_of(len(data)) + data + framing.FOOTER.pack(crc))
          entries.append((at + framing.HEADER.size, len(data), crc))
          at += len(data) + framing.OVERHEAD
          for key, observation in pair.observations.items():
            statistics[key].add(form.sensors[key], observation.values)
          for label in pair.labels:
            labels[label] = labels.get(label, 0) + 1
        progress(1)
      # Sync before the rename, or a crash could leave a partial file under the final name.
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, task.path)
  except BaseException:
    storage.remove(temporary)
    raise
  summary = ShardSummary(len(entries), at, skipped, statistics, labels, task.strictness)
  index = shard_index.from_entries(entries, at)
  storage.write_file(task.path + shard_index.SUFFIX, index.to_bytes())
  storage.write_file(task.path + SUMMARY_SUFFIX, _summary_bytes(summary))
  return summary


def _encode(task: ShardTask, entry: Entry, skipped: list[Skip]) -> tuple[Pair, bytes] | None:
  try:
    pair = task.read(entry)
    # Encoding checks shapes and dtypes, on which the judges rely.
    encoded = task.format.encode(pair)
    odd = units.of_pair(task.judges, pair)
    if odd:
      skipped.append(Skip(entry.pair_id, odd, odd=True))
      return None
    return pair, encoded
  except DataError as error:
    skipped.append(Skip(entry.pair_id, str(error)))
    return None


def _summary_bytes(summary: ShardSummary) -> bytes:
  arrays: dict[str, Any] = {
    "pairs": np.int64(summary.pairs),
    "nbytes": np.int64(summary.nbytes),
    "strictness": np.int64(summary.strictness),
    # Fixed-width text, because an array of objects would be pickled.
    "skipped": np.array(
      [[skip.pair_id, skip.reason, "odd" * skip.odd] for skip in summary.skipped], "U"
    ),
    "labels": np.array(list(summary.labels), "U"),
    "label_counts": np.array(list(summary.labels.values()), np.int64),
  }
  for key, statistics in summary.statistics.items():
    arrays.update({f"{key}/{name}": array for name, array in statistics.arrays().items()})
  content = io.BytesIO()
  np.savez_compressed(content, **arrays)
  return content.getvalue()


def _summary_from_arrays(arrays: Any, form: PairFormat) -> ShardSummary:
  def statistics(key: str) -> SensorStatistics:
    names = SensorStatistics.of(form.sensors[key])
    return names.load({name: arrays[f"{key}/{name}"] for name in names.arrays()})

  return ShardSummary(
    pairs=int(arrays["pairs"]),
    nbytes=int(arrays["nbytes"]),
    skipped=[
      Skip(str(row[0]), str(row[1]), odd=bool(row[2])) for row in arrays["skipped"].reshape(-1, 3)
    ],
    statistics={key: statistics(key) for key in form.sensors},
    labels=dict(zip(map(str, arrays["labels"]), map(int, arrays["label_counts"]), strict=True)),
    strictness=int(arrays["strictness"]),
  )
