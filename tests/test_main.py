"""The main job end to end, by the smallest model: what it leaves, and what stops it."""

from __future__ import annotations

import dataclasses
import functools
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import FinishedRun
from tests.debug_config import get_config
from xjepa_jax.config import Config, resolve, to_dict
from xjepa_jax.data.archive import Archive, Entry
from xjepa_jax.data.import_plan import plan_import
from xjepa_jax.data.pairs import Pair
from xjepa_jax.data.simulate import simulated_archive
from xjepa_jax.data.writer import write_dataset
from xjepa_jax.errors import (
  CheckpointError,
  ConfigError,
  DatasetError,
  TrainingError,
  XJepaError,
)
from xjepa_jax.processes import preemption
from xjepa_jax.retrieval import evaluation
from xjepa_jax.retrieval.encoder_choice import encoders
from xjepa_jax.run import run
from xjepa_jax.training.checkpoint import Checkpoints
from xjepa_jax.training.collapse import Measurement, Verdict
from xjepa_jax.training.experiment import open_experiment
from xjepa_jax.training.json_lines import read_history
from xjepa_jax.training.splits import shares

ROOT = Path(__file__).resolve().parents[1]
# Programs compile for minutes on a machine that is busy with something else.
pytestmark = [pytest.mark.usefixtures("compiled_quickly"), pytest.mark.timeout(900)]
CONFIG = "tests/debug_config.py"
STEPS = 12


def command(*arguments: str, compiled: str = "") -> tuple[list[str], dict[str, Any]]:
  """The main program as `subprocess` starts it."""
  environment = {
    **os.environ,
    "JAX_COMPILATION_CACHE_DIR": compiled,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
  }
  return [sys.executable, "-m", "xjepa_jax.main", *arguments], {"cwd": ROOT, "env": environment}


def refusal(*arguments: str) -> str:
  """What the main program says on stderr when it ends with status 1 and one paragraph."""
  line, options = command(*arguments)
  ended = subprocess.run(line, capture_output=True, text=True, timeout=300, **options)
  assert ended.returncode == 1 and not ended.stdout
  (paragraph,) = ended.stderr.strip().splitlines()
  assert paragraph.startswith("error: ") and "Traceback" not in paragraph
  return paragraph


def changed(config: Config, **keys: Any) -> Config:
  """A config with dotted keys, their points written as double underscores, set to other values."""
  content = to_dict(config)
  for key, value in keys.items():
    *groups, name = key.split("__")
    group = content
    for each in groups:
      group[each] = dict(group[each])
      group = group[each]
    group[name] = value
  return resolve(content)


def losses(workdir: str) -> dict[int, dict[str, float]]:
  """step -> what the step itself computed."""
  return {
    int(row["step"]): {
      key: value for key, value in row.items() if key.startswith(("loss/", "norm/", "schedule/"))
    }
    for row in read_history(f"{workdir}/metrics.jsonl")
    if "loss/total" in row
  }


@pytest.fixture
def copy(finished_run: FinishedRun, tmp_path: Path) -> str:
  """A copy of the finished run's directory."""
  return shutil.copytree(finished_run.workdir, str(tmp_path / "copy"))


def test_a_run_leaves_checkpoints_metrics_report_and_encoder(finished_run: FinishedRun) -> None:
  workdir = finished_run.workdir
  assert (Path(workdir) / "checkpoints" / str(STEPS)).is_dir()
  (events,) = glob.glob(f"{workdir}/tensorboard/*tfevents*")
  shown = Path(events).read_bytes()
  assert shown.count(b"validation/retrieval") == 4  # at steps 0, 4, 8 and 12
  for tag in (b"report/retrieval", b"report/tokens", b"report/curves"):
    assert shown.count(tag) == 1
  for name in ("index.html", "metrics.json", "retrieval.png", "tokens.png", "curves.png"):
    assert os.path.getsize(f"{workdir}/report/{name}") > 1000
  for name in ("encoder.json", "encoder.safetensors", "README.md", "manifest.json"):
    assert os.path.getsize(f"{workdir}/encoder/{name}") > 100
  rows = read_history(f"{workdir}/metrics.jsonl")
  assert set(losses(workdir)) == set(range(1, STEPS + 1))
  assert [row["step"] for row in rows if "validation/score" in row] == [0, 4, 8, 12]
  report = json.loads(Path(workdir, "report", "metrics.json").read_text())
  assert report["collapse"] is None and report["protocol"]["pairs"] == "the split 'test', 16 pairs"
  assert report["timing"]["pairs_per_second"] > 0
  assert len(report["examples"]) == 12  # six of each direction


