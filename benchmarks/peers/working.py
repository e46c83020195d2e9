"""Where a benchmark works, and what it says meanwhile."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def directory(work: str | None, name: str) -> Iterator[str]:
  """The directory given, which is kept and used again, or one that is removed at the end.

  Args:
    work: from the command line, or None.
    name: of the benchmark, in the name of the directory that is removed.
  """
  if work:
    os.makedirs(work, exist_ok=True)
    yield os.path.abspath(work)
  else:
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as made:
      yield made


def say(line: str) -> None:
  """Prints a line at once."""
  print(line, flush=True)
