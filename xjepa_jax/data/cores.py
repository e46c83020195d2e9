"""The number of cores this process may use, which on a cluster is fewer than the machine has."""

from __future__ import annotations

import os


def usable_cores() -> int:
  """Number of cores this process is bound to, where the system reports it, else all cores."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
