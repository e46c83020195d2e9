"""launch/local.sh with real processes of a stand-in for the trainer."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.stand_ins import LAUNCH

# Called as the interpreter is: -m xjepa_jax.main ARGUMENTS.
TRAINER = """#!{python} -IS
import os, signal, sys, time
flags = dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[3:])
process = int(flags["process"])
if "saves" in flags:
  signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"saved\\n"), sys.exit(0)))
  signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"profiled\\n"))
print(sys.argv[1:], flush=True)
if flags.get("waits") in ("all", str(process)):
  time.sleep(60)
sys.exit(int(flags.get(f"status-{{process}}", 0)))
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
  """With the stand-in as interpreter. The free port is asked of the real one."""
  trainer = tmp_path / "trainer"
  trainer.write_text(TRAINER.format(python=sys.executable))
  python = tmp_path / "python"
  python.write_text(
    f'#!/bin/bash\n[[ $1 == -c ]] && exec {sys.executable} "$@"\nexec {trainer} "$@"\n'
  )
  for path in (trainer, python):
    path.chmod(0o755)
  return {**os.environ, "PYTHON": str(python), "TMPDIR": str(tmp_path)}


def start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
  return subprocess.Popen(
    ["bash", str(LAUNCH / "local.sh"), *arguments],
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )


def finish(started: subprocess.Popen[str]) -> tuple[int, str, str]:
  output, errors = started.communicate(timeout=40)
  return started.returncode, output, errors


def test_two_processes_know_of_each_other_and_their_lines_have_a_number(
  environment: dict[str, str],
) -> None:
  status, output, errors = finish(start(environment, "2", "--", "--config=a.py", "--x=b c"))
  assert status == 0, errors
  found = re.search(r"--coordinator=127\.0\.0\.1:(\d+)", output)
  assert found is not None
  common = (
    f"['-m', 'xjepa_jax.main', '--config=a.py', '--x=b c', '--coordinator=127.0.0.1:{found[1]}'"
  )
  assert sorted(output.splitlines()) == [
    f"[0] {common}, '--processes=2', '--process=0']",
    f"[1] {common}, '--processes=2', '--process=1']",
  ]


def test_the_status_is_the_worst(environment: dict[str, str]) -> None:
  status, _, _ = finish(start(environment, "3", "--", "--status-0=1", "--status-2=13"))
  assert status == 13


def test_one_that_fails_ends_the_others_and_they_do_not_count(environment: dict[str, str]) -> None:
  arguments = ("2", "--grace", "1", "--", "--status-1=13", "--waits=0")
  status, _, errors = finish(start(environment, *arguments))
  assert status == 13, errors


def test_sigterm_reaches_all(environment: dict[str, str]) -> None:
  started = start(environment, "2", "--", "--waits=all", "--saves")
  assert started.stdout is not None
  started.stdout.readline(), started.stdout.readline()
  started.send_signal(signal.SIGTERM)
  status, output, _ = finish(started)
  assert sorted(output.splitlines()) == ["[0] saved", "[1] saved"]
  assert status == 0


def test_sigusr1_reaches_all_and_ends_none(environment: dict[str, str]) -> None:
  started = start(environment, "2", "--", "--waits=all", "--saves")
  assert started.stdout is not None
  started.stdout.readline(), started.stdout.readline()
  started.send_signal(signal.SIGUSR1)
  said = {started.stdout.readline(), started.stdout.readline()}
  assert said == {"[0] profiled\n", "[1] profiled\n"}
  started.send_signal(signal.SIGTERM)
  assert finish(started)[0] == 0


def test_delete_stops_the_run_of_that_name(environment: dict[str, str]) -> None:
  started = start(environment, "2", "--name", "try", "--", "--waits=all", "--saves")
  assert started.stdout is not None
  lines = [started.stdout.readline(), started.stdout.readline()]
  assert all("--workdir=runs/try" in line for line in lines)
  status, _, _ = finish(start(environment, "--delete", "--name", "try"))
  assert status == 0
  status, output, _ = finish(started)
  assert sorted(output.splitlines()) == ["[0] saved", "[1] saved"]
  status, _, errors = finish(start(environment, "--delete", "--name", "try"))
  assert status == 0 and "no run 'try'" in errors


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (("--", "--config=a.py"), "how many processes"),
    (("two", "--", "--config=a.py"), "from 1"),
    (("65", "--", "--config=a.py"), "not for one machine"),
    (("2", "--name", "My run"), "for example 'my-run'"),
  ],
)
def test_what_cannot_work_is_refused(
  environment: dict[str, str], arguments: tuple[str, ...], said: str
) -> None:
  status, output, errors = finish(start(environment, *arguments))
  assert status == 2 and said in errors and not output
