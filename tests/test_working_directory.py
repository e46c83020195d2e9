"""A working directory has one run, at a time and of one set of pairs, and no run begins it anew."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import FinishedRun
from tests.test_main import CONFIG, STEPS, changed, command, losses, wait_for
from xjepa_jax.config import Config
from xjepa_jax.data.description import describe, write_description
from xjepa_jax.data.import_plan import plan_import
from xjepa_jax.data.simulate import simulated_archive
from xjepa_jax.data.writer import write_dataset
from xjepa_jax.errors import CheckpointError
from xjepa_jax.processes import preemption
from xjepa_jax.run import run
from xjepa_jax.training.json_lines import read_history

pytestmark = [pytest.mark.usefixtures("compiled_quickly"), pytest.mark.timeout(900)]


@pytest.fixture
def pairs(simulated: str, tmp_path: Path) -> str:
  """A copy of the simulated pairs that may be changed."""
  return shutil.copytree(simulated, str(tmp_path / "pairs"))


@pytest.fixture
def copy(finished_run: FinishedRun, tmp_path: Path) -> str:
  """A copy of the finished run's directory."""
  return shutil.copytree(finished_run.workdir, str(tmp_path / "copy"))


def reading(config: Config, pairs: str) -> Config:
  """The config with its pairs at another path."""
  return changed(config, data__directories=(pairs,))


def contents(workdir: str) -> dict[str, bytes]:
  """Every file of what a run leaves for others, and its metrics."""
  paths = [
    path
    for place in ("encoder", "report", "metrics.jsonl")
    for path in [Path(workdir, place), *Path(workdir, place).rglob("*")]
  ]
  return {str(path): path.read_bytes() for path in paths if path.is_file()}


def test_a_second_start_is_refused_at_once_and_the_first_has_every_step_once(
  simulated: str, compiled: str, tmp_path: Path
) -> None:
  workdir = str(tmp_path / "run")
  line, options = command(
    f"--config={CONFIG}:{simulated}", f"--workdir={workdir}", compiled=compiled
  )
  with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, **options) as first:
    wait_for(lambda: os.path.exists(f"{workdir}/run.lock"), first)
    second = subprocess.run(line, capture_output=True, text=True, timeout=300, **options)
    assert first.poll() is None
    assert first.wait(600) == 0
  assert second.returncode == 1 and not second.stdout
  (paragraph,) = second.stderr.splitlines()
  assert paragraph.startswith(f"error: the working directory {workdir} is in use by process ")
  assert f"process {first.pid} on " in paragraph
  rows = read_history(f"{workdir}/metrics.jsonl")
  counted = Counter(row["step"] for row in rows if "loss/total" in row)
  assert counted == dict.fromkeys(range(1, STEPS + 1), 1)
  assert not os.path.exists(f"{workdir}/run.lock")


def test_a_run_whose_checkpoints_are_gone_is_refused_and_keeps_its_results(
  finished_run: FinishedRun, copy: str
) -> None:
  shutil.rmtree(f"{copy}/checkpoints")
  before = contents(copy)
  with pytest.raises(CheckpointError, match=f"progress.json says that step {STEPS} was saved"):
    run(finished_run.config, copy)
  assert len(before) > 10 and contents(copy) == before


def test_a_run_that_goes_back_to_an_earlier_checkpoint_says_so(
  finished_run: FinishedRun, copy: str, capsys: pytest.CaptureFixture[str]
) -> None:
  shutil.move(f"{copy}/checkpoints/{STEPS}", f"{copy}/mine")
  run(finished_run.config, copy)
  said = capsys.readouterr().err
  assert f"step {STEPS} was saved (progress.json) and is computed again" in said
  assert losses(copy) == losses(finished_run.workdir)


def test_the_same_pairs_may_move_and_other_pairs_at_that_path_are_refused(
  finished_run: FinishedRun, copy: str, pairs: str, capsys: pytest.CaptureFixture[str]
) -> None:
  config = reading(finished_run.config, pairs)
  run(config, copy)
  assert f"Continuing {copy} after step {STEPS}\n" in capsys.readouterr().err
  before = contents(copy)
  shutil.rmtree(pairs)
  archive = simulated_archive(pairs=160, size=16, seed=1)
  write_dataset(plan_import(archive, shard_bytes=100_000, encoding="bytes"), pairs)
  with pytest.raises(CheckpointError, match="belongs to a run of other data") as error:
    run(config, copy)
  assert f"{pairs} differs in its sensors or their scaling" in str(error.value)
  assert "split 'train'" in str(error.value) and "split 'validation'" in str(error.value)
  assert contents(copy) == before


def test_a_scaling_that_was_changed_alone_is_refused(
  finished_run: FinishedRun, copy: str, pairs: str
) -> None:
  description = describe(pairs)
  sensors = dict(description.format.sensors)
  scaling = sensors["s1"].scaling
  scaling = dataclasses.replace(scaling, mean=tuple(mean + 1 for mean in scaling.mean))
  sensors["s1"] = dataclasses.replace(sensors["s1"], scaling=scaling)
  other = dataclasses.replace(
    description, format=dataclasses.replace(description.format, sensors=sensors)
  )
  info = json.loads(Path(pairs, "dataset_info.json").read_text())
  write_description(pairs, other, {s["name"]: int(s["numBytes"]) for s in info["splits"]})
  with pytest.raises(CheckpointError, match="differs in its sensors or their scaling from"):
    run(reading(finished_run.config, pairs), copy)


def test_a_run_is_extended_from_its_last_step_and_continued_as_any_other(
  finished_run: FinishedRun, copy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  longer = changed(finished_run.config, training__steps=STEPS + 4)
  with pytest.raises(CheckpointError, match="training.steps: 12, 16.*add --extend"):
    run(longer, copy)
  with monkeypatch.context() as patched:
    patched.setattr(preemption, "agreed", lambda step: step == STEPS + 2)
    run(longer, copy, extend=True)
  run(longer, copy, extend=True)
  before, after = losses(finished_run.workdir), losses(copy)
  assert sorted(after) == list(range(1, STEPS + 5))
  assert {step: after[step] for step in before} == before
  # After a warm-up of 2 updates a cosine from .001 to .000001: update 12 of 16 is 10/14 along it.
  expected = 1e-6 + (1e-3 - 1e-6) * (1 + math.cos(math.pi * 10 / 14)) / 2
  assert after[STEPS + 1]["schedule/learning_rate"] == pytest.approx(expected, rel=1e-4)
