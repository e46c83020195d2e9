"""A command that is killed in chosen phases and started again, until nothing is left to be done."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.fault.phases import Phase, is_beside_the_point
from tests.fault.watching import Watch

_POLL_SECONDS = 0.2  # between looks at whether the command has ended by itself
_KILLED = -signal.SIGKILL


@dataclasses.dataclass(frozen=True)
class Aim:
  """When to kill: `share` of the usual time of a phase after it has begun for the n-th time."""

  phase: str
  turn: int
  share: float


@dataclasses.dataclass(frozen=True)
class Kill:
  """A kill that hit: the phase that was aimed at and the one that it fell into."""

  aimed: str
  landed: str
  seconds: float  # since the command was started


@dataclasses.dataclass
class Command:
  """What is started again and again.

  Attributes:
    name: of the files that keep what its starts say.
    line, environment, cwd: as `subprocess` takes them.
    folder: holds all that the command writes; what it says is kept there too.
    seconds: that one start may take.
    usual: phase -> seconds that it took last; learnt.
  """

  name: str
  line: Sequence[str]
  environment: Mapping[str, str]
  cwd: Path
  folder: Path
  seconds: float = 600
  usual: dict[str, float] = dataclasses.field(default_factory=dict)
  starts: int = 0

  def said(self) -> str:
    """What the last start said."""
    return self._said.read_text()

  @property
  def _said(self) -> Path:
    return self.folder / f"{self.name}-{self.starts}.txt"

  def run(self, aim: Aim | None = None) -> tuple[int, Kill | None]:
    """Starts the command, and kills it where that is wanted.

    Returns:
      Its status, and the kill, if it has not ended before.

    Raises:
      TimeoutError: it neither ended nor came to where it was to be killed; it is killed.
    """
    self.starts += 1
    with Watch(self.folder, is_beside_the_point) as watch, open(self._said, "wb") as file:
      process = subprocess.Popen(
        self.line, env=self.environment, cwd=self.cwd, stdout=file, stderr=subprocess.STDOUT
      )
      try:
        return self._follow(process, watch, aim)
      finally:
        process.kill()
        process.wait()

  def _follow(
    self, process: subprocess.Popen[bytes], watch: Watch, aim: Aim | None
  ) -> tuple[int, Kill | None]:
    phase, begun = Phase(), time.monotonic()
    entered, turns, due = begun, 0, None
    before = ""
    while process.poll() is None:
      now = time.monotonic()
      if due is not None and now >= due:
        break
      if now > begun + self.seconds:
        raise TimeoutError(f"{' '.join(self.line)}: in the phase {phase.name!r}: {self.said()}")
      for name in [phase.name, *phase.follow(watch.events(min(_POLL_SECONDS, _left(due, now))))]:
        if name != before:
          if before:
            self.usual[before] = time.monotonic() - entered
          before, entered = name, time.monotonic()
          if aim is not None and name == aim.phase:
            turns += 1
            if turns == aim.turn:
              due = entered + aim.share * self.usual.get(name, 0.2)
    if process.poll() is not None or aim is None:
      return process.returncode, None
    process.kill()
    seconds = time.monotonic() - begun
    status = process.wait()
    for _ in phase.follow(watch.events(0)):  # what it did until it was gone
      pass
    return status, Kill(aim.phase, phase.name, seconds) if status == _KILLED else None


def _left(due: float | None, now: float) -> float:
  return _POLL_SECONDS if due is None else due - now


def environment(**more: str) -> dict[str, str]:
  """Of a process whose threads do not wait for each other on two cores."""
  return {**os.environ, "JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1", **more}