def test_the_table_has_every_head_and_baseline_in_both_directions(
  finished_run: FinishedRun,
) -> None:
  report = json.loads(Path(finished_run.workdir, "report", "metrics.json").read_text())
  across = {
    (row["name"], row["direction"]) for row in report["summary"] if row.get("recall@1") is not None
  }
  described = json.loads(Path(finished_run.workdir, "encoder", "encoder.json").read_text())
  (other,) = {"averaged", "trained"} - {described["training"]["encoder"]}
  names = (
    "X-JEPA, layout",
    "X-JEPA, semantic",
    f"X-JEPA, layout, {other} encoder (not exported)",
    f"X-JEPA, semantic, {other} encoder (not exported)",
    "X-JEPA, layout, predict-then-search",
    "X-JEPA, semantic, predict-then-search",
    "image statistics",
    "mutual information",
    "chance",
  )
  assert across == {(name, way) for name in names for way in ("s1->s2", "s2->s1")}
  assert all(name in finished_run.printed for name in names)
  assert f"Report:  {finished_run.workdir}/report/index.html" in finished_run.printed
  chance = {row.get("recall@1") for row in report["summary"] if row["name"] == "chance"} - {None}
  assert chance == {1 / 16}


def test_the_best_step_s_better_encoder_is_the_one_exported(finished_run: FinishedRun) -> None:
  rows = read_history(f"{finished_run.workdir}/metrics.jsonl")
  scores = {
    (row[f"validation/{name}/score"], row["step"], name)
    for row in rows
    for name in ("averaged", "trained")
    if "validation/score" in row
  }
  assert len(scores) == 8
  for row in rows:
    if "validation/score" in row:
      both = [row[f"validation/{name}/score"] for name in ("averaged", "trained")]
      assert row["validation/score"] == max(both)
  highest = max(score for score, _, _ in scores)
  best = max(step for score, step, _ in scores if score == highest)
  name = min(name for score, step, name in scores if (score, step) == (highest, best))
  described = json.loads(Path(finished_run.workdir, "encoder", "encoder.json").read_text())
  assert described["training"]["steps"] == best and described["training"]["encoder"] == name
  assert exported(finished_run.config, finished_run.workdir, int(best)) == {name}
  report = json.loads(Path(finished_run.workdir, "report", "metrics.json").read_text())
  assert report["protocol"]["encoder"] == f"the {name} encoder, whole images"


def exported(config: Config, workdir: str, step: int) -> set[str]:
  """The encoders of a checkpoint's state that are the exported one."""
  experiment = open_experiment(config)
  with Checkpoints(workdir, {}, read_only=True) as checkpoints:
    state = checkpoints.restore(experiment.abstract_state(), step)
  arrays = load_file(f"{workdir}/encoder/encoder.safetensors")
  return {
    name
    for name, encoder in encoders(state).items()
    if all(
      np.array_equal(
        arrays["encoder/" + jax.tree_util.keystr(path, simple=True, separator="/")], leaf
      )
      for path, leaf in jax.tree_util.tree_leaves_with_path(encoder)
    )
  }


def test_before_the_first_step_both_encoders_are_the_same_and_measured(
  finished_run: FinishedRun,
) -> None:
  rows = read_history(f"{finished_run.workdir}/metrics.jsonl")
  (first,) = [row for row in rows if row["step"] == 0]
  averaged = {
    key.removeprefix("validation/averaged/"): value
    for key, value in first.items()
    if key.startswith("validation/averaged/")
  }
  assert averaged.keys() >= {"score", "s1->s2/recall@1", "semantic/s2->s1/recall@10"}
  for key, value in averaged.items():
    assert first[f"validation/trained/{key}"] == value == first[f"validation/{key}"]


