"""Where a benchmark works, what it says meanwhile, and where its results go."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any


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


def write_results(out: str, results: Mapping[str, Any], page: str) -> None:
  """Writes results as JSON and as a page, which is printed too.

  Args:
    out: path without suffix.
    results: of every round.
    page: Markdown.
  """
  os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
  for suffix, content in ((".json", json.dumps(results, indent=1) + "\n"), (".md", page)):
    with open(out + suffix, "w", encoding="utf-8") as file:
      file.write(content)
  print(page)
