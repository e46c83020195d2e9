"""A Slurm cluster of one node on this machine, with a configuration of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Debian puts the daemons where not every PATH looks.
_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol")
_CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
KillWait=20
SchedulerParameters=sched_interval=1,batch_sched_delay=0
ReturnToService=2
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs={processors} State=UNKNOWN
PartitionName=all Nodes=localhost Default=YES MaxTime=60 OverSubscribe=FORCE:2 State=UP
"""


class Cluster:
  """What a test asks of the cluster."""

  def __init__(self, folder: Path, environment: dict[str, str]):
    self.folder, self.environment = folder, environment

  def call(self, *words: str, **environment: str) -> str:
    """A program's output; its failure is the test's."""
    ended = subprocess.run(
      words,
      env={**self.environment, **environment},
      capture_output=True,
      text=True,
      timeout=60,
    )
    assert ended.returncode == 0, f"{words}: {ended.stderr}{self.logs()}"
    return ended.stdout

  def field(self, job: str, name: str) -> str:
    """Of what scontrol knows of a job."""
    words = self.call("scontrol", "--oneliner", "show", "job", job).split()
    return dict(word.partition("=")[::2] for word in words)[name]

  def state_becomes(self, job: str, *expected: str, seconds: float) -> str:
    """Waits until a job is in one of these states; returns which."""
    until = time.monotonic() + seconds
    while (state := self.field(job, "JobState")) not in expected:
      ended = state in ("FAILED", "CANCELLED", "COMPLETED", "NODE_FAIL", "TIMEOUT", "OUT_OF_MEMORY")
      assert not ended and time.monotonic() < until, f"job {job} is {state}{self.logs()}"
      time.sleep(0.2)
    return state

  def logs(self) -> str:
    """The ends of all that was written."""
    return "".join(
      f"\n--- {path.name}\n{path.read_text(errors='replace')[-3000:]}"
      for path in sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")])
    )


def _free_ports(count: int) -> list[int]:
  with contextlib.ExitStack() as stack:
    sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
    for each in sockets:
      each.bind(("127.0.0.1", 0))
    return [int(each.getsockname()[1]) for each in sockets]


def _prepare(folder: Path) -> None:
  for name in ("state", "spool"):
    (folder / name).mkdir()
  key = folder / "munge.key"
  key.write_bytes(os.urandom(1024))
  key.chmod(0o400)
  controller, daemon = _free_ports(2)
  host = socket.gethostname().partition(".")[0]
  user = "root" if os.getuid() == 0 else os.environ.get("USER", str(os.getuid()))
  text = _CONFIGURATION.format(
    folder=folder,
    controller=controller,
    daemon=daemon,
    host=host,
    user=user,
    processors=os.cpu_count(),
  )
  (folder / "slurm.conf").write_text(text)


@contextlib.contextmanager
def one_node(folder: Path) -> Iterator[Cluster]:
  """Starts the three daemons in the foreground, as children, and ends them."""
  missing = [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]
  if missing:
    pytest.skip(f"Slurm is not installed ({', '.join(missing)}): apt-get install slurm-wlm munge")
  _prepare(folder)
  # Nothing of a job that these tests may themselves run in.
  own = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
  cluster = Cluster(folder, {**own, "PATH": _PATH, "SLURM_CONF": f"{folder}/slurm.conf"})
  munge = [
    *["munged", "--foreground", "--force", f"--socket={folder}/munge.socket"],
    *[f"--key-file={folder}/munge.key", f"--pid-file={folder}/munge.pid"],
    *[f"--seed-file={folder}/munge.seed", f"--log-file={folder}/munge.log"],
  ]
  started: list[subprocess.Popen[bytes]] = []
  try:
    for command, sign in (
      (munge, folder / "munge.socket"),
      (["slurmctld", "-D"], folder / "slurmctld.pid"),
      (["slurmd", "-D"], folder / "slurmd.pid"),
    ):
      with open(folder / f"{command[0]}.output.log", "wb") as log:
        started.append(
          subprocess.Popen(command, env=cluster.environment, stdout=log, stderr=subprocess.STDOUT)
        )
      _wait_for(sign.exists, cluster)
    _wait_for(lambda: "idle" in cluster.call("sinfo", "--noheader", "--format=%T"), cluster)
    yield cluster
  finally:
    for each in reversed(started):
      each.terminate()
    for each in reversed(started):
      try:
        each.wait(timeout=20)
      except subprocess.TimeoutExpired:
        each.kill()
        each.wait()


def _wait_for(ready: Callable[[], bool], cluster: Cluster) -> None:
  until = time.monotonic() + 30
  while not ready():
    assert time.monotonic() < until, cluster.logs()
    time.sleep(0.1)
