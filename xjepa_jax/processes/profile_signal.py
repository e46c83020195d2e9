"""SIGUSR1 requests a profile of a process's next steps.

The handler only sets a flag, which the training loop reads between steps (`training.profiling`).
"""

from __future__ import annotations

import signal

_wanted = False


def heed() -> None:
  """Make SIGUSR1 request a profile, instead of killing the process; call from the main thread.

  `preemption` also sees the signal through its wakeup fd, but reacts to SIGTERM only.
  """
  signal.signal(signal.SIGUSR1, _ask)
  signal.siginterrupt(signal.SIGUSR1, False)  # restart system calls, such as a write in progress


def wanted() -> bool:
  """Whether a profile was requested since the last call; several signals count as one request."""
  global _wanted
  if not _wanted:
    return False
  _wanted = False
  return True


def _ask(*_: object) -> None:
  global _wanted
  _wanted = True
