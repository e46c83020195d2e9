"""The main command as 1, 2 and 4 processes: one run, through a kill, a stop and other meshes.

The runs are a chain, for each takes seconds to start: two processes train, one is killed, both are
started again, and are asked to stop; what they leave is continued by four, by one, and on another
mesh. An undisturbed run of one process is what all are compared with.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.debug_config import get_config
from tests.multiprocess.runs import checkpoints, losses, rows, running
from xjepa_jax import load_encoder
from xjepa_jax.config import resolve
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.training import canonical
from xjepa_jax.training.experiment import open_experiment

pytestmark = pytest.mark.timeout(900)
STEPS = 40
CLOSE = 1e-5  # relative: sums over processes are made in another order
LOST_SECONDS = 20  # on a machine so busy that a process does not run for seconds
OPTIONS = (
  f"--config.training.steps={STEPS}",
  "--config.evaluation.every=0",
  "--config.evaluation.mutual_information=0",
  "--config.checkpoint.every=4",
  f"--config.processes.lost_seconds={LOST_SECONDS}",
)


@dataclasses.dataclass(frozen=True)
class Left:
  """What a run left: directory, statuses and words of its processes, seconds until they ended."""

  workdir: Path
  statuses: list[int]
  said: list[str]
  seconds: float


@pytest.fixture(scope="module")
def alone(simulated: str, compiled: str, tmp_path_factory: pytest.TempPathFactory) -> Left:
  """An undisturbed run of one process with all four devices."""
  with running(tmp_path_factory.mktemp("alone"), simulated, compiled, 1, *OPTIONS) as run:
    return Left(run.workdir, run.statuses(), [run.text()], 0)


@pytest.fixture(scope="module")
def killed(simulated: str, compiled: str, tmp_path_factory: pytest.TempPathFactory) -> Left:
  """Two processes, of which the second is killed when there is a checkpoint."""
  with running(tmp_path_factory.mktemp("two"), simulated, compiled, 2, *OPTIONS) as run:
    run.wait_for_step(10)
    at = run.signal(1, signal.SIGKILL)
    statuses = run.statuses()
    return Left(run.workdir, statuses, [run.text(0), run.text(1)], time.monotonic() - at)


@pytest.fixture(scope="module")
def stopped(killed: Left, simulated: str, compiled: str) -> Left:
  """The same command again, and a SIGTERM to the second process."""
  before = max(losses(killed.workdir))
  with running(killed.workdir.parent, simulated, compiled, 2, *OPTIONS) as run:
    run.wait_for_step(before + 1)
    at = run.signal(1, signal.SIGTERM)
    statuses = run.statuses()
    return Left(run.workdir, statuses, [run.text(0), run.text(1)], time.monotonic() - at)


def copied(left: Left, folder: Path) -> int:
  """Copies what a run left into `folder`/run; the step of its last checkpoint."""
  shutil.copytree(left.workdir, folder / "run")
  return checkpoints(left.workdir)[-1]


def assert_as_alone(workdir: Path, alone: Left, last: int) -> None:
  """Every step up to the last has the loss of the undisturbed run."""
  found, expected = losses(workdir), losses(alone.workdir)
  steps = range(1, last + 1)
  np.testing.assert_allclose([found[n] for n in steps], [expected[n] for n in steps], rtol=CLOSE)


def test_a_killed_process_is_noticed_by_the_other_which_says_so_in_one_line(
  killed: Left, record_property: Callable[[str, object], None]
) -> None:
  record_property("seconds", killed.seconds)
  assert killed.statuses == [13, -signal.SIGKILL]
  assert killed.seconds < 2 * LOST_SECONDS
  (line,) = [each for each in killed.said[0].splitlines() if not each.startswith("step ")]
  assert re.fullmatch(
    r"error: process 1 of 2 was lost \(gave no sign of life for 20 s\), noticed by process 0; the "
    r"same command continues from the checkpoint of step \d+",
    line,
  )


def test_a_restart_goes_on_and_sigterm_to_one_process_stops_all_at_one_step_that_is_saved(
  killed: Left, stopped: Left, alone: Left, record_property: Callable[[str, object], None]
) -> None:
  record_property("seconds", stopped.seconds)
  assert stopped.statuses == [0, 0], stopped.said
  assert f"Continuing {stopped.workdir} after step " in stopped.said[0]
  said = re.search(r"Stopped by SIGTERM after step (\d+), which is saved", stopped.said[0])
  assert said is not None and stopped.said[1] == ""
  step = int(said[1])
  assert step == checkpoints(stopped.workdir)[-1] == max(losses(stopped.workdir)) < STEPS
  assert json.loads((stopped.workdir / "progress.json").read_text()) == {"step": step}
  assert_as_alone(stopped.workdir, alone, step)


def test_every_process_keeps_a_log_of_its_own_through_kills_and_restarts(
  stopped: Left,
) -> None:
  for process, ends in (
    (0, ["ends with status 13", "ends with status 0"]),
    (1, ["ends with status 0"]),
  ):
    path = stopped.workdir / "logs" / f"process-{process}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["process"] for line in lines} == {process}
    said = [line["message"] for line in lines]
    starts = [each for each in said if each.startswith(f"Process {process} of 2 starts; python 3")]
    assert len(starts) == 2
    assert [each for each in said if each.startswith("ends with")] == ends
    assert sum(each.startswith(f"Continuing {stopped.workdir} after step") for each in said) == 1
    assert any(line["step"] and line.get("memory/host_bytes", 0) > 0 for line in lines)
  first = (stopped.workdir / "logs" / "process-0.jsonl").read_text().splitlines()
  (lost,) = [line for line in map(json.loads, first) if line["message"].startswith("error: ")]
  assert lost["level"] == "error" and "process 1 of 2 was lost" in lost["message"]


def test_four_processes_continue_what_two_saved_and_report_as_one(
  stopped: Left, alone: Left, simulated: str, compiled: str, tmp_path: Path
) -> None:
  copied(stopped, tmp_path)
  with running(tmp_path, simulated, compiled, 4, *OPTIONS) as run:
    assert run.statuses() == [0, 0, 0, 0], run.text()
    assert [run.text(process) for process in (1, 2, 3)] == ["", "", ""]
  assert_as_alone(run.workdir, alone, STEPS)
  reports = [
    json.loads((each / "report" / "metrics.json").read_text())
    for each in (run.workdir, alone.workdir)
  ]
  names = [[(row["name"], row["direction"]) for row in each["summary"]] for each in reports]
  assert names[0] == names[1]
  arrays = [
    load_file(each / "encoder" / "encoder.safetensors") for each in (run.workdir, alone.workdir)
  ]
  assert arrays[0].keys() == arrays[1].keys()
  # What they say of images, not their numbers: no term sees a bias of a descriptor, so its gradient
  # is rounding, which Adam makes whole steps of, and the centre takes away again.
  one, other = (load_encoder(str(each / "encoder")) for each in (run.workdir, alone.workdir))
  with PairDataset(simulated, "test") as pairs:
    for key in one.inputs:
      images = {key: np.stack([pairs[n].observations[key].values for n in range(4)])}
      np.testing.assert_allclose(one.describe(images), other.describe(images), atol=1e-3)


def test_the_first_process_too_may_be_lost_or_asked_to_stop_and_one_alone_continues(
  stopped: Left, alone: Left, simulated: str, compiled: str, tmp_path: Path
) -> None:
  first = copied(stopped, tmp_path)
  with running(tmp_path, simulated, compiled, 2, *OPTIONS) as run:
    run.wait_for_step(first + 1)
    at = run.signal(0, signal.SIGKILL)
    assert run.statuses() == [-signal.SIGKILL, 13]
    assert time.monotonic() - at < 2 * LOST_SECONDS
    assert re.search(r"^error: process 0 of 2 was lost.*same command continues", run.text(1), re.M)
  for processes in (2, 1):
    reached = max(losses(run.workdir))  # not all of it is in a checkpoint
    with running(tmp_path, simulated, compiled, processes, *OPTIONS) as run:
      run.wait_for_step(reached + 1)
      run.signal(0, signal.SIGTERM)
      assert run.statuses() == [0] * processes, run.text()
      assert re.search(r"^[Ss]topped by SIGTERM", run.text(), re.MULTILINE)
    assert max(losses(run.workdir)) == checkpoints(run.workdir)[-1] > reached
  assert_as_alone(run.workdir, alone, checkpoints(run.workdir)[-1])


def test_processes_fit_a_layout_evaluate_both_encoders_and_choose_the_same_one(
  simulated: str, compiled: str, tmp_path: Path
) -> None:
  options = (
    "--config.heads.layout.pooling=canonical",
    "--config.heads.layout.numbers=3",
    "--config.heads.layout.size=12",
    "--config.training.steps=2",
    "--config.optimizer.warmup=1",
    "--config.evaluation.every=2",
    "--config.evaluation.mutual_information=0",
  )
  with running(tmp_path, simulated, compiled, 2, *options) as run:
    assert run.statuses() == [0, 0], run.text()
  scores = {
    (row[f"validation/{name}/score"], int(row["step"]), name)
    for row in rows(run.workdir)
    for name in ("averaged", "trained")
    if "validation/score" in row
  }
  assert {step for _, step, _ in scores} == {0, 2}
  said = re.findall(r"Step (\d), (\w+) encoder, was the best on the validation", run.text(0))
  ((step, name),) = said
  assert (max(score for score, _, _ in scores), int(step), name) in scores
  described = json.loads((run.workdir / "encoder" / "encoder.json").read_text())
  assert described["training"]["encoder"] == name and described["training"]["steps"] == int(step)
  assert run.text(1) == ""
  fitted = fitted_alone(simulated)
  arrays = load_file(run.workdir / "encoder" / "encoder.safetensors")
  for sensor, maps in fitted.items():
    for name, value in maps.items():
      (found,) = (x for key, x in arrays.items() if key.endswith(f"layout/maps/{sensor}/{name}"))
      found, value = np.abs(found), np.abs(value)  # the sign of a number is free
      np.testing.assert_allclose(found, value, atol=1e-4 * value.max())


def fitted_alone(simulated: str) -> canonical.Maps:
  """The layout's maps as one process fits them, on one device."""
  config = get_config(simulated)
  config.heads.layout.update(pooling="canonical", numbers=3, size=12)
  experiment = open_experiment(resolve(config), jax.devices()[:1])
  return canonical.fit(experiment, canonical.fitted_heads(experiment.config.heads))["layout"].maps


