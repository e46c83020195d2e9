"""Ends a run that makes no progress: a hang costs as much as training, and prints nothing.

with watchdog.watching(1800, "workdir"):
  for step in ...:
    watchdog.advanced(step)
"""

from __future__ import annotations

import contextlib
import datetime
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from xjepa_jax.processes.barriers import process, processes
from xjepa_jax.processes.shutdown import LOST, end_at_once

_FIRST_SECONDS = 1800.0  # at least this long for the first step, which includes compilation
_watched: _Watch | None = None


@contextlib.contextmanager
def watching(seconds: float, directory: str) -> Iterator[None]:
  """End this process with status 13 if nothing advances for too long within the block.

  The stacks of all threads are first written to stderr and to `directory`/hang-process-I.txt.

  Args:
    seconds: longest time between calls of `advanced`; 0 turns the watchdog off. Until the second
      call it is at least half an hour, because the first step includes compilation.
    directory: directory of the run.
  """
  global _watched
  watch = _Watch(seconds, directory) if seconds else None
  _watched = watch
  try:
    yield
  finally:
    _watched = None
    if watch is not None:
      watch.close()


def advanced(step: int | None = None) -> None:
  """Report progress. A part of a step's work, such as an evaluated batch, counts as well."""
  if _watched is not None:
    _watched.advanced(step)


class _Watch:
  """The thread that checks the time since the last progress."""

  def __init__(self, seconds: float, directory: str, end: Callable[[int, str], None] = end_at_once):
    self._seconds, self._directory, self._end = seconds, directory, end
    self._step: int | None = None
    self._allowed = max(seconds, _FIRST_SECONDS)
    self._calls = 0
    self._last = time.monotonic()
    self._closed = threading.Event()
    self._thread = threading.Thread(target=self._look, name="watchdog", daemon=True)
    self._thread.start()

  def advanced(self, step: int | None) -> None:
    self._step = self._step if step is None else step
    self._calls += 1
    if self._calls > 1:
      self._allowed = self._seconds
    self._last = time.monotonic()

  def close(self) -> None:
    self._closed.set()
    self._thread.join()

  def _look(self) -> None:
    while not self._closed.wait(min(self._seconds / 10, 10)):
      if time.monotonic() - self._last > self._allowed:
        self._tell()
        return

  def _tell(self) -> None:
    path = os.path.join(self._directory, f"hang-process-{process()}.txt")
    where = "" if processes() == 1 else f"process {process()} of {processes()}: "
    step = "the first step" if self._step is None else f"step {self._step}"
    said = f"{where}{step} has not advanced for {self._allowed:g} s (processes.hang_seconds)"
    with contextlib.suppress(AttributeError, OSError, ValueError):  # a stream without a file
      faulthandler.dump_traceback(sys.stderr)
    with contextlib.suppress(OSError), open(path, "w", encoding="utf-8") as file:
      file.write(f"{datetime.datetime.now().astimezone().isoformat()} {said}\n")
      file.flush()
      faulthandler.dump_traceback(file)
    self._end(
      LOST,
      f"{said}; the stacks of all threads are above and in {path}. The same command continues from "
      "the last checkpoint.",
    )
