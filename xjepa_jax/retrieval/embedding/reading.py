"""Reads ahead of the devices with many threads, a bounded number of tasks, and ordered results.

Order matters because the bytes of a part must not depend on how fast its tiles are read. The bound
limits the memory that waiting results take.
"""

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
  """Results of `read`, in the order of the tasks.

  Args:
    tasks: taken one by one, at most `ahead` before they are needed.
    read: runs in a thread.
    threads: number of tasks that are read at once.
    ahead: maximum number of results that wait to be taken.

  Raises:
    Whatever `read` raises, when that task's turn comes; later tasks are not started.
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
    # Also reached if a task fails or the consumer stops early.
    pool.shutdown(wait=True, cancel_futures=True)


class Closes(Protocol):
  """Anything with a `close` method."""

  def close(self) -> None:
    """Releases what is held."""


One = TypeVar("One", bound=Closes)


class PerThread(Generic[One]):
  """One object per thread, created on first use; all are closed together.

  Args:
    make: creates an object.
  """

  def __init__(self, make: Callable[[], One]):
    self._make = make
    self._local = threading.local()
    self._lock = threading.Lock()
    self._made: list[One] = []

  def get(self) -> One:
    """The object of the calling thread."""
    one: One | None = getattr(self._local, "one", None)
    if one is None:
      one = self._local.one = self._make()
      with self._lock:
        self._made.append(one)
    return one

  def close(self) -> None:
    """Closes all objects; none may be in use."""
    for one in self._made:
      one.close()
    self._made.clear()
