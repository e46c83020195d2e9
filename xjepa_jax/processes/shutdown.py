"""Ending a process so that all end, with one paragraph for a common error and nobody left waiting.

Exit statuses: 0 done, or stopped and saved; 1 an error, explained in one paragraph; 13 another
process was lost or nothing progressed, and the same command continues; 130 interrupted.
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
_AGREE_SECONDS = 10.0  # time for processes with the same error to notice each other
_LAST_SECONDS = 10.0  # the first process holds the key-value store, and waits for others
_OF_OTHERS = ("JaxRuntimeError", "XlaRuntimeError")  # class names of everything that XLA raises
_leaving: int | None = None  # the status with which this process is about to end
_untold = ""  # the reason, while the first process may still print the same one


def leaving() -> tuple[int | None, str]:
  """The status with which this process is ending, or None; and the reason not yet printed."""
  return _leaving, _untold


def fail(status: int, text: str) -> int:
  """Print why this process ends, and inform the other processes.

  The first process prints the text. Another prints it, with its own number, only if it differs from
  that of the first.

  Args:
    status: exit status, not 0.
    text: one paragraph.

  Returns:
    The status, if this process is alone. Otherwise the process exits here.
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
  """End this process from any thread, whatever its main thread is waiting for."""
  global _leaving
  _leaving = status
  if text:
    log.note(text, "error" if status else "info")
    print(text, file=sys.stderr, flush=True)
  if barriers.connected() and status != LOST:
    _go(status)
  _exit(status)


def fail_for_others(error: Exception, lost_seconds: float) -> int:
  """Like `fail`, for an error that the end of another process may have caused.

  A collective or a barrier often fails before the coordination service notices which process was
  lost. This process therefore waits for the cause: in the meantime, `lost_processes` or
  `look_at_others` may end it.

  Args:
    error: the exception just caught.
    lost_seconds: as given to `cluster.join`.
  """
  ours = isinstance(error, XJepaError)
  text = f"error: {error}" if ours else "".join(traceback.format_exception(error)).rstrip()
  if not _may_come_of_others(error):
    return fail(1, text)
  until = time.monotonic() + lost_seconds + _AGREE_SECONDS
  seen: dict[str, float] = {}
  while barriers.connected() and time.monotonic() < until:
    with contextlib.suppress(Exception):  # the first process, with the store, may be gone
      look_at_others(seen)
    time.sleep(0.2)
  return fail(1 if ours and not isinstance(error, LostError) else LOST, text)


def _may_come_of_others(error: BaseException | None) -> bool:
  """Whether the error, or one of its causes, comes from a collective, a barrier or a wait."""
  while error is not None:
    if isinstance(error, LostError):
      return True
    if type(error).__name__ in _OF_OTHERS and "RESOURCE_EXHAUSTED" not in str(error):
      return barriers.processes() > 1
    error = error.__cause__
  return False


def look_at_others(seen: dict[str, float]) -> None:
  """End this process if another has failed and this one does not end by itself.

  Args:
    seen: process -> when its failure was first noticed; kept between calls.
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
  """Exit; the first process exits last, because the key-value store ends with it."""
  _note(f"{_GONE}/{barriers.process()}", "")
  if barriers.is_first():
    until = time.monotonic() + _LAST_SECONDS + _AGREE_SECONDS
    with contextlib.suppress(Exception):
      while len(barriers.published(_GONE)) < barriers.processes() and time.monotonic() < until:
        time.sleep(0.05)
  _exit(status)


def _note(key: str, value: str) -> None:
  with contextlib.suppress(Exception):  # the first process, with the store, may be gone
    barriers.publish(key, value)


def _exit(status: int) -> NoReturn:
  log.note_end(status)
  locking.let_go_of_all()
  # Not sys.exit, after which JAX would wait for the other processes, and Python for hung threads.
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(Exception):
      stream.flush()
  os._exit(status)
