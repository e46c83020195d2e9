"""What runs on the workers of a slice, for real in a home of its own; mounting is a stand-in's."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.launch.stand_ins import LAUNCH, ROOT, Finished, StandIns

# Called as the interpreter of ~/xjepa_jax.venv: -m xjepa_jax.main --workdir=... ARGUMENTS.
TRAINER = """#!{python} -IS
import os, signal, sys, time
flags = dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[3:])
os.makedirs(flags["workdir"], exist_ok=True)
signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"saved\\n"), sys.exit(0)))
print(sys.argv[1:], os.environ["JAX_COORDINATOR_PORT"], flush=True)
time.sleep(float(flags.get("waits", 0)))
os.makedirs(flags["workdir"] + "/encoder", exist_ok=True)
sys.exit(int(flags.get("status", 0)))
"""
STARTED = ("start", "--name", "my-run", "--shared", "none", "--")


class Worker:
  """A home with an interpreter that stands in for the trainer."""

  def __init__(self, home: Path, stand_ins: StandIns):
    self.home, self._stand_ins = home, stand_ins
    python = home / "xjepa_jax.venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(TRAINER.format(python=sys.executable))
    python.chmod(0o755)

  def __call__(self, *arguments: str) -> Finished:
    return self._stand_ins.run("worker/training.sh", *arguments, HOME=str(self.home))

  def state_becomes(self, expected: str) -> None:
    until = time.monotonic() + 30
    while (state := self("state").output.strip()) != expected:
      assert time.monotonic() < until, f"{state}, not {expected}: {self.log()}"
      time.sleep(0.1)

  def log(self) -> str:
    path = self.home / "xjepa_jax.run" / "log"
    return path.read_text() if path.exists() else ""


@pytest.fixture
def worker(tmp_path: Path, stand_ins: StandIns) -> Worker:
  home = tmp_path / "home"
  return Worker(home, stand_ins)


def test_a_training_goes_on_apart_and_its_end_is_known(worker: Worker) -> None:
  worker.state_becomes("NONE")
  assert worker(*STARTED, "--config=a.py", "--x=('b c',)").status == 0
  worker.state_becomes("DONE")
  workdir = worker.home / "xjepa_jax.run" / "results" / "my-run"
  expected = ["-m", "xjepa_jax.main", f"--workdir={workdir}", "--config=a.py", "--x=('b c',)"]
  assert f"{expected} 8476" in worker.log()


def test_again_is_the_same_command(worker: Worker) -> None:
  worker(*STARTED, "--config=a.py", "--x=('b c',)")
  worker.state_becomes("DONE")
  assert worker("again").status == 0
  worker.state_becomes("DONE")
  first, second = [line for line in worker.log().splitlines() if "xjepa_jax.main" in line]
  assert first == second


def test_one_at_a_time_and_stop_saves(worker: Worker) -> None:
  worker(*STARTED, "--config=a.py", "--waits=60")
  until = time.monotonic() + 30
  while "xjepa_jax.main" not in worker.log():
    assert time.monotonic() < until
    time.sleep(0.1)
  worker.state_becomes("RUNNING")
  second = worker(*STARTED, "--config=b.py")
  assert second.status == 2 and "is running here" in second.errors
  assert worker("stop").status == 0
  worker.state_becomes("STOPPED")
  assert "saved" in worker.log()
  assert "--config=a.py" in (worker.home / "xjepa_jax.run" / "command").read_text()


def test_an_error_in_words_is_a_failure(worker: Worker) -> None:
  worker(*STARTED, "--config=a.py", "--status=1")
  worker.state_becomes("FAILED 1")


def test_a_bucket_is_mounted_so_that_workers_see_each_others_files(worker: Worker) -> None:
  started = worker("start", "--name", "my-run", "--shared", "gs://bucket/", "--", "--config=a.py")
  assert started.status == 0, started.errors
  (mounted,) = started.calls
  assert mounted[0] == "gcsfuse" and mounted[-2:] == [
    "bucket",
    str(worker.home / "xjepa_jax.shared"),
  ]
  assert "--metadata-cache-ttl-secs=0" in mounted
  worker.state_becomes("DONE")
  assert f"--workdir={worker.home}/xjepa_jax.shared/my-run" in worker.log()


def test_a_share_of_nfs_is_mounted(worker: Worker, stand_ins: StandIns) -> None:
  (stand_ins.folder / "mount.nfs").symlink_to(stand_ins.folder / "sudo")
  started = worker("start", "--name", "my-run", "--shared", "10.0.0.2:/runs", "--", "--config=a.py")
  mounted = str(worker.home / "xjepa_jax.shared")
  assert started.calls == [["sudo", "mount", "-t", "nfs", "10.0.0.2:/runs", mounted]]
  worker.state_becomes("DONE")


def test_nothing_to_go_on_with_is_said(worker: Worker) -> None:
  assert "nothing was started here" in worker("again").errors
  assert "no training is running" in worker("stop").errors


def test_installing_takes_the_constraints_of_the_python_and_the_extra_of_the_devices(
  tmp_path: Path, stand_ins: StandIns
) -> None:
  name = "constraints-py311.txt" if sys.version_info < (3, 12) else "constraints.txt"
  python = tmp_path / "venv" / "bin" / "python"
  python.parent.mkdir(parents=True)
  python.symlink_to(sys.executable)
  for devices, extras in (("tpu", "tpu,gcs"), ("gpu", "gpu,gcs"), ("cpu", "gcs")):
    printed = stand_ins.run(
      "worker/install.sh", "--dry-run", devices, VENV=str(tmp_path / "venv"), HOME=str(tmp_path)
    )
    assert shlex.split(printed.output) == [
      *[str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"],
      *["--constraint", name, "--editable", f".[{extras}]"],
    ]
    assert (ROOT / name).exists()
  refused = stand_ins.run("worker/install.sh", "tpus", HOME=str(tmp_path))
  assert refused.status == 2 and "did you mean 'tpu'" in refused.errors


def test_where_no_python_is_new_enough_uv_brings_one(tmp_path: Path) -> None:
  folder = tmp_path / "bin"
  folder.mkdir()
  for name in ("python3.13", "python3.12", "python3.11", "python3"):
    (folder / name).write_text("#!/bin/bash\nexit 1\n")  # cannot make environments
    (folder / name).chmod(0o755)
  printed = subprocess.run(
    ["bash", str(LAUNCH / "worker/install.sh"), "--dry-run", "tpu"],
    env={"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(tmp_path)},
    capture_output=True,
    text=True,
    timeout=20,
  )
  assert printed.returncode == 0, printed.stderr
  user, environment, install = printed.stdout.splitlines()
  assert user == "python3 -m pip install --quiet --user --break-system-packages uv"
  venv = f"{tmp_path}/xjepa_jax.venv"
  assert environment == f"python3 -m uv venv --quiet --seed --python 3.12 {venv}"
  assert install.startswith(f"{venv}/bin/python -m pip install ")
