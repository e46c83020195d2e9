"""Starts a measurement in a process of its own and watches its memory."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers.process_tree import PeakMemory

_LOOK_SECONDS = 0.05
INSTALL = "pip install -r benchmarks/requirements.txt"


@dataclasses.dataclass(frozen=True)
class Competitor:
  """What is measured.

  Attributes:
    title: of its row in a table.
    module: one of `measure.COMPETITORS`.
    directory: that it reads.
    size: of an image in pixels.
    options: of its `batches`.
    needs: the package that it cannot do without, or "".
  """

  title: str
  module: str
  directory: str
  size: int = 120
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  needs: str = ""

  def missing(self) -> str | None:
    """What to tell whoever lacks its package, or None."""
    if self.needs and importlib.util.find_spec(self.needs) is None:
      return f"{self.title}: skipped, {self.needs} is not installed ({INSTALL})"
    return None


def measure(competitor: Competitor, seconds: float, least: int = 0) -> dict[str, float]:
  """One round: what `measure.measure` returns, and the peaks of memory in bytes.

  Args:
    competitor: what to measure.
    seconds: how long, after the warm-up.
    least: pairs to read, if that takes longer.
  """
  return _run([*_command(competitor), "--seconds", str(seconds), "--least", str(least)])


def digests(competitor: Competitor) -> list[str]:
  """What identifies the pixels of each pair of a competitor's first batch."""
  return _run([*_command(competitor), "--digests"])["output"]


def run_module(module: str, *arguments: str) -> dict[str, Any]:
  """The line of JSON that a module prints, with the peaks of its process's memory in bytes."""
  return _run([sys.executable, "-m", module, *arguments])


def _command(competitor: Competitor) -> list[str]:
  return [
    *(sys.executable, "-m", "benchmarks.peers.measure", competitor.module, competitor.directory),
    *("--size", str(competitor.size), "--options", json.dumps(dict(competitor.options))),
  ]


def _run(command: Sequence[str]) -> dict[str, Any]:
  root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
  with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
    peak = PeakMemory(process.pid)
    while process.poll() is None:
      peak.look()
      time.sleep(_LOOK_SECONDS)
    printed = process.stdout.read() if process.stdout else ""
  if process.returncode:
    raise RuntimeError(f"{' '.join(command)}: ended with status {process.returncode}")
  found = json.loads(printed.splitlines()[-1])
  result = found if isinstance(found, dict) else {"output": found}
  return {"resident": peak.resident, "anonymous": peak.anonymous, **result}
