"""Memory and processor time of a process and its children, from Linux's /proc."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_TICKS = os.sysconf("SC_CLK_TCK")


class PeakMemory:
  """The most memory that a process and its children held, looked at again and again.

  Args:
    pid: of the process.

  Attributes:
    anonymous: bytes, the highest sum of RssAnon seen: memory of their own, without mapped files
      and without what they share with one another.
  """

  def __init__(self, pid: int):
    self.pid = pid
    self.anonymous = 0
    self._high_water: dict[int, int] = {}

  @property
  def resident(self) -> int:
    """Bytes, the sum of each one's VmHWM: of resident pages at its own peak, mapped files too."""
    return sum(self._high_water.values())

  def look(self) -> None:
    """Takes note of the present state."""
    anonymous = 0
    for pid in tree(self.pid):
      status = _status(pid)
      anonymous += status.get("RssAnon", 0)
      high_water = status.get("VmHWM", 0)
      self._high_water[pid] = max(self._high_water.get(pid, 0), high_water)
    self.anonymous = max(self.anonymous, anonymous)


def high_water(pid: int) -> int:
  """Bytes, VmHWM: the most resident pages that one process ever had, mapped files too."""
  return _status(pid).get("VmHWM", 0)


def proportional(pid: int) -> int:
  """Bytes, Pss of a process and its children: what several map counts once, in equal shares."""
  size = 0
  for each in tree(pid):
    with contextlib.suppress(OSError), open(f"/proc/{each}/smaps_rollup", encoding="ascii") as file:
      size += sum(1024 * int(line.split()[1]) for line in file if line.startswith("Pss:"))
  return size


def cpu_seconds(pid: int) -> float:
  """Processor seconds, user and system, that a process and its living children have used."""
  ticks = 0
  for each in tree(pid):
    with contextlib.suppress(OSError), open(f"/proc/{each}/stat", encoding="ascii") as file:
      fields = file.read().rpartition(")")[2].split()
      ticks += int(fields[11]) + int(fields[12])
  return ticks / _TICKS


def tree(pid: int) -> Iterator[int]:
  """A process and all that descend from it."""
  yield pid
  with contextlib.suppress(OSError):
    for thread in os.listdir(f"/proc/{pid}/task"):
      with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
        children = file.read().split()
      for child in children:
        yield from tree(int(child))


def _status(pid: int) -> dict[str, int]:
  """The sizes in /proc/PID/status, in bytes; none of a process that has ended."""
  sizes = {}
  with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="utf-8") as file:
    for line in file:
      name, _, value = line.partition(":")
      if value.endswith(" kB\n"):
        sizes[name] = int(value[:-4]) * 1024
  return sizes
