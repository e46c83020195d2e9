"""Where the time of a run went: to steps that count, and to what kept the devices from them.

  with Goodput("runs/a/goodput.jsonl") as goodput:
    for step in range(1, steps + 1):
      with goodput.spending("data"):
        batch = next(batches)
      goodput.giving(step)
      state, metrics = train_step(state, batch)
      goodput.given(metrics)

The devices work on a step from when it is given to them, or from the end of the one before, until
its results are there. Dispatch returns long before that, so a thread waits for the results and
looks at the clock. While a step is under way the time is the step's, whatever the host does; only
while none is does it belong to what the host spends it on. So all kinds add up to the whole, and
a batch that was read behind a step has cost nothing.

The file has a row now and then, so that a start that is killed is counted up to its last row. The
next start adds the last row of each earlier one; its own steps count only beyond the last that
they tell of, and those before it are "repeated". The time between starts is no part of anything.
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
# What else the time of a run can go to; "other" is what is left: starting, telling, histograms.
ASIDE = ("compile", "data", "save", "restore", "evaluation", "report")
KINDS = (STEPS, REPEATED, *ASIDE, "other")
_TOLD_SECONDS = 1.0  # what takes longer has a line in the log, and is written at once
_HANG_SECONDS = 1.0  # that a process that is to end waits for a step; others may be gone


class Goodput:
  """Counts seconds by kind. To be used in a `with`, by one thread."""

  def __init__(
    self,
    path: str = "",
    began: float | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Begins to count.

    Args:
      path: of the run's rows, of this start and of earlier ones; "" keeps none.
      began: when this start began, by `clock`; None is now.
      clock: of seconds; another one for tests.

    Raises:
      TrainingError: the rows of earlier starts cannot be read.
    """
    self._clock = clock
    self._began = self._free = clock() if began is None else began
    self._start = round(time.time() - (clock() - self._began), 6)  # it is known by that
    rows = read_history(path) if path and storage.exists(path) else []
    self._earlier = {row["start"]: row for row in rows if "start" in row}  # the last row of each
    self._reached = max((int(row["step"]) for row in rows), default=0)
    self._file = JsonLines(path, first=sys.maxsize) if path else None
    self._seconds = dict.fromkeys((STEPS, REPEATED, *ASIDE), 0.0)
    self._spent: list[tuple[str, float, float]] = []  # since the last step was given
    self._under_way: collections.deque[tuple[int, float]] = collections.deque()
    self._done = 0  # the last step of this start whose results were there
    self._told = dict(self._seconds)
    self._lock = threading.Lock()
    self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
    self._thread = threading.Thread(target=self._watch, name="goodput", daemon=True)
    self._thread.start()

  @contextlib.contextmanager
  def spending(self, kind: str) -> Iterator[None]:
    """The time inside, where no step is under way, went to one of `ASIDE`. Not to be nested."""
    start = self._clock()
    yield
    end = self._clock()
    self._spent.append((kind, start, end))
    if end - start >= _TOLD_SECONDS:
      log.note(f"{kind} took {end - start:.1f} s")
      self.write()

  def giving(self, step: int) -> None:
    """The devices are about to be given a step, counted from 1."""
    now = self._clock()
    with self._lock:
      if not self._under_way:
        self._seconds = self._until(now)
      self._spent.clear()
      self._under_way.append((step, now))

  def given(self, results: Any) -> None:
    """They were given it; these are what will be there when it is done."""
    self._results.put(results)

  def finished(self) -> None:
    """The first step under way is done. Called by a thread that waits for its results."""
    now = self._clock()
    with self._lock:
      self._seconds, self._free = self._until(now), now
      self._done, _ = self._under_way.popleft()

  def seconds(self) -> dict[str, float]:
    """Of this start, by kind: see `KINDS`. They add up to all that passed."""
    with self._lock:
      now = self._clock()
      found = self._until(now)
    return {**found, "other": now - self._began - sum(found.values())}

  def totals(self) -> dict[str, float]:
    """The same, of all starts of the run."""
    found = self.seconds()
    return {
      kind: value + sum(row.get(kind, 0.0) for row in self._earlier.values())
      for kind, value in found.items()
    }

  def scalars(self) -> dict[str, float]:
    """For the metric writers: the share of all time that went to steps that count, of all starts,
    and the seconds of each kind; the share of the time of steps that was waited for data besides,
    since the last call."""
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
    """Where the time went, for people: what took a thousandth or more, the longest first."""
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
    """Writes the row of now.

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
    # A thread that comes back from XLA after Python is gone aborts the process; one of several
    # processes ends without Python's leave (`ending`), and may have a step that never does.
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
    """Seconds until now, the lock held: of a step, or of what the host did since the last."""
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
      with contextlib.suppress(Exception):  # the main thread meets it too, and says so
        jax.block_until_ready(results)
      self.finished()
      del results


def _share(part: float, totals: Mapping[str, float]) -> float:
  whole = sum(totals.values())
  return part / whole if whole > 0 else 0.0
