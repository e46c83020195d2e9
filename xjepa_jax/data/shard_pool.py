"""Writes many shards in parallel, one per worker process or machine, and counts the pairs done."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from xjepa_jax.data.beam import run_pieces
from xjepa_jax.data.shard_writer import ShardSummary, ShardTask, finished, read_summary, write_shard
from xjepa_jax.errors import WriteError

_POLL_SECONDS = 0.2  # between two progress reports

Progress = Callable[[int], None]


def write_shards(
  tasks: Sequence[ShardTask], workers: int, progress: Progress, beam: str | None = None
) -> list[ShardSummary]:
  """Write shards in this process, in several processes, or on many machines.

  Args:
    tasks: one task per shard.
    workers: number of processes; 1 writes in this one.
    progress: called with the number of pairs done since its last call.
    beam: options of an Apache Beam pipeline that writes them instead; see `data.beam`.

  Returns:
    Summaries of all shards, in order; shards that are already finished are not written again.

  Raises:
    WriteError: writing failed, or a worker died.
  """
  found = {task.path: finished(task) for task in tasks}
  summaries = {path: summary for path, summary in found.items() if summary is not None}
  missing = [task for task in tasks if task.path not in summaries]
  progress(sum(len(task.entries) for task in tasks if task.path in summaries))
  if beam is not None:
    written = _in_beam(missing, beam, progress)
  elif workers > 1 and len(missing) > 1:
    written = _in_processes(missing, workers, progress)
  else:
    written = _in_this_process(missing, progress)
  for task, summary in written:
    summaries[task.path] = summary
  return [summaries[task.path] for task in tasks]


def _in_this_process(
  tasks: Sequence[ShardTask], progress: Progress
) -> Iterator[tuple[ShardTask, ShardSummary]]:
  for task in tasks:
    yield task, write_shard(task, progress)


def _in_beam(
  tasks: Sequence[ShardTask], options: str, progress: Progress
) -> Iterator[tuple[ShardTask, ShardSummary]]:
  run_pieces(_write_quietly, tasks, options)
  for task in tasks:
    progress(len(task.entries))
    yield task, _summary(task)


def _in_processes(
  tasks: Sequence[ShardTask], workers: int, progress: Progress
) -> Iterator[tuple[ShardTask, ShardSummary]]:
  # spawn: GDAL and HDF5 handles do not survive a fork
  context = multiprocessing.get_context("spawn")
  done = context.Value("Q", 0)
  reported = 0
  pool = concurrent.futures.ProcessPoolExecutor(workers, context, _begin_worker, (done,))
  try:
    waiting = {pool.submit(_write_counted, task): task for task in tasks}
    while waiting:
      ready, _ = concurrent.futures.wait(waiting, _POLL_SECONDS, concurrent.futures.FIRST_COMPLETED)
      count = done.get_obj().value  # a worker that was killed may hold the lock
      progress(count - reported)
      reported = count
      for future in ready:
        future.result()
        task = waiting.pop(future)
        yield task, _summary(task)
  except concurrent.futures.process.BrokenProcessPool as error:
    raise WriteError(
      "a worker process was killed, as happens when memory runs out. Finished shards are kept: run "
      "the same command with --resume and fewer --workers."
    ) from error
  finally:
    pool.shutdown(cancel_futures=True)


_counter: Any = None


def _begin_worker(counter: Any) -> None:
  global _counter
  _counter = counter
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  """End this worker when the process that started it is gone.

  A parent that is killed cannot stop its workers. They would wait for it forever, and write the
  same shards as a resumed run.
  """
  parent = multiprocessing.parent_process()
  if parent is not None:
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _write_quietly(task: ShardTask) -> None:
  """Write a shard on another machine, which has no counter to update."""
  write_shard(task, lambda count: None)


def _write_counted(task: ShardTask) -> None:
  """Write a shard and count its pairs; returns nothing, because the summary is in its file.

  If a worker were killed while sending a long result, the parent would wait forever for the rest.
  """

  def progress(count: int) -> None:
    with _counter.get_lock():
      _counter.value += count

  write_shard(task, progress)


def _summary(task: ShardTask) -> ShardSummary:
  summary = read_summary(task.path, task.format)
  if summary is None:
    raise WriteError(
      f"{task.path}: was written, and its summary cannot be read back. See whether the disk is "
      "sound, and run the same command with --resume."
    )
  return summary
