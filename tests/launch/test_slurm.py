"""launch/slurm/train.sbatch, submitted by itself to a Slurm of one node that really runs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.launch.cluster import Cluster, one_node
from tests.launch.stand_ins import LAUNCH, ROOT, StandIns
from tests.multiprocess.runs import environment
from tests.multiprocess.test_one_run import OPTIONS, STEPS

SCRIPT = LAUNCH / "slurm" / "train.sbatch"
# Called as the interpreter is: -m xjepa_jax.main ARGUMENTS. Statuses are from a list, one a start.
TRAINER = """#!{python} -IS
import json, os, signal, sys, time
flags = dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[3:])
workdir, plan = flags["workdir"], json.loads(flags["plan"])
me, count = os.environ["SLURM_PROCID"], os.environ["SLURM_NTASKS"]
os.makedirs(workdir, exist_ok=True)
mine = os.path.join(workdir, "starts-" + me)
starts = int(open(mine).read()) if os.path.exists(mine) else 0
open(mine, "w").write(str(starts + 1))
print("process", me, "of", count, "start", starts, flush=True)
if plan[starts] == "wait":
  signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"saved\\n"), sys.exit(0)))
  open(mine + "-waits", "w").close()
  time.sleep(120)
if plan[starts] == "done":
  os.makedirs(os.path.join(workdir, "encoder"), exist_ok=True)
  sys.exit(0)
sys.exit(plan[starts])
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
  with one_node(tmp_path_factory.mktemp("slurm")) as cluster:
    yield cluster


def submit(cluster: Cluster, name: str, *arguments: str, **environment: str) -> str:
  """The job's number."""
  output = f"--sbatch=--output={cluster.folder}/{name}.out"
  options = ("--name", name, "--tasks", "2", "--cpus", "1", output, "--sbatch=--parsable")
  words = ("bash", str(SCRIPT), *options, "--", *arguments)
  return cluster.call(*words, **environment).strip()


def plan(cluster: Cluster, name: str, *statuses: object) -> tuple[str, ...]:
  """Arguments for the stand-in of the trainer."""
  return (f"--workdir={cluster.folder}/{name}", f"--plan={json.dumps(statuses)}")


@pytest.fixture
def trainer(tmp_path: Path) -> str:
  path = tmp_path / "python"
  path.write_text(TRAINER.format(python=sys.executable))
  path.chmod(0o755)
  return str(path)


def test_lost_processes_start_again_and_a_stop_before_the_end_queues_again(
  cluster: Cluster, trainer: str
) -> None:
  job = submit(cluster, "again", *plan(cluster, "again", 13, 0, "done"), PYTHON=trainer)
  cluster.state_becomes(job, "COMPLETED", seconds=90)
  output = (cluster.folder / "again.out").read_text()
  for start in range(3):
    for process in range(2):
      assert f"{process}: process {process} of 2 start {start}" in output
  assert "supervise: status 13" in output
  assert "queueing again" in output
  assert cluster.field(job, "Restarts") == "1"


def test_an_error_in_words_fails_the_job(cluster: Cluster, trainer: str) -> None:
  job = submit(cluster, "wrong", *plan(cluster, "wrong", 1), PYTHON=trainer)
  cluster.state_becomes(job, "FAILED", seconds=60)
  assert cluster.field(job, "ExitCode") == "1:0"
  assert cluster.field(job, "Restarts") == "0"


def test_a_preempted_job_saves_and_goes_on_and_a_deleted_one_saves_and_is_gone(
  cluster: Cluster, trainer: str
) -> None:
  arguments = plan(cluster, "taken", "wait", "wait", "wait")
  job = submit(cluster, "taken", *arguments, PYTHON=trainer)
  waits = [cluster.folder / "taken" / f"starts-{process}-waits" for process in range(2)]
  for restarts in range(2):
    _until_all_exist(cluster, waits)
    assert cluster.field(job, "Restarts") == str(restarts)
    for path in waits:
      path.unlink()
    if restarts == 0:
      cluster.call("scontrol", "requeue", job)  # what Slurm does when it preempts
    else:
      cluster.call("bash", str(SCRIPT), "--delete", "--name", "taken")
  cluster.state_becomes(job, "CANCELLED", seconds=60)
  _until(cluster, lambda: cluster.call("squeue", "--noheader") == "")
  output = (cluster.folder / "taken.out").read_text()
  assert output.count("saved") == 4  # both processes, both times
  assert cluster.field(job, "JobState") == "CANCELLED"


def test_two_tasks_train_one_run(cluster: Cluster, simulated: str, compiled: str) -> None:
  job = submit(
    cluster,
    "train",
    f"--config={ROOT}/tests/debug_config.py:{simulated}",
    f"--workdir={cluster.folder}/train",
    *OPTIONS,
    PYTHON=sys.executable,
    **environment(compiled, 2),
  )
  cluster.state_becomes(job, "COMPLETED", seconds=270)
  assert cluster.field(job, "Restarts") == "0"
  workdir = cluster.folder / "train"
  assert json.loads((workdir / "progress.json").read_text())["step"] == STEPS
  rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  assert [row["step"] for row in rows if "loss/total" in row] == list(range(1, STEPS + 1))
  for process in range(2):  # each wrote its part: one run of two, not two runs of one
    assert list(workdir.glob(f"checkpoints/{STEPS}/state/ocdbt.process_{process}"))
  assert (workdir / "encoder").is_dir()
  assert (workdir / "report" / "index.html").is_file()


def test_what_sbatch_is_asked(stand_ins: StandIns) -> None:
  train = ("--", "--config=a.py", "--x=('b c',)")
  asked = stand_ins.run(
    "slurm/train.sbatch",
    *("--name", "my-run", "--nodes", "2", "--gpus=4", "--cpus", "12"),
    *("--sbatch=--partition=gpu", *train),
    PYTHON="python3.12",
  )
  assert asked.calls == [
    [
      *["sbatch", "--job-name=my-run", f"--chdir={ROOT}", "--export=ALL,PYTHON=python3.12"],
      *["--nodes=2", "--gpus-per-node=4", "--ntasks-per-node=4", "--cpus-per-task=12"],
      *["--partition=gpu", str(SCRIPT)],
      *["--config=a.py", "--x=('b c',)", "--workdir=runs/my-run"],
    ]
  ]
  deleted = stand_ins.run("slurm/train.sbatch", "--delete", "--name", "my-run").calls
  assert deleted[0][:2] == ["scancel", "--jobname=my-run"]
  refused = stand_ins.run("slurm/train.sbatch", "--name", "My run", *train)
  assert refused.status == 2 and not refused.calls and "'my-run'" in refused.errors


def _until_all_exist(cluster: Cluster, paths: list[Path]) -> None:
  _until(cluster, lambda: all(path.exists() for path in paths))


def _until(cluster: Cluster, true: Callable[[], bool]) -> None:
  until = time.monotonic() + 60
  while not true():
    assert time.monotonic() < until, cluster.logs()
    time.sleep(0.2)
