"""Writes an archive as a data set with many workers, whose number does not change the bytes.

Shards are written into `OUT/.partial` and moved to their final names when all are finished;
`dataset_info.json` comes last and makes the data set complete. An interrupted import therefore
never looks like a data set, and resuming it keeps every finished shard.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from xjepa_jax.data import shard_index, storage
from xjepa_jax.data.archive import Skip
from xjepa_jax.data.description import INFO_FILE, Description, shard_name, write_description
from xjepa_jax.data.import_plan import ImportPlan
from xjepa_jax.data.importing.skipped import check_odd, check_skipped
from xjepa_jax.data.plain_text import for_spreadsheet
from xjepa_jax.data.shard_pool import Progress, write_shards
from xjepa_jax.data.shard_writer import TEMPORARY_SUFFIX, ShardSummary, ShardTask
from xjepa_jax.data.statistics import SensorStatistics, with_statistics
from xjepa_jax.data.tables import csv_text
from xjepa_jax.errors import DatasetError, WriteError
from xjepa_jax.paths import StrPath
from xjepa_jax.processes.locking import holding

SKIPPED_FILE = "skipped.csv"
_PARTIAL = ".partial"
_MARK = "plan.sha256"  # contains the fingerprint of the import that `.partial` belongs to
_LOCK = "import.lock"  # names the process that writes into `.partial`


@dataclasses.dataclass(frozen=True)
class ImportSummary:
  """The result of an import.

  Attributes:
    splits: split -> number of pairs.
    nbytes: size of all shards.
    skipped: pairs left out, and why.
    labels: label -> number of pairs.
  """

  splits: Mapping[str, int]
  nbytes: int
  skipped: Sequence[Skip]
  labels: Mapping[str, int]


def write_dataset(
  plan: ImportPlan,
  out: StrPath,
  workers: int = 1,
  resume: bool = False,
  progress: Progress = lambda count: None,
  beam: str | None = None,
  max_skipped: float = 1.0,
  skip_odd: bool = True,
) -> ImportSummary:
  """Write the planned data set into the directory `out`.

  Args:
    plan: what to write.
    out: a local directory; created if missing, refused if it holds a data set.
    workers: number of processes; 1 writes in this one.
    resume: continue an interrupted import.
    progress: called with the number of pairs done since its last call.
    beam: options of an Apache Beam pipeline that writes the shards; all its machines see `out`.
    max_skipped: share of the pairs that may be skipped; beyond it no data set is made, and finished
      shards are kept for `resume`.
    skip_odd: whether pairs whose values contradict their sensors may be skipped as well.

  Raises:
    ArchiveError: more pairs than `max_skipped` were skipped, or odd ones without `skip_odd`.
    OptionError: Beam is requested and not installed.
    DatasetError: `out` holds a data set or another import, or no pair could be read.
    InUseError: another process is writing this import.
    WriteError: writing failed, or a worker died. Finished shards are kept for `resume`.
  """
  out = os.fspath(out)
  try:
    check_free(out, resume)
    partial = os.path.join(out, _PARTIAL)
    os.makedirs(partial, exist_ok=True)
    with holding(os.path.join(partial, _LOCK), f"the unfinished import {partial}"):
      _prepare(plan, partial)
      tasks = list(_tasks(plan, partial, skip_odd))
      summaries = write_shards(tasks, max(1, min(workers, len(tasks))), progress, beam)
      return _finish(plan, out, tasks, summaries, max_skipped, skip_odd)
  except WriteError:
    raise
  except OSError as error:
    raise storage.writing_failed(out, error) from error


def check_free(out: str, resume: bool) -> None:
  """Raise a DatasetError if `out` holds anything other than an import to be resumed.

  Raises:
    InUseError: an import into it is running.
  """
  partial = os.path.join(out, _PARTIAL)
  # Check the lock first: the messages below would call a running import interrupted, and advise to
  # delete it.
  if os.path.exists(lock := os.path.join(partial, _LOCK)):
    with contextlib.suppress(OSError), holding(lock, f"the unfinished import {partial}"):
      pass
  if os.path.exists(os.path.join(out, INFO_FILE)):
    raise DatasetError(f"{out} already holds a data set. Choose another --out, or delete it.")
  if os.path.exists(partial) and not resume:
    raise DatasetError(
      f"{out} holds an import that was interrupted. Continue it with --resume, or delete {partial} "
      "to start again."
    )
  if os.path.isdir(out) and not os.path.exists(partial) and storage.listing(out):
    raise DatasetError(f"{out} is not empty. Choose an --out of its own for the data set.")


def _prepare(plan: ImportPlan, partial: str) -> None:
  """Claim the directory of unfinished shards, which is new or belongs to the same import."""
  mark = os.path.join(partial, _MARK)
  if os.path.exists(mark):
    with open(mark, encoding="ascii") as file:
      if file.read() != plan.fingerprint():
        raise DatasetError(
          f"{partial} belongs to another import: the archive or the options differ. Use those it "
          "was started with, or delete it to start again."
        )
  for name in os.listdir(partial):
    if name.endswith(TEMPORARY_SUFFIX):  # left by a run that was killed
      storage.remove(os.path.join(partial, name))
  storage.write_file(mark, plan.fingerprint().encode())


def _tasks(plan: ImportPlan, partial: str, skip_odd: bool) -> Iterator[ShardTask]:
  for split, shards in plan.shards.items():
    for number, entries in enumerate(shards):
      path = os.path.join(partial, f"{split}-{number:05d}")
      yield ShardTask(split, path, entries, plan.archive.read, plan.format, plan.judges, skip_odd)


def _finish(
  plan: ImportPlan,
  out: str,
  tasks: Sequence[ShardTask],
  summaries: Sequence[ShardSummary],
  max_skipped: float,
  skip_odd: bool,
) -> ImportSummary:
  """Give shards their final names, leaving out those in which every pair was skipped."""
  kept: dict[str, list[tuple[ShardTask, ShardSummary]]] = {split: [] for split in plan.shards}
  for task, summary in zip(tasks, summaries, strict=True):
    if summary.pairs:
      kept[task.split].append((task, summary))
  kept = {split: shards for split, shards in kept.items() if shards}
  skipped = [*plan.archive.skipped, *(skip for summary in summaries for skip in summary.skipped)]
  if not kept:
    raise DatasetError(f"every pair was skipped. The first: {skipped[0].reason}")
  pairs = sum(summary.pairs for summary in summaries)
  check_odd(skipped, skip_odd, os.path.join(out, _PARTIAL))
  check_skipped(skipped, pairs, max_skipped, "finish with --resume --max-skipped")
  for split, shards in kept.items():
    for number, (task, _) in enumerate(shards):
      name = shard_name(plan.archive.name, split, number, len(shards))
      _move(task.path, os.path.join(out, name))
  storage.write_file(os.path.join(out, SKIPPED_FILE), _skipped_csv(skipped))
  description = _description(plan, kept)
  num_bytes = {split: sum(s.nbytes for _, s in shards) for split, shards in kept.items()}
  write_description(out, description, num_bytes)
  shutil.rmtree(os.path.join(out, _PARTIAL))
  labels: Counter[str] = Counter()
  for summary in summaries:
    labels.update(summary.labels)
  return ImportSummary(
    splits={split: sum(lengths) for split, lengths in description.splits.items()},
    nbytes=sum(num_bytes.values()),
    skipped=skipped,
    labels=dict(labels),
  )


def _move(partial: str, final: str) -> None:
  """Move a shard and its index; a run that was interrupted here may have moved some already."""
  # The index first, so that a shard under its final name always has its index.
  for suffix in (shard_index.SUFFIX, ""):
    with contextlib.suppress(FileNotFoundError):
      os.replace(partial + suffix, final + suffix)
  if not os.path.exists(final):
    raise DatasetError(f"{partial}: the shard is gone though its summary is there. Start again.")


def _description(
  plan: ImportPlan, kept: Mapping[str, Sequence[tuple[ShardTask, ShardSummary]]]
) -> Description:
  """The sensors with statistics of the training split, or of the first if there is none."""
  reference = kept.get("train") or next(iter(kept.values()))
  sensors, statistics = {}, {}
  for key, sensor in plan.format.sensors.items():
    counted = SensorStatistics.of(sensor)
    for _, summary in reference:
      counted.merge(summary.statistics[key])
    sensors[key] = with_statistics(sensor, counted)
    statistics[key] = counted.to_json(sensor)
  return Description(
    name=plan.archive.name,
    format=dataclasses.replace(plan.format, sensors=sensors),
    statistics=statistics,
    splits={split: tuple(s.pairs for _, s in shards) for split, shards in kept.items()},
  )


def _skipped_csv(skipped: Sequence[Skip]) -> bytes:
  rows = [[for_spreadsheet(cell) for cell in (skip.pair_id, skip.reason)] for skip in skipped]
  return csv_text([["pair_id", "reason"], *rows]).encode()
