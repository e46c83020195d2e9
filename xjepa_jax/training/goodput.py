"""Accounting of a run's time: steps that count, and everything that kept the devices from them.

While a step is running, time counts as the step's, whatever the host does; only while none is
running does it count as the host's activity. All kinds therefore add up to the whole, and a batch
that was read while a step ran has cost nothing. Dispatch is asynchronous, so a thread waits for the
results and reads the clock. Rows are written now and then, so that a killed start is counted up to
its last row; the time between starts counts as nothing.
"""

from __future__ import annotations

import collections
import contextlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

from xjepa_jax.data import storage
from xjepa_jax.errors import TrainingError
from xjepa_jax.processes import barriers, log
from xjepa_jax.training.json_lines import JsonLines, read_history
from xjepa_jax.training.progress import duration

STEPS, REPEATED = "steps", "repeated"
# The other uses of a run's time; "other" is the remainder: start-up, messages, histograms.
ASIDE = ("compile", "data", "save", "restore", "evaluation", "report")
KINDS = (STEPS, REPEATED, *ASIDE, "other")
_TOLD_SECONDS = 1.0  # anything longer gets a line in the log, and a row at once
# How long a failing process waits for its last step, which may wait for processes that are lost.
_HANG_SECONDS = 1.0


class Goodput:
  """Counts seconds by kind. Use it in a `with` statement, from one thread.

  with Goodput("runs/a/goodput.jsonl") as goodput:
    for step in range(1, steps + 1):
      with goodput.spending("data"):
        batch = next(batches)
      goodput.giving(step)
      state, metrics = train_step(state, batch)
      goodput.given(metrics)

  A step occupies the devices from its dispatch, or from the end of the step before, until its
  results are ready. Every start adds the last row of each earlier one. Its own steps count only
  beyond the last step recorded there; those before it are "repeated".
  """

  def __init__(
    self,
    path: str = "",
    began: float | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Start counting.

    Args:
      path: the file of rows of this start and of earlier ones; "" keeps none.
      began: when this start began, by `clock`; None is now.
      clock: returns seconds; replaced in tests.

    Raises:
      TrainingError: the rows of earlier starts cannot be read.
    """
    self._clock = clock
    self._began = self._free = clock() if began is None else began
    self._start = round(time.time() - (clock() - self._began), 6)  # identifies this start
    rows = read_history(path) if path and storage.exists(path) else []
    self._earlier = {row["start"]: row for row in rows if "start" in row}  # the last row of each
    self._reached = max((int(row["step"]) for row in rows), default=0)
    self._file = JsonLines(path, first=sys.maxsize) if path else None
    self._seconds = dict.fromkeys((STEPS, REPEATED, *ASIDE), 0.0)
    self._spent: list[tuple[str, float, float]] = []  # since the last step was dispatched
    self._under_way: collections.deque[tuple[int, float]] = collections.deque()
    self._done = 0  # the last step of this start whose results were ready
    self._told = dict(self._seconds)
    self._lock = threading.Lock()
    self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
    self._thread = threading.Thread(target=self._watch, name="goodput", daemon=True)
    self._thread.start()

  @contextlib.contextmanager
  def spending(self, kind: str) -> Iterator[None]:
    """Count the time inside, while no step is running, as one of `ASIDE`. Do not nest."""
    start = self._clock()
    yield
    end = self._clock()
    self._spent.append((kind, start, end))
    if end - start >= _TOLD_SECONDS:
      log.note(f"{kind} took {end - start:.1f} s")
      self.write()

  def giving(self, step: int) -> None:
    """Record that a step, counted from 1, is about to be dispatched."""
    now = self._clock()
    with self._lock:
      if not self._under_way:
        self._seconds = self._until(now)
      self._spent.clear()
      self._under_way.append((step, now))

  def given(self, results: Any) -> None:
    """Record that the step was dispatched; `results` are ready when it is done."""
    self._results.put(results)

  def finished(self) -> None:
    """Record that the oldest running step is done. Called by the thread that waits for results."""
    now = self._clock()
    with self._lock:
      self._seconds, self._free = self._until(now), now
      self._done, _ = self._under_way.popleft()

  def seconds(self) -> dict[str, float]:
    """Return the seconds of this start by kind (`KINDS`); they add up to all that has passed."""
    with self._lock:
      now = self._clock()
      found = self._until(now)
    return {**found, "other": now - self._began - sum(found.values())}

  def totals(self) -> dict[str, float]:
    """Return the seconds of all starts of the run by kind."""
    found = self.seconds()
    return {
      kind: value + sum(row.get(kind, 0.0) for row in self._earlier.values())
      for kind, value in found.items()
    }

  def scalars(self) -> dict[str, float]:
    """Return scalars for the metric writers.

    They are the share of time over all starts that went to steps that count, the seconds of each
    kind, and the share of the time since the last call that was spent waiting for data, out of
    steps and waiting.
    """
    totals, now = self.totals(), self.seconds()
    since = {kind: now[kind] - before for kind, before in self._told.items()}
    self._told = {kind: now[kind] for kind in self._told}
    steps = since[STEPS] + since[REPEATED] + since["data"]
    return {
      "goodput/share": _share(totals[STEPS], totals),
      "goodput/data_wait": since["data"] / steps if steps > 0 else 0.0,
      **{f"goodput/{kind}_seconds": value for kind, value in totals.items()},
    }

  def line(self) -> str:
    """Return where the time went as text: kinds of a thousandth or more, the longest first."""
    totals = self.totals()
    shares = {kind: _share(value, totals) for kind, value in totals.items() if kind != STEPS}
    named = sorted((kind for kind in shares if shares[kind] >= 0.001), key=lambda k: -shares[k])
    rest = ", ".join(f"{kind} {shares[kind]:.1%}" for kind in named)
    starts = f" in {len(self._earlier) + 1} starts" if self._earlier else ""
    return (
      f"Goodput {_share(totals[STEPS], totals):.1%} of {duration(sum(totals.values()))}{starts}"
      + (f"; the rest: {rest}" if rest else "")
    )

  def write(self) -> None:
    """Write a row of the seconds so far.

    Raises:
      TrainingError: the disk is full.
    """
    if self._file is not None:
      row = {kind: round(value, 3) for kind, value in self.seconds().items()}
      self._file.scalars(max(self._done, self._reached), {"start": self._start, **row})

  def __enter__(self) -> Goodput:
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self._results.put(None)
    # A thread that returns from XLA after the interpreter has gone aborts the process, so the
    # thread is joined. After an error in one of several processes, its step may wait for ever, and
    # the process then exits without the interpreter's shutdown (`shutdown`).
    self._thread.join(_HANG_SECONDS if error is not None and barriers.connected() else None)
    try:
      self.write()
    except TrainingError:
      if kind is None:
        raise
    finally:
      if self._file is not None:
        self._file.close()

  def _until(self, now: float) -> dict[str, float]:
    """Seconds until now, with the lock held: the running step's, or the host's since the last."""
    found = dict(self._seconds)
    if self._under_way:
      step, given = self._under_way[0]
      counts = STEPS if step > self._reached else REPEATED
      found[counts] += now - max(given, self._free)
    else:
      for kind, start, end in self._spent:
        found[kind] += max(0.0, end - max(start, self._free))
    return found

  def _watch(self) -> None:
    import jax

    while (results := self._results.get()) is not None:
      with contextlib.suppress(Exception):  # the main thread gets the same error and reports it
        jax.block_until_ready(results)
      self.finished()
      # Otherwise this thread would hold the arrays until the next results arrive.
      del results


def _share(part: float, totals: Mapping[str, float]) -> float:
  whole = sum(totals.values())
  return part / whole if whole > 0 else 0.0
