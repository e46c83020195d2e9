"""launch/supervise.sh with real commands: what is started again, when it gives up, how it stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.launch.stand_ins import LAUNCH

# Statuses and steps are taken from a list, one a start; what was done is noted.
PROGRAM = """
import json, os, sys
workdir = os.path.expanduser(sys.argv[1].partition("=")[2])
plan = json.loads(sys.argv[2])
path = os.path.join(workdir, "starts")
starts = int(open(path).read()) if os.path.exists(path) else 0
open(path, "w").write(str(starts + 1))
status, step = plan[starts]
if step is not None:
  open(os.path.join(workdir, "progress.json"), "w").write(json.dumps({"step": step}))
if status == "done":
  os.mkdir(os.path.join(workdir, "encoder"))
  status = 0
sys.exit(status)
"""
WAITING = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"saved\\n"), sys.exit(int(sys.argv[2]))))
print("ready", flush=True)
time.sleep(60)
"""
QUICK = ("--first-wait", "0")


def supervise(
  workdir: Path, plan: str, *options: str, program: str = PROGRAM, flags: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
  command = [sys.executable, "-ISc", program, f"--workdir={workdir}", plan, *flags]
  return subprocess.run(
    ["bash", str(LAUNCH / "supervise.sh"), *options, "--", *command],
    capture_output=True,
    text=True,
    timeout=60,
  )


def starts(workdir: Path) -> int:
  return int((workdir / "starts").read_text())


def test_lost_processes_are_started_again_until_the_run_is_done(tmp_path: Path) -> None:
  plan = '[[13, null], [139, 4], [13, 8], ["done", 12]]'
  ended = supervise(tmp_path, plan, *QUICK, "--failures", "2")
  assert ended.returncode == 0, ended.stderr
  assert starts(tmp_path) == 4
  assert "status 139 at step 4 (1 of 2 failures there)" in ended.stderr


def test_the_directory_of_a_run_may_begin_with_a_home_folder(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setenv("HOME", str(tmp_path))
  (tmp_path / "run").mkdir()
  ended = supervise(Path("~/run"), '[[13, 4], ["done", 12]]', *QUICK)
  assert ended.returncode == 0, ended.stderr
  assert starts(tmp_path / "run") == 2 and "status 13 at step 4" in ended.stderr


def test_it_gives_up_after_so_many_failures_at_the_same_step(tmp_path: Path) -> None:
  plan = "[[13, 2], [13, 6], [13, 6], [13, 6], [0, 8]]"
  ended = supervise(tmp_path, plan, *QUICK, "--failures", "3")
  assert ended.returncode == 13
  assert starts(tmp_path) == 4
  assert "status 13, failure 3 at step 6; giving up" in ended.stderr


@pytest.mark.parametrize("status", [1, 2, 130])
def test_an_error_in_words_is_not_tried_again(tmp_path: Path, status: int) -> None:
  ended = supervise(tmp_path, f"[[{status}, null]]", *QUICK)
  assert ended.returncode == status
  assert starts(tmp_path) == 1


def test_a_command_that_is_not_there_is_not_tried_again() -> None:
  ended = subprocess.run(
    ["bash", str(LAUNCH / "supervise.sh"), "--", "no-such-program"],
    capture_output=True,
    text=True,
    timeout=20,
  )
  assert ended.returncode == 127


def test_saved_before_the_end_is_told_from_done(tmp_path: Path) -> None:
  stopped = supervise(tmp_path, "[[0, 6]]", *QUICK)
  assert stopped.returncode == 75
  assert "the same command continues" in stopped.stderr
  assert starts(tmp_path) == 1


def test_what_does_not_train_ends_with_its_own_status(tmp_path: Path) -> None:
  assert supervise(tmp_path, "[[0, null]]", flags=("--plan",)).returncode == 0


def test_pauses_double_up_to_the_longest(tmp_path: Path) -> None:
  began = time.monotonic()
  plan = "[[13, 1], [13, 1], [13, 1], [13, 1]]"
  options = ("--first-wait", "1", "--longest-wait", "1", "--failures", "3")
  ended = supervise(tmp_path, plan, *options)
  assert ended.stderr.count("again in 1 s") == 2
  assert time.monotonic() - began >= 2


@pytest.mark.parametrize("own", [0, 143])
def test_sigterm_is_passed_on_and_nothing_is_started_again(tmp_path: Path, own: int) -> None:
  command = [sys.executable, "-ISc", WAITING, f"--workdir={tmp_path}", str(own)]
  started = subprocess.Popen(
    ["bash", str(LAUNCH / "supervise.sh"), "--", *command],
    stdout=subprocess.PIPE,
    text=True,
  )
  assert started.stdout is not None
  assert started.stdout.readline() == "ready\n"
  started.send_signal(signal.SIGTERM)
  output, _ = started.communicate(timeout=30)
  assert output == "saved\n"
  assert started.returncode == 75


def test_sigusr1_is_passed_on_and_the_training_goes_on(tmp_path: Path) -> None:
  # A pipe keeps a signal that comes before anything waits for it; signal.pause() would wait on.
  program = "import os, signal, sys\ncame, note = os.pipe()\n"
  program += "signal.signal(signal.SIGUSR1, lambda *_: os.write(note, b'profiled\\n'))\n"
  program += "print('ready', flush=True), os.write(1, os.read(came, 99))"
  program += ", sys.stdin.read(), sys.exit(2)"
  started = subprocess.Popen(
    ["bash", str(LAUNCH / "supervise.sh"), "--", sys.executable, "-ISc", program],
    stdout=subprocess.PIPE,
    text=True,
  )
  assert started.stdout is not None
  assert started.stdout.readline() == "ready\n"
  started.send_signal(signal.SIGUSR1)
  assert started.communicate(timeout=30) == ("profiled\n", None)
  assert started.returncode == 2


def test_sigterm_ends_a_pause(tmp_path: Path) -> None:
  command = [sys.executable, "-ISc", PROGRAM, f"--workdir={tmp_path}", "[[13, 1]]"]
  started = subprocess.Popen(
    ["bash", str(LAUNCH / "supervise.sh"), "--first-wait", "60", "--", *command],
    stderr=subprocess.PIPE,
    text=True,
  )
  assert started.stderr is not None
  assert "again in 60 s" in started.stderr.readline()
  started.send_signal(signal.SIGTERM)
  started.communicate(timeout=20)
  assert started.returncode == 75


def test_ctrl_c_reaches_the_training_and_ends_it(tmp_path: Path) -> None:
  program = "import time, sys\ntry: print('ready', flush=True), time.sleep(60)\n"
  program += "except KeyboardInterrupt: sys.exit(130)"
  started = subprocess.Popen(
    ["bash", str(LAUNCH / "supervise.sh"), "--", sys.executable, "-ISc", program],
    stdout=subprocess.PIPE,
    text=True,
    start_new_session=True,
    # A test that runs in the background may have inherited that Ctrl-C is ignored.
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
  )
  assert started.stdout is not None
  assert started.stdout.readline() == "ready\n"
  os.killpg(started.pid, signal.SIGINT)
  started.communicate(timeout=20)
  assert started.returncode == 130
