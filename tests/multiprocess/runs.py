"""The main command as several real processes on loopback, and what they leave."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.multiprocess.test_batches import free_port

ROOT = Path(__file__).resolve().parents[2]
DEVICES = 4  # of all processes together
SECONDS = 400.0  # for anything, on a machine that is busy with something else


def environment(compiled: str, processes: int) -> dict[str, str]:
  """Of each of so many processes, so that what one run compiled serves the next."""
  return {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES // processes}",
    "JAX_COMPILATION_CACHE_DIR": compiled,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
  }


class Run:
  """Processes of one command; their output goes to files, for a full pipe would stop them."""

  def __init__(
    self, folder: Path, arguments: Sequence[Sequence[str]], compiled: str, processes: int
  ):
    self.workdir = folder / "run"
    port = free_port()
    self.said = [
      folder / f"{time.monotonic_ns()}-{process}-{processes}.txt" for process in range(processes)
    ]
    self.processes = [
      self._start(process, processes, port, arguments[process], compiled)
      for process in range(processes)
    ]

  def _start(
    self, process: int, processes: int, port: int, arguments: Sequence[str], compiled: str
  ) -> subprocess.Popen[bytes]:
    flags = [f"--coordinator=127.0.0.1:{port}", f"--processes={processes}", f"--process={process}"]
    line = [sys.executable, "-m", "xjepa_jax.main", f"--workdir={self.workdir}", *arguments]
    with open(self.said[process], "wb") as file:
      return subprocess.Popen(
        [*line, *(flags if processes > 1 else [])],
        cwd=ROOT,
        env={**os.environ, **environment(compiled, processes)},
        stdout=file,
        stderr=subprocess.STDOUT,
      )

  def text(self, process: int = 0) -> str:
    return self.said[process].read_text()

  def wait_for(self, condition: Callable[[], bool]) -> None:
    """Until something holds; fails if a process ends first."""
    end = time.monotonic() + SECONDS
    while not condition():
      ended = any(process.poll() is not None for process in self.processes)
      assert not ended and time.monotonic() < end, self._told()
      time.sleep(0.01)

  def wait_for_step(self, step: int) -> None:
    """Until a step's loss is written."""
    self.wait_for(lambda: max(losses(self.workdir), default=0) >= step)

  def signal(self, process: int, number: signal.Signals) -> float:
    """Sends a signal; when."""
    self.processes[process].send_signal(number)
    return time.monotonic()

  def statuses(self) -> list[int]:
    """Of all processes, when they have ended."""
    return [process.wait(SECONDS) for process in self.processes]

  def _told(self) -> str:
    """Statuses and words of all, a little later: others of them are about to end too."""
    time.sleep(10)
    return "\n".join(
      f"process {number}: status {process.poll()}\n{self.text(number)}"
      for number, process in enumerate(self.processes)
    )

  def end(self) -> None:
    for process in self.processes:
      with contextlib.suppress(ProcessLookupError):
        process.kill()
      process.wait()


@contextlib.contextmanager
def running(
  folder: Path, pairs: str, compiled: str, processes: int, *arguments: str, last: str = ""
) -> Iterator[Run]:
  """A run of the debug config in `folder`/run; none of its processes outlives the block.

  Args:
    folder: its own.
    pairs: directory of the data set.
    compiled: directory of the compilation cache.
    processes: how many.
    arguments: more of them.
    last: one more, of the last process alone.
  """
  common = [f"--config=tests/debug_config.py:{pairs}", *arguments]
  each = [[*common, *([last] if last and i == processes - 1 else [])] for i in range(processes)]
  run = Run(folder, each, compiled, processes)
  try:
    yield run
  finally:
    run.end()


def rows(workdir: Path) -> list[dict[str, Any]]:
  """Whole lines of a `metrics.jsonl` that may still be written."""
  path = workdir / "metrics.jsonl"
  lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
  return [json.loads(line) for line in lines if line.endswith(b"\n")]


def losses(workdir: Path) -> dict[int, float]:
  """step -> loss."""
  return {row["step"]: row["loss/total"] for row in rows(workdir) if "loss/total" in row}


def checkpoints(workdir: Path) -> list[int]:
  """Steps of the checkpoints that are whole."""
  return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdecimal())
