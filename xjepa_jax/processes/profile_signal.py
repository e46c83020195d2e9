"""SIGUSR1 to a process: a profile of its next steps is wanted."""

from __future__ import annotations

import signal

_wanted = False


def heed() -> None:
  """From here on SIGUSR1 asks, where it would kill; to be called by the main thread.

  Beside `stopping` it goes unnoticed: that listens for SIGTERM alone.
  """
  signal.signal(signal.SIGUSR1, _ask)
  signal.siginterrupt(signal.SIGUSR1, False)  # no file that is being written is disturbed


def wanted() -> bool:
  """Whether a profile was asked for since the last call; several signals are one wish."""
  global _wanted
  if not _wanted:
    return False
  _wanted = False
  return True


def _ask(*_: object) -> None:
  global _wanted
  _wanted = True
