"""A process that is alone waits for nobody, stops at the next step, and is watched all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from xjepa_jax.processes import barriers, preemption, watchdog

STOPPING = """
import os, signal, time
from xjepa_jax.processes import preemption
with preemption.heeding():
  {before}
  with preemption.stepping():
    for step in range({steps}):
      if preemption.agreed(step):
        break
      if step == {at}:
        os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(0.001)
  print("saved")
  {after}
"""
WATCHED = """
import sys, time
from xjepa_jax.processes import watchdog
with watchdog.watching(0.5, sys.argv[1]):
  watchdog.advanced(1)
  for _ in range(20):
    time.sleep(0.05)
    watchdog.advanced()
  print("advanced", flush=True)
  watchdog.advanced(2)
  time.sleep(60)
"""


def ended(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
  line = [sys.executable, "-c", program, *arguments]
  return subprocess.run(line, capture_output=True, text=True, timeout=50, check=False)


def test_without_others_barriers_are_passed_and_nothing_is_agreed_or_watched() -> None:
  barriers.wait_for_all("nobody", 0.001)
  assert barriers.is_first() and barriers.processes() == 1
  watchdog.advanced(3)
  with preemption.stepping():
    assert not preemption.agreed(3)


def test_sigterm_between_steps_ends_the_step_that_saves() -> None:
  found = ended(STOPPING.format(before="pass", steps=10**9, at=2, after="pass"))
  assert (found.returncode, found.stdout, found.stderr) == (0, "saved\n", "")


def test_sigterm_after_the_last_step_ends_at_once() -> None:
  after = "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"
  found = ended(STOPPING.format(before="pass", steps=3, at=-1, after=after))
  assert (found.returncode, found.stdout) == (0, "saved\n")
  assert found.stderr.startswith("stopped by SIGTERM: what was trained is saved")


def test_sigterm_before_the_first_step_ends_at_once_even_if_the_main_thread_is_busy() -> None:
  # In C for minutes, as a compiler is; a signal's Python handler runs only when that returns.
  long = "hashlib.pbkdf2_hmac('sha256', b'a', b'b', 10**9)"
  before = f"import hashlib; os.kill(os.getpid(), signal.SIGTERM); {long}"
  found = ended(STOPPING.format(before=before, steps=3, at=-1, after="pass"))
  assert (found.returncode, found.stdout) == (0, "")


def test_handlers_of_signals_are_given_back() -> None:
  before = signal.getsignal(signal.SIGTERM)
  with preemption.heeding():
    assert signal.getsignal(signal.SIGTERM) != before
  assert signal.getsignal(signal.SIGTERM) == before


def test_the_watchdog_ends_what_does_not_advance_and_shows_where_it_hangs(tmp_path: Path) -> None:
  found = ended(WATCHED, str(tmp_path))
  assert (found.returncode, found.stdout) == (13, "advanced\n")
  *_, line = found.stderr.splitlines()
  path = os.path.join(tmp_path, "hang-process-0.txt")
  assert line.startswith("step 2 has not advanced for 0.5 s (processes.hang_seconds); ")
  assert path in line
  for stacks in (found.stderr, Path(path).read_text()):
    assert 'File "<string>", line 11 in <module>' in stacks