def test_the_step_before_the_first_is_exported_if_training_only_makes_it_worse(
  finished_run: FinishedRun,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
) -> None:
  # Of the averaged, the trained and the chosen encoder, at step 0 and at step 4.
  scores = iter([0.8, 0.9, 0.9, 0.7, 0.6, 0.7])
  monkeypatch.setattr(evaluation, "validation_score", lambda *_: next(scores))
  config = changed(finished_run.config, training__steps=4, checkpoint__keep=1)
  workdir = str(tmp_path / "run")
  for agreed in (2, -1):  # it is stopped, and continued
    with monkeypatch.context() as patched:
      patched.setattr(preemption, "agreed", lambda step, agreed=agreed: step == agreed)
      run(config, workdir)
  said = capsys.readouterr().err
  assert "Step 0, trained encoder, was the best on the validation split; it is" in said
  assert exported(config, workdir, 0) == {"averaged", "trained"}  # which begin alike
  described = json.loads(Path(workdir, "encoder", "encoder.json").read_text())
  assert (described["training"]["steps"], described["training"]["encoder"]) == (0, "trained")


def test_every_evaluation_has_the_floor_of_latent_prediction_and_the_share_of_position(
  finished_run: FinishedRun,
) -> None:
  rows = read_history(f"{finished_run.workdir}/metrics.jsonl")
  for row in rows:
    if "validation/score" not in row:
      continue
    for route in ("s1->s1", "s1->s2", "s2->s1", "s2->s2"):
      parts = [row[f"targets/{part}/{route}"] for part in ("constant", "position", "scene", "rest")]
      assert sum(parts) == pytest.approx(1, abs=1e-3)  # targets are layer-normalised
      assert row[f"probe/latent/position/{route}"] == pytest.approx(sum(parts[2:]), rel=1e-3)
      assert row[f"probe/latent/constant/{route}"] == pytest.approx(sum(parts[1:]), rel=1e-3)
      assert row[f"probe/latent/real/{route}"] > 0 < row[f"probe/latent/other_context/{route}"]
    routes = [row[key] for key in row if key.startswith("probe/latent/real/")]
    assert row["validation/loss/latent"] == pytest.approx(np.mean(routes), rel=1e-5)
    assert all(0 <= row[f"geometry/position_share/{key}"] <= 1 for key in ("s1", "s2"))
  report = Path(finished_run.workdir, "report", "index.html").read_text()
  assert "What prediction knows" in report


def test_a_killed_run_continues_with_the_same_losses_bit_for_bit(
  finished_run: FinishedRun, simulated: str, compiled: str, tmp_path: Path
) -> None:
  workdir = str(tmp_path / "killed")
  line, options = command(
    f"--config={CONFIG}:{simulated}", f"--workdir={workdir}", compiled=compiled
  )
  with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, **options) as process:
    wait_for(lambda: 7 in known_steps(workdir), process)
    process.send_signal(signal.SIGKILL)
  before = known_steps(workdir)
  assert 7 in before and STEPS not in before
  ended = subprocess.run(line, capture_output=True, text=True, timeout=600, **options)
  assert ended.returncode == 0, ended.stderr
  assert re.search(rf"Continuing {workdir} after step \d+", ended.stderr)
  assert losses(workdir) == losses(finished_run.workdir)
  scores = [
    [
      row["validation/score"]
      for row in read_history(f"{each}/metrics.jsonl")
      if "validation/score" in row
    ]
    for each in (workdir, finished_run.workdir)
  ]
  assert scores[0] == scores[1]
  assert ended.stdout.splitlines()[:-2] == finished_run.printed.splitlines()[:-2]


