"""Reading ahead of the devices: many threads, a bounded number of tasks, results in order."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def read_ahead(
  tasks: Iterable[Task], read: Callable[[Task], Result], threads: int, ahead: int
) -> Iterator[Result]:
  """What `read` makes of each task, in the order of the tasks.

  Args:
    tasks: taken one by one, no more than `ahead` before they are needed.
    read: runs in a thread.
    threads: at most this many tasks are read at once.
    ahead: at most this many results wait.

  Raises:
    Whatever `read` raises, at that task's place; later tasks are not begun then.
  """
  waiting: collections.deque[Future[Result]] = collections.deque()
  pool = ThreadPoolExecutor(threads, thread_name_prefix="read")
  try:
    for task in tasks:
      waiting.append(pool.submit(read, task))
      if len(waiting) >= ahead:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
  finally:
    pool.shutdown(wait=True, cancel_futures=True)


class Closes(Protocol):
  """Has something to close."""

  def close(self) -> None:
    """Closes it."""


One = TypeVar("One", bound=Closes)


class PerThread(Generic[One]):
  """One of something for each thread that asks; all are closed together.

  Args:
    make: makes one.
  """

  def __init__(self, make: Callable[[], One]):
    self._make = make
    self._local = threading.local()
    self._lock = threading.Lock()
    self._made: list[One] = []

  def get(self) -> One:
    """This thread's."""
    one: One | None = getattr(self._local, "one", None)
    if one is None:
      one = self._local.one = self._make()
      with self._lock:
        self._made.append(one)
    return one

  def close(self) -> None:
    """Closes all; nobody may be using one."""
    for one in self._made:
      one.close()
    self._made.clear()
