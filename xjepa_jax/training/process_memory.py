"""Memory of this process, as the system counts it: Linux; elsewhere nothing is known or done."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util


def resident() -> int:
  """Bytes of physical memory that the process has now; 0 where that is not known."""
  return _status("VmRSS")


def peak_resident() -> int:
  """The most that it ever had; 0 where that is not known."""
  return _status("VmHWM")


def give_back() -> None:
  """Gives memory that was freed back to the system.

  Compiling a train step leaves half a gigabyte of small pieces that were freed and that the C
  library keeps, while the arrays of a step, which are large, get pages of their own.
  """
  with contextlib.suppress(AttributeError, OSError):  # of another C library
    ctypes.CDLL(ctypes.util.find_library("c")).malloc_trim(0)


def _status(key: str) -> int:
  try:
    with open("/proc/self/status", encoding="ascii") as file:
      for line in file:
        name, _, value = line.partition(":")
        if name == key:
          return int(value.split()[0]) * 1024
  except OSError:
    pass
  return 0