def test_a_run_stopped_where_an_evaluation_is_due_makes_up_for_it(
  finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  workdir = str(tmp_path / "run")
  with monkeypatch.context() as patched:
    patched.setattr(preemption, "agreed", lambda step: step == 8)
    assert run(finished_run.config, workdir) == ""
  assert max(known_steps(workdir)) == 8
  with Checkpoints(workdir, {}, read_only=True) as checkpoints:
    assert "validation/score" not in checkpoints.about(8)["metrics"]
  with monkeypatch.context() as patched:  # stopped again as soon as it is made up for
    patched.setattr(preemption, "agreed", lambda step: step == 9)
    run(finished_run.config, workdir)
  with Checkpoints(workdir, {}, read_only=True) as checkpoints:
    score = checkpoints.about(8)["metrics"]["validation/score"]
  rows = read_history(f"{finished_run.workdir}/metrics.jsonl")
  assert [score] == [
    r["validation/score"] for r in rows if r.get("validation/score") and r["step"] == 8
  ]
  expected = losses(finished_run.workdir)
  assert losses(workdir) == {step: expected[step] for step in range(1, 10)}


def known_steps(workdir: str) -> set[int]:
  """Steps that a run has written so far."""
  return set(losses(workdir)) if os.path.exists(f"{workdir}/metrics.jsonl") else set()


def wait_for(condition: Any, process: subprocess.Popen[str], seconds: float = 600) -> None:
  """Waits until something holds; fails if the process ends first."""
  end = time.monotonic() + seconds
  while not condition():
    assert process.poll() is None and time.monotonic() < end, "it did not get there"
    time.sleep(0.005)


def test_a_checkpoint_cut_short_is_set_aside_and_the_one_before_continued(
  finished_run: FinishedRun, copy: str, capsys: pytest.CaptureFixture[str]
) -> None:
  largest = max(glob.glob(f"{copy}/checkpoints/{STEPS}/**/*", recursive=True), key=os.path.getsize)
  os.truncate(largest, os.path.getsize(largest) // 2)
  run(finished_run.config, copy)
  assert (Path(copy) / "checkpoints" / f"{STEPS}.bad").is_dir()
  before = re.search(r"Continuing \S+ after step (\d+)", capsys.readouterr().err)
  assert before is not None and int(before[1]) < STEPS
  assert losses(copy) == losses(finished_run.workdir)


def test_a_disk_that_takes_no_more_ends_the_run_with_one_paragraph(
  finished_run: FinishedRun, simulated: str, compiled: str, tmp_path: Path
) -> None:
  workdir = str(tmp_path / "full")
  line, options = command(
    f"--config={CONFIG}:{simulated}", f"--workdir={workdir}", compiled=compiled
  )
  # Pictures of the first evaluation would fill it before the first checkpoint does.
  line.append("--config.telemetry.tensorboard=false")
  limited = ["sh", "-c", 'ulimit -f 100 && exec "$@"', "sh", *line]
  ended = subprocess.run(limited, capture_output=True, text=True, timeout=600, **options)
  assert ended.returncode == 1 and not ended.stdout
  *_, paragraph = ended.stderr.strip().splitlines()
  assert re.fullmatch(
    rf"error: {workdir}/checkpoints: the checkpoint of step \d+ could not be written "
    r"\(File too large\)\. .* same command\.",
    paragraph,
  )
  # TensorStore's own threads may print stacks of asyncio before it, beyond Python's reach.
  stacks = [each for each in ended.stderr.splitlines() if each.startswith('  File "')]
  assert all("/asyncio/" in each for each in stacks)


def test_a_directory_of_another_config_is_refused_by_the_keys_that_differ(
  finished_run: FinishedRun, copy: str
) -> None:
  other = changed(finished_run.config, optimizer__learning_rate=0.5, training__seed=3)
  with pytest.raises(CheckpointError, match=r"optimizer.learning_rate: 0.001, 0.5; training.seed"):
    run(other, copy)


@pytest.fixture
def collapsing(monkeypatch: pytest.MonkeyPatch) -> list[list[Measurement]]:
  """From the third measurement on, every space is called collapsed."""
  seen: list[list[Measurement]] = []

  def diagnose(history: list[Measurement], _: int) -> Verdict | None:
    seen.append(list(history))
    return Verdict(history[-1].step, ("it is flat",), ("vicreg",)) if len(history) > 2 else None

  monkeypatch.setattr(evaluation, "diagnose", diagnose)
  return seen


def test_a_collapse_ends_the_run_if_asked_and_the_same_command_does_not_go_on(
  finished_run: FinishedRun,
  collapsing: list[list[Measurement]],
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
) -> None:
  config = changed(finished_run.config, telemetry__stop_on_collapse=True)
  workdir = str(tmp_path / "run")
  for _ in range(2):
    run(config, workdir)
    said = capsys.readouterr()
    assert "Stopped after step 8, for the space has collapsed" in said.err
    assert "The space is collapsing (step 8): it is flat." in said.out
    assert max(losses(workdir)) == 8
    report = json.loads(Path(workdir, "report", "metrics.json").read_text())
    assert report["collapse"].startswith("The space is collapsing (step 8)")
  assert [each.step for each in collapsing[-1]] == [0, 4, 8]


def test_a_continued_run_remembers_what_was_measured_before(finished_run: FinishedRun) -> None:
  experiment = open_experiment(finished_run.config)
  rows = read_history(f"{finished_run.workdir}/metrics.jsonl")
  remembered = evaluation.Validation(experiment, rows).history
  assert [each.step for each in remembered] == [0, 4, 8, 12]
  with Checkpoints(finished_run.workdir, {}, read_only=True) as checkpoints:
    state = checkpoints.restore(experiment.abstract_state(), STEPS)
  validation = evaluation.Validation(experiment)
  validation(state, STEPS)
  assert remembered[-1] == validation.history[0]


def test_keys_that_cannot_be_are_refused_in_one_paragraph(tmp_path: Path) -> None:
  typo = tmp_path / "typo.py"
  text = (ROOT / CONFIG).read_text()
  typo.write_text(text.replace("config.model.patch = 4", "config.model.ptach = 4"))
  wrong = tmp_path / "wrong.py"
  wrong.write_text(text.replace("config.model.patch = 4", "config.model.patch = 'four'"))
  said = refusal(f"--config={typo}")
  assert "config key 'model.ptach' is unknown" in said and "Did you mean 'model.patch'?" in said
  assert re.search(r"wrong\.py, line \d+: TypeError.*'patch'", refusal(f"--config={wrong}"))
  said = refusal(f"--config={CONFIG}", "--config.model.wdth=3")
  assert "config key 'model.wdth' is unknown. Did you mean 'model.width'?" in said
  said = refusal(f"--config={CONFIG}", "--config.training.steps=many")
  assert "config key 'training.steps' is 'many'; expected int" in said and "at least 0" in said
  said = refusal(f"--config={CONFIG}", "--config.model.stem=split")
  assert "config key 'model.stem' is 'split'" in said and "joint, bands" in said
  assert "config/nothing.py: there is no such file" in refusal("--config=config/nothing.py")
  assert "'wrokdir'. Did you mean: workdir" in refusal(f"--config={CONFIG}", "--wrokdir=runs/a")
  assert "no --config given" in refusal()
  assert "--topology=v5p-8 belongs to --plan" in refusal(f"--config={CONFIG}", "--topology=v5p-8")
  assert "unknown arguments runs/a" in refusal(f"--config={CONFIG}", "runs/a")


def test_an_error_of_data_or_directory_ends_the_program_with_one_paragraph(
  simulated: str, tmp_path: Path
) -> None:
  (tmp_path / "file").write_text("")
  below = f"{tmp_path}/file/run"
  assert f"{below}: cannot be used as a working directory" in refusal(
    f"--config={CONFIG}:{simulated}", f"--workdir={below}"
  )
  assert f"{tmp_path}/none" in refusal(
    f"--config={CONFIG}:{tmp_path}/none", f"--workdir={tmp_path}/run"
  )
  assert not (tmp_path / "run").exists()


REFUSED: tuple[tuple[dict[str, Any], type[XJepaError], str], ...] = (
  ({"model__patch": 5}, ConfigError, r"'model.patch' is 5.*16 x 16.*divides 16"),
  ({"model__attention_heads": 5}, ConfigError, r"attention_heads.*5"),
  ({"mask__scale": (0.9, 1.0), "mask__blocks": 8}, ConfigError, r"mask"),
  ({"training__batch": 12}, ConfigError, r"'training.batch' is 12.*multiple of 8"),
  ({"evaluation__batch": 12}, ConfigError, r"'evaluation.batch' is 12.*multiple of 8"),
  ({"mesh__tensor": 3}, ConfigError, r"mesh.*3"),
  ({"data__sensors": ("s1", "s9")}, ConfigError, r"'s9'.*s1, s2"),
  ({"data__train": "tran"}, DatasetError, r"'data.train' is 'tran'.*train, validation, test"),
  ({"data__test": "tset"}, DatasetError, r"'data.test' is 'tset'.*train, validation, test"),
  ({"data__validation": "val"}, DatasetError, r"'data.validation' is 'val'.*validation, test"),
  ({"data__directories": ()}, ConfigError, r"'data.directories' is empty"),
  ({"data__directories": ("nowhere",)}, DatasetError, r"nowhere"),
  ({"routes": ("s1->s3",)}, ConfigError, r"'routes' has 's1->s3'.*s1, s2"),
  ({"routes": ("s1->s2",)}, ConfigError, r"no route starts from 's2'.*Add 's2->s2'"),
  ({"data__bands": ("s2=B99",)}, XJepaError, r"B99"),
  (
    {"heads__layout__cells": 8, "heads__layout__size": 64},
    ConfigError,
    r"'heads.layout.cells' is 8; the grid has 4 x 4 tokens.*at most 4",
  ),
  ({"optimizer__warmup": 40}, ConfigError, r"'optimizer.warmup' is 40 and training.steps is 12"),
)


@pytest.mark.parametrize(("keys", "kind", "said"), REFUSED, ids=[next(iter(r[0])) for r in REFUSED])
def test_values_that_do_not_go_together_are_refused_before_anything_is_written(
  simulated: str, tmp_path: Path, keys: dict[str, Any], kind: type[XJepaError], said: str
) -> None:
  config = changed(resolve(get_config(simulated)), **keys)
  workdir = tmp_path / "run"
  with pytest.raises(kind, match=said) as caught:
    run(config, str(workdir))
  assert "\n" not in str(caught.value)
  assert not (workdir / "config.json").exists()


@pytest.mark.parametrize(
  ("split", "every"),
  [("test", 10), ("validation", 10), ("validation", 0)],
  ids=["test", "validation", "validation, never evaluated: confidence is fitted on it"],
)
def test_a_split_that_an_import_left_empty_is_refused_before_anything_is_written(
  tmp_path: Path, split: str, every: int
) -> None:
  archive = simulated_archive(pairs=20, size=16)
  directory = write(dataclasses.replace(archive, splits={**archive.splits, split: []}), tmp_path)
  config = changed(resolve(get_config(directory)), evaluation__every=every)
  left = "train, " + ("validation" if split == "test" else "test")
  with pytest.raises(DatasetError, match=rf"'data.{split}' is '{split}': .*there are {left}"):
    run(config, str(tmp_path / "run"))
  assert not (tmp_path / "run" / "config.json").exists()


def write(archive: Archive, folder: Path) -> str:
  """An archive as a data set below a folder; its directory."""
  directory = str(folder / "pairs")
  write_dataset(plan_import(archive, 100_000, "bytes"), directory)
  return directory


def read_less(entry: Entry, read: Callable[[Entry], Pair], keys: tuple[str, ...]) -> Pair:
  """A pair without labels; every third one has the last of its sensors alone."""
  pair = read(entry)
  kept = keys[-1:] if entry.source % 3 == 0 else keys
  return Pair(pair.pair_id, {key: pair.observations[key] for key in kept})


def poorer(pairs: int, keys: tuple[str, ...], seed: int) -> Archive:
  """Simulated scenes as an archive of less: without labels, and with sensors lacking."""
  archive = simulated_archive(pairs=pairs, size=16, seed=seed)
  return dataclasses.replace(
    archive,
    sensors={key: archive.sensors[key] for key in keys},
    read=functools.partial(read_less, read=archive.read, keys=keys),
  )


def test_data_sets_are_mixed_though_sensors_lack_in_pairs_and_in_a_whole_data_set(
  simulated: str, compiled: str, tmp_path: Path
) -> None:
  directories = (
    write(poorer(40, ("s2",), seed=2), tmp_path / "none"),
    simulated,
    write(poorer(40, ("s1", "s2"), seed=1), tmp_path / "some"),
  )
  config = changed(
    resolve(get_config(simulated)),
    data__directories=directories,
    routes=("s1->s2", "s2->s2"),
    training__steps=4,
    optimizer__warmup=1,
    evaluation__every=2,
    evaluation__encoder="online",
    evaluation__pairs=15,
    evaluation__linear=50,
    telemetry__histograms=2,
    telemetry__profile=(2, 3),
  )
  workdir = str(tmp_path / "run")
  run(config, workdir)
  report = json.loads(Path(workdir, "report", "metrics.json").read_text())
  rows = {(row["name"], row["direction"]): row for row in report["summary"]}
  assert shares(config, "test", 15) == [4, 7, 4]  # of 4, 16 and 4
  both = 7 + len([pair for pair in range(9, 40, 10) if pair % 3])
  for name in ("X-JEPA, layout", "linear", "gradients", "image statistics", "mutual information"):
    assert rows[name, "s1->s2"]["queries"] == both
    assert rows[name, "s1->s2"]["recall@1"] is not None
  assert rows["X-JEPA, layout", "s1->s2"]["archive_size"] == 15
  assert ("X-JEPA, layout, averaged encoder (not exported)", "s1->s2") in rows
  assert report["protocol"]["encoder"] == "the trained encoder, whole images"
  assert glob.glob(f"{workdir}/profile/**/*.xplane.pb", recursive=True)
  (events,) = glob.glob(f"{workdir}/tensorboard/*tfevents*")
  assert b"encoder/trunk" in Path(events).read_bytes()
  assert losses(workdir)[4].keys() >= {"loss/total", "loss/latent"}


def test_one_sensor_without_labels_is_trained_and_its_last_step_exported(
  compiled: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  directory = write(poorer(40, ("s2",), seed=3), tmp_path)
  config = changed(
    resolve(get_config(directory)),
    data__image_size=12,
    data__bands=("s2=B04,B03,B02",),
    mask__blocks=1,
    training__steps=2,
    optimizer__warmup=1,
    evaluation__every=2,
  )
  run(config, str(tmp_path / "run"))
  said = capsys.readouterr().err
  assert "No step has a score on the validation split; the last, 2, is evaluated and" in said
  assert "exported, averaged encoder" in said
  report = json.loads(Path(tmp_path, "run", "report", "metrics.json").read_text())
  assert report["summary"] == [] and "rankme/s2" in report["geometry"]
  (events,) = glob.glob(f"{tmp_path}/run/tensorboard/*tfevents*")
  assert b"validation/tokens" in Path(events).read_bytes()
  assert (tmp_path / "run" / "encoder" / "encoder.json").exists()


def test_updates_that_are_not_finite_end_the_run_with_the_pairs_of_the_step(
  simulated: str, compiled: str, tmp_path: Path
) -> None:
  broken = {"optimizer__learning_rate": 1e38, "optimizer__clip": 0.0, "evaluation__every": 0}
  config = changed(resolve(get_config(simulated)), training__bad_steps=2, **broken)
  with pytest.raises(TrainingError, match="the last 2 updates were not finite") as failure:
    run(config, str(tmp_path / "run"))
  said = str(failure.value)
  step = int(re.findall(r"^step (\d+):", said)[0])
  with open_experiment(config).training_pipeline() as pipeline:
    batches = pipeline.batches(step)
    batch = next(batches)[1]
    batches.close()
    (dataset,) = pipeline.source.datasets
    expected = [dataset.records.where(int(each)) for each in np.asarray(batch["record"])]
  assert "; ".join(expected[:8]) in said
  history = read_history(f"{tmp_path}/run/metrics.jsonl")
  assert max(row.get("skipped/total", 0) for row in history) >= 1


def test_a_run_in_object_storage_is_refused_at_once(simulated: str) -> None:
  with pytest.raises(ConfigError, match="--workdir=gs://bucket/run.*mounted disk"):
    run(resolve(get_config(simulated)), "gs://bucket/run")


def test_plan_says_what_a_run_needs_and_writes_nothing(
  simulated: str, compiled: str, tmp_path: Path
) -> None:
  workdir = tmp_path / "run"
  line, options = command(
    f"--config={CONFIG}:{simulated}", f"--workdir={workdir}", "--plan", compiled=compiled
  )
  ended = subprocess.run(line, capture_output=True, text=True, timeout=600, **options)
  assert ended.returncode == 0, ended.stderr
  assert not workdir.exists()
  said = ended.stdout
  assert "  * model.patch = 4\n" in said and "    model.mlp_ratio = 4.0\n" in said
  assert re.search(r"Mesh: 8 x cpu: replica 1, fsdp 8, tensor 1", said)
  assert re.search(r"Operations: [\d.,]+ GFLOP a step", said)
  experiment = open_experiment(resolve(get_config(simulated)))
  params = experiment.abstract_state().params
  assert f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,}" in said
  for path, _ in jax.tree_util.tree_leaves_with_path(params):
    assert f"  {jax.tree_util.keystr(path, simple=True, separator='/')}  " in said
