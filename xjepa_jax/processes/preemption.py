"""SIGTERM to any process: all agree on a step, save there, and end with status 0.

  with preemption.heeding():
    ...                                # prepare: ends at once
    with preemption.stepping():        # train: ends at a step
      for step in ...:
        if preemption.agreed(step):
          break
    ...                                # evaluate, report: ends at once, because all is saved

The processes agree through `barriers`: one that gets the signal publishes a request; each process
then publishes its step and pauses its main thread before the next; all stop at the step after the
largest. JAX's own preemption service works alike, but only between steps: it also captures SIGTERM
during compilation and evaluation, which can last longer than the notice before a machine is gone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator

from xjepa_jax.processes import barriers, shutdown

_POLL_SECONDS = 0.5  # interval at which the keys of other processes are read
_SAID = "stopped by SIGTERM: what was trained is saved, and the same command continues"
_heeded: _Heed | None = None


@contextlib.contextmanager
def heeding() -> Iterator[None]:
  """Handle SIGTERM, and requests to stop and errors from other processes, within the block.

  Must be entered by the main thread, after `cluster.join`.
  """
  global _heeded
  heed = _Heed()
  _heeded = heed
  try:
    yield
  finally:
    _heeded = None
    heed.close()


@contextlib.contextmanager
def stepping() -> Iterator[None]:
  """Within the block, a stop waits for `agreed`.

  When the block is left, the results of its steps must be saved, on all processes.
  """
  if _heeded is None:
    yield
    return
  _heeded.enter()
  yield
  _heeded.leave()  # skipped after an error, with which this process ends


def agreed(step: int) -> bool:
  """Whether all processes stop after `step` steps. Every process must call this at every step."""
  return _heeded is not None and _heeded.agreed(step)


class _Heed:
  """A thread that receives SIGTERM and watches other processes, even if the main thread is busy."""

  def __init__(self) -> None:
    self._turn = threading.Condition()
    self._step: int | None = None  # step of the main thread; None outside `stepping`
    self._inside = False
    self._deciding = False  # while this is True, the main thread waits before its next step
    self._target: int | None = None  # the number of steps after which all stop
    self._told = False  # whether this process received SIGTERM
    self._ended: dict[str, float] = {}
    self._ears, self._mouth = os.pipe()
    os.set_blocking(self._mouth, False)
    # Python runs signal handlers in the main thread, which may be compiling for minutes. With a
    # wakeup fd, the signal's number is written into the pipe at once.
    self._wakeup = signal.set_wakeup_fd(self._mouth, warn_on_full_buffer=False)
    self._handler = signal.signal(signal.SIGTERM, lambda *_: None)
    self._open = True
    self._thread = threading.Thread(target=self._listen, name="stopping", daemon=True)
    self._thread.start()

  def close(self) -> None:
    signal.set_wakeup_fd(self._wakeup)
    signal.signal(signal.SIGTERM, self._handler or signal.SIG_DFL)
    self._open = False
    os.write(self._mouth, b"\0")
    self._thread.join()
    os.close(self._ears)
    os.close(self._mouth)

  def enter(self) -> None:
    with self._turn:
      self._inside = True

  def leave(self) -> None:
    with self._turn:
      while self._deciding:
        self._turn.wait()
      self._inside, step, self._step = False, self._step, None
      late = self._target is not None and (step is None or step < self._target)
    if late:  # the agreed step lies after the last one
      _end()

  def agreed(self, step: int) -> bool:
    with self._turn:
      self._step = step
      while self._deciding:
        self._turn.wait()
      return self._target is not None and step >= self._target

  def _listen(self) -> None:
    while self._open:
      ready, _, _ = select.select([self._ears], [], [], _POLL_SECONDS)
      heard = os.read(self._ears, 4096) if ready else b""
      self._told = self._told or signal.SIGTERM in heard
      try:
        self._look()
      except Exception:  # the process that holds the keys is lost, which `lost_processes` handles
        continue

  def _look(self) -> None:
    if not barriers.connected():
      if self._told and self._target is None:
        self._decide({"0": self._note()})
      return
    shutdown.look_at_others(self._ended)
    notes = barriers.published("stop")
    if self._told and "asked" not in notes:
      barriers.publish("stop/asked", str(barriers.process()))
      notes["asked"] = ""
    if "asked" not in notes or self._target is not None:
      return
    with self._turn:
      if not self._deciding:
        self._deciding = True
        barriers.publish(f"stop/at-{barriers.process()}", self._note())
    at = {key: note for key, note in barriers.published("stop").items() if key.startswith("at-")}
    if len(at) == barriers.processes():
      self._decide(at)

  def _note(self) -> str:
    return "" if self._step is None else str(self._step)

  def _decide(self, at: dict[str, str]) -> None:
    """Set the step to stop at. All processes decide alike, because they read the same keys."""
    if not all(at.values()):
      # One process has not started its steps, so none is done; or it has finished them, so all are
      # saved. Either way nothing is lost by ending here.
      _end()
    with self._turn:
      self._target = max(map(int, at.values())) + 1
      self._deciding = False
      self._turn.notify_all()


def _end() -> None:
  if shutdown.leaving()[0] is None:
    shutdown.end_at_once(0, _SAID if barriers.is_first() else "")
