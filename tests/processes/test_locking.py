"""One process at a time has a lock; a killed one's is free, another host's is not guessed about."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from xjepa_jax.errors import InUseError
from xjepa_jax.processes import locking

HOLDING = """
import sys
from xjepa_jax.processes import locking
with locking.holding(sys.argv[1], "the directory"):
  print("held", flush=True)
  sys.stdin.read()
"""
ENDING = """
import sys
from xjepa_jax.processes import shutdown, locking
with locking.holding(sys.argv[1], "the directory"):
  shutdown.end_at_once(13)
"""


def holder(path: Path) -> subprocess.Popen[str]:
  """A process that has the lock."""
  line = [sys.executable, "-c", HOLDING, str(path)]
  process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  assert process.stdout is not None and process.stdout.readline() == "held\n"
  return process


def end(process: subprocess.Popen[str]) -> None:
  process.kill()
  process.communicate()


def test_a_second_process_is_refused_by_the_first_ones_host_and_number(tmp_path: Path) -> None:
  path = tmp_path / "run.lock"
  first = holder(path)
  try:
    with (
      pytest.raises(InUseError, match="the directory is in use by") as error,
      locking.holding(str(path), "the directory"),
    ):
      pass
    assert f"process {first.pid} on {socket.gethostname()} " in str(error.value)
    assert json.loads(path.read_text())["pid"] == first.pid
  finally:
    end(first)


def test_what_a_killed_process_left_is_taken_over_though_its_number_may_live_again(
  tmp_path: Path,
) -> None:
  path = tmp_path / "run.lock"
  end(holder(path))
  left = json.loads(path.read_text())
  path.write_text(json.dumps({**left, "pid": os.getppid()}))
  with locking.holding(str(path), "the directory"):
    assert json.loads(path.read_text())["pid"] == os.getpid()
  assert not path.exists()


def test_a_process_that_ends_at_once_leaves_no_lock(tmp_path: Path) -> None:
  path = tmp_path / "run.lock"
  ended = subprocess.run([sys.executable, "-c", ENDING, str(path)], timeout=60)
  assert ended.returncode == 13 and not path.exists()


def test_of_many_that_begin_at_once_on_a_dead_ones_lock_one_gets_it(tmp_path: Path) -> None:
  path = tmp_path / "run.lock"
  end(holder(path))
  line = [sys.executable, "-c", HOLDING, str(path)]
  racing = [
    subprocess.Popen(
      line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for _ in range(6)
  ]
  refused = held = 0
  try:
    while refused < 5:  # the one that holds it waits for its input to end
      refused = sum(process.poll() is not None for process in racing)
  finally:
    for process in racing:
      said, wrong = process.communicate()
      held += said == "held\n"
      assert said or "InUseError" in wrong
  assert held == 1


def test_another_hosts_lock_is_refused_with_the_file_to_remove_and_removing_it_helps(
  tmp_path: Path,
) -> None:
  path = tmp_path / "run.lock"
  path.write_text(json.dumps({"host": "elsewhere", "pid": 7, "job": "", "began": "2026-05-04"}))
  with (
    pytest.raises(InUseError, match=r"process 7 on elsewhere \(began 2026-05-04\)") as error,
    locking.holding(str(path), "the directory"),
  ):
    pass
  assert f"remove {path} and start again" in str(error.value)
  path.unlink()
  with locking.holding(str(path), "the directory"):
    pass


@pytest.mark.parametrize("job", ["17", "18"])
def test_a_slurm_job_that_queued_again_takes_over_from_its_own_earlier_start_alone(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
  path = tmp_path / "run.lock"
  path.write_text(json.dumps({"host": "elsewhere", "pid": 7, "job": "17", "began": "2026-05-04"}))
  monkeypatch.setenv("SLURM_JOB_ID", job)
  lock = locking.holding(str(path), "the directory")
  if job == "17":
    with lock:
      assert json.loads(path.read_text())["host"] == socket.gethostname()
  else:
    with pytest.raises(InUseError), lock:
      pass


@pytest.mark.parametrize("lives", [True, False])
def test_where_a_file_system_has_no_locks_the_number_of_the_process_is_asked_for(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lives: bool
) -> None:
  def unsupported(handle: int, operation: int) -> None:
    raise OSError(38, "Function not implemented")

  path = tmp_path / "run.lock"
  first = holder(path)
  monkeypatch.setattr("fcntl.flock", unsupported)
  if not lives:
    end(first)
  lock = locking.holding(str(path), "the directory")
  try:
    if lives:
      with pytest.raises(InUseError, match=f"process {first.pid} on "), lock:
        pass
    else:
      with lock:
        assert json.loads(path.read_text())["pid"] == os.getpid()
  finally:
    end(first)


def test_a_directory_in_the_place_of_a_lock_is_named_and_removing_it_helps(tmp_path: Path) -> None:
  path = tmp_path / "run.lock"
  path.mkdir()
  with (
    pytest.raises(InUseError, match=r"run\.lock: is a directory.*Remove it"),
    locking.holding(str(path), "the directory"),
  ):
    pass
  path.rmdir()
  with locking.holding(str(path), "the directory"):
    assert path.is_file()