def test_another_mesh_continues_and_a_step_that_hangs_ends_with_the_stacks_of_all_threads(
  stopped: Left, alone: Left, simulated: str, compiled: str, tmp_path: Path
) -> None:
  first = copied(stopped, tmp_path)
  options = (
    *OPTIONS[:-1],
    "--config.mesh.replica=2",
    "--config.mesh.fsdp=1",
    "--config.mesh.tensor=2",
    "--config.processes.lost_seconds=600",
    "--config.processes.hang_seconds=10",
  )
  with running(tmp_path, simulated, compiled, 2, *options) as run:
    run.wait_for_step(first + 3)
    run.signal(1, signal.SIGSTOP)
    assert run.processes[0].wait(100) == 13
    said = run.text(0)
  assert re.search(r"process 0 of 2: step \d+ has not advanced for 10 s", said)
  assert "Thread 0x" in said and "loop.py" in said
  assert "loop.py" in (run.workdir / "hang-process-0.txt").read_text()
  assert_as_alone(run.workdir, alone, max(losses(run.workdir)))


@pytest.mark.parametrize("process", [0, 1])
def test_a_process_that_the_others_do_not_join_says_so_in_one_line(
  process: int, simulated: str, compiled: str, tmp_path: Path
) -> None:
  with running(tmp_path, simulated, compiled, 2, "--config.processes.join_seconds=5") as run:
    run.processes[1 - process].kill()
    assert run.statuses()[process] == 13
    said = run.text(process)
  assert re.fullmatch(
    rf"error: process {process} of 2 could not join the others within 5 s \(told by the flags; "
    r"coordinator 127\.0\.0\.1:\d+.*\)\. Start all of them, .*\n",
    said,
  ), said


def test_an_error_that_all_processes_make_is_told_by_the_first(
  simulated: str, compiled: str, tmp_path: Path
) -> None:
  with running(tmp_path, simulated, compiled, 2, "--config.model.wdth=3") as run:
    assert run.statuses() == [1, 1]
    assert "'model.wdth' is unknown" in run.text(0) and len(run.text(0).splitlines()) == 1
    assert run.text(1) == ""


def test_a_process_of_another_config_is_refused_by_name_and_ends_all(
  simulated: str, compiled: str, tmp_path: Path
) -> None:
  other = "--config.training.seed=5"
  with running(tmp_path, simulated, compiled, 2, last=other) as run:
    assert run.statuses() == [1, 1]
    for process in (0, 1):
      assert re.search(
        r"^process 1 of 2: error: .*another config than process 0.*training.seed: 0, 5\.",
        run.text(process),
        re.MULTILINE,
      ), run.text(process)
  assert not rows(run.workdir)
