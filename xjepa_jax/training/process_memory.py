"""Memory of this process as Linux counts it; other systems report 0 and give nothing back."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util


def resident() -> int:
  """Return the bytes of physical memory that the process has now; 0 where unknown."""
  return _status("VmRSS")


def peak_resident() -> int:
  """Return the most physical memory that the process has ever had; 0 where unknown."""
  return _status("VmHWM")


def give_back() -> None:
  """Return freed memory to the system.

  Compiling a train step leaves half a gigabyte of small freed pieces in the C library's heap, which
  the arrays of a step cannot use: they are large and get pages of their own.
  """
  with contextlib.suppress(AttributeError, OSError):  # a C library other than glibc
    ctypes.CDLL(ctypes.util.find_library("c")).malloc_trim(0)


def _status(key: str) -> int:
  try:
    with open("/proc/self/status", encoding="ascii") as file:
      for line in file:
        name, _, value = line.partition(":")
        if name == key:
          return int(value.split()[0]) * 1024  # the kernel writes kB and means KiB
  except OSError:
    pass
  return 0
