"""How a process ends, so that all end: one paragraph for what all say, no one left waiting.

Statuses: 0 done, or stopped and saved; 1 an error in one paragraph; 13 another process was lost, or
nothing advanced: the same command goes on; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from typing import NoReturn

from xjepa_jax.errors import LostError, XJepaError
from xjepa_jax.processes import barriers, locking, log

LOST = 13
_ENDED, _GONE = "ended", "gone"
_AGREE_SECONDS = 10.0  # in which processes that fail alike are seen to
_LAST_SECONDS = 10.0  # that the first process, which keeps all notes, waits for the others to go
_OF_OTHERS = ("JaxRuntimeError", "XlaRuntimeError")  # the class of all that XLA raises
_leaving: int | None = None  # the status with which this process is about to end
_untold = ""  # why, as long as it may be that the first process says so


def leaving() -> tuple[int | None, str]:
  """The status with which this process is about to end, None if it is not; what it has not said."""
  return _leaving, _untold


def fail(status: int, text: str) -> int:
  """Tells people why this process ends, and the other processes that it does.

  The first process tells it; another only what the first does not say too, with its number.

  Args:
    status: not 0.
    text: one paragraph.

  Returns:
    The status, for a process that is alone. Others end here.
  """
  global _leaving, _untold
  log.note(text, "error")
  if not barriers.connected():
    print(text, file=sys.stderr, flush=True)
    return status
  me, count = barriers.process(), barriers.processes()
  _leaving, _untold = status, f"process {me} of {count}: {text}" if me else ""
  _note(f"{_ENDED}/{me}", json.dumps({"status": status, "text": text}))
  if me == 0:
    print(text, file=sys.stderr, flush=True)
  elif _said_by_first() != text:
    print(_untold, file=sys.stderr, flush=True)
  _untold = ""
  _go(status)


def end_at_once(status: int, text: str = "") -> NoReturn:
  """Ends this process from any thread, whatever the main thread waits for."""
  global _leaving
  _leaving = status
  if text:
    log.note(text, "error" if status else "info")
    print(text, file=sys.stderr, flush=True)
  if barriers.connected() and status != LOST:
    _go(status)
  _exit(status)


def fail_for_others(error: Exception, lost_seconds: float) -> int:
  """As `fail`, of an error that may come of another process's end.

  A collective or a barrier often fails before the coordination service notices who was lost. So
  this process waits to be told: `lost_processes` or `look_at_others` end it in between.

  Args:
    error: just caught.
    lost_seconds: as `cluster.join` was told.
  """
  ours = isinstance(error, XJepaError)
  text = f"error: {error}" if ours else "".join(traceback.format_exception(error)).rstrip()
  if not _may_come_of_others(error):
    return fail(1, text)
  until = time.monotonic() + lost_seconds + _AGREE_SECONDS
  seen: dict[str, float] = {}
  while barriers.connected() and time.monotonic() < until:
    with contextlib.suppress(Exception):  # the first process may be gone, and with it all notes
      look_at_others(seen)
    time.sleep(0.2)
  return fail(1 if ours and not isinstance(error, LostError) else LOST, text)


def _may_come_of_others(error: BaseException | None) -> bool:
  """Whether it, or what it was raised from, is of a collective, a barrier or a wait."""
  while error is not None:
    if isinstance(error, LostError):
      return True
    if type(error).__name__ in _OF_OTHERS and "RESOURCE_EXHAUSTED" not in str(error):
      return barriers.processes() > 1
    error = error.__cause__
  return False


def look_at_others(seen: dict[str, float]) -> None:
  """Ends this process too, if another has failed and this one does not by itself.

  Args:
    seen: process -> when it was first seen to have ended; of an earlier call.
  """
  for other, note in barriers.published(_ENDED).items():
    first = seen.setdefault(other, time.monotonic())
    if _leaving is None and time.monotonic() - first > _AGREE_SECONDS / 2:
      ended = json.loads(note)
      said = f"process {other} of {barriers.processes()}: {ended['text']}"
      if not barriers.is_first():
        log.note(said, "error")
      end_at_once(int(ended["status"]), said if barriers.is_first() else "")


def _said_by_first() -> str | None:
  with contextlib.suppress(Exception):  # the first process may be gone
    return str(json.loads(barriers.wait_for_note(f"{_ENDED}/0", _AGREE_SECONDS))["text"])
  return None


def _go(status: int) -> NoReturn:
  """The first process last, for with it goes what the others ask."""
  _note(f"{_GONE}/{barriers.process()}", "")
  if barriers.is_first():
    until = time.monotonic() + _LAST_SECONDS + _AGREE_SECONDS
    with contextlib.suppress(Exception):
      while len(barriers.published(_GONE)) < barriers.processes() and time.monotonic() < until:
        time.sleep(0.05)
  _exit(status)


def _note(key: str, value: str) -> None:
  with contextlib.suppress(Exception):  # the first process may be gone, and with it all notes
    barriers.publish(key, value)


def _exit(status: int) -> NoReturn:
  log.note_end(status)
  locking.let_go_of_all()
  # Not sys.exit: JAX would wait for the others, and threads that hang would be waited for.
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(Exception):
      stream.flush()
  os._exit(status)
