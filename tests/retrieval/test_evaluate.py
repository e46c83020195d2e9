"""The command: real files in a process of its own, and a run's encoder beside other models'."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import FinishedRun
from xjepa_jax.data.import_plan import plan_import
from xjepa_jax.data.simulate import simulated_archive
from xjepa_jax.data.writer import write_dataset
from xjepa_jax.errors import DatasetError
from xjepa_jax.retrieval.baselines import baseline_rows
from xjepa_jax.retrieval.closed_form import closed_form
from xjepa_jax.retrieval.end_evaluation import check_protocol, evaluate_at_end
from xjepa_jax.retrieval.evaluate import main
from xjepa_jax.training.checkpoint import Checkpoints
from xjepa_jax.training.experiment import open_experiment

ROOT = Path(__file__).resolve().parents[2]
SCENES = 40


def two_files(folder: Path, noise: float) -> dict[str, np.ndarray]:
  """A CSV a sensor, of an id and numeric columns, the rows in different orders."""
  rng = np.random.default_rng(1)
  ground = rng.normal(size=(SCENES, 6))
  vectors = {key: ground + noise * rng.normal(size=ground.shape) for key in ("radar", "optical")}
  for key, values in vectors.items():
    order = rng.permutation(SCENES)
    lines = ["id," + ",".join(f"dim_{number}" for number in range(6))]
    lines += [f"scene {i}," + ",".join(f"{x:.9g}" for x in values[i]) for i in order]
    (folder / f"{key}.csv").write_text("\n".join(lines) + "\n")
  return vectors


def test_other_models_files_are_ranked_in_a_process_of_its_own(tmp_path: Path) -> None:
  vectors = two_files(tmp_path, 0.5)
  ended = subprocess.run(
    [
      *(sys.executable, "-m", "xjepa_jax.retrieval.evaluate"),
      f"theirs=radar:{tmp_path}/radar.csv,optical:{tmp_path}/optical.csv",
      *("--json", f"{tmp_path}/found.json", "--quantisation", "all", "--prefixes", "2,4"),
      *("--plot", f"{tmp_path}/sizes.png"),
    ],
    capture_output=True,
    text=True,
    timeout=240,
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": ""},
  )
  assert ended.returncode == 0, ended.stderr
  unit = {key: x / np.linalg.norm(x, axis=1, keepdims=True) for key, x in vectors.items()}
  scores = unit["radar"] @ unit["optical"].T
  places = 1 + np.sum(scores > np.diag(scores)[:, None], axis=1)
  (found,) = json.loads((tmp_path / "found.json").read_text())["protocols"]
  row = found["sources"][0]["rows"][0]
  assert (row["query"], row["archive"], row["queries"]) == ("radar", "optical", SCENES)
  for k in (1, 5, 10):
    assert row["metrics"][f"recall@{k}"] == pytest.approx(np.mean(places <= k))
    assert row["chance"][f"recall@{k}"] == pytest.approx(k / SCENES)
  low, high = row["interval"]["recall@1"]
  assert low < np.mean(places <= 1) < high
  assert found["protocol"]["name"] == "paired-recall"
  assert "map_relevant" in row["protocol"] and found["image_statistics"].startswith("no pixels")
  shown = re.search(r"theirs +radar → optical +(\d+\.\d) \[", ended.stdout)
  assert shown and float(shown[1]) == pytest.approx(100 * np.mean(places <= 1), abs=0.05)
  assert "theirs: vectors of 6 numbers, columns dim_0, dim_1, dim_2" in ended.stdout
  assert "image statistics: no pixels" in ended.stdout and "chance" in ended.stdout
  sizes = found["sizes"]["theirs"]
  assert [(each["kind"], each["numbers"], each["bytes"]) for each in sizes][:6] == [
    ("float32", 6, 24), ("float16", 6, 12), ("int8", 6, 10), ("binary", 6, 1), ("hamming", 6, 1),
    ("float32", 4, 16),
  ]  # fmt: skip
  assert sizes[0]["directions"]["radar->optical"]["recall@1"] == row["metrics"]["recall@1"]
  assert (tmp_path / "sizes.png").read_bytes().startswith(b"\x89PNG")


def test_pairs_without_a_training_split_leave_image_statistics_out_and_say_so(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  source = simulated_archive(pairs=12, size=16)
  entries = [entry for split in source.splits.values() for entry in split]
  alone = dataclasses.replace(source, splits={"test": entries})
  plan = plan_import(alone, shard_bytes=100_000, encoding="bytes")
  write_dataset(plan, tmp_path / "pairs")
  rng = np.random.default_rng(0)
  lines = ["id,sensor,f0,f1,f2"]
  for entry in entries:
    for sensor in ("s1", "s2"):
      lines.append(",".join([entry.pair_id, sensor, *map(str, rng.normal(size=3))]))
  (tmp_path / "x.csv").write_text("\n".join(lines) + "\n")
  argv = [f"x={tmp_path}/x.csv", "--pairs", str(tmp_path / "pairs")]
  assert main(argv) == 0
  printed = capsys.readouterr().out
  assert "image statistics: no split 'train' to fit them on; --train names one of test" in printed
  assert "x " in printed and "s1 → s2" in printed
  assert main([*argv, "--train", "test"]) == 0  # the way out
  assert "no split" not in capsys.readouterr().out
  assert main([*argv, "--linear", "0"]) == 0
  assert "linear" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def compared(
  finished_run: FinishedRun, simulated: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Any], str]:
  """What was measured of the run's encoder beside a file of random vectors, and the command."""
  from xjepa_jax.data.dataset import PairDataset

  folder = tmp_path_factory.mktemp("compared")
  rng = np.random.default_rng(0)
  lines = ["id,sensor,a,b,c"]
  for split in ("validation", "test"):
    with PairDataset(simulated, split) as pairs:
      lines += [
        ",".join([pairs[number].pair_id, sensor, *(f"{x:.6f}" for x in rng.normal(size=3))])
        for number in range(len(pairs))
        for sensor in ("s1", "s2")
      ]
  (folder / "lots.csv").write_text("\n".join(lines) + "\n")
  out = folder / "found.json"
  status = main(
    [
      *(f"ours={finished_run.workdir}/encoder", f"lots={folder}/lots.csv", "--pairs", simulated),
      *("--protocol", "paired-recall", "--protocol", "csmae-f1@10", "--json", str(out)),
    ]
  )
  assert status == 0
  return json.loads(out.read_text())["protocols"], str(out)


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("compiled_quickly")
def test_an_encoder_is_measured_as_its_run_was_plain_and_predicted(
  compared: tuple[list[Any], str], finished_run: FinishedRun
) -> None:
  (recall, _), _ = compared
  report = json.loads(Path(finished_run.workdir, "report", "metrics.json").read_text())
  named = {"descriptors": "X-JEPA, layout", "predict-then-search":
           "X-JEPA, layout, predict-then-search"}  # fmt: skip
  rows = recall["sources"][0]["rows"]
  assert len(rows) == 4
  for row in rows:
    way = f"{row['query']}->{row['archive']}"
    (told,) = [
      each
      for each in report["summary"]
      if each["name"] == named[row["method"]] and each["direction"] == way
    ]
    for metric in ("recall@1", "recall@5", "recall@10", "mrr"):
      assert row["metrics"][metric] == pytest.approx(told[metric], abs=1e-6), (way, metric)


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("compiled_quickly")
def test_several_models_and_baselines_are_held_against_the_same_archive(
  compared: tuple[list[Any], str],
) -> None:
  (recall, csmae), _ = compared
  assert [each["name"] for each in csmae["sources"]] == ["ours", "lots"]
  for found, directions in ((recall, 2), (csmae, 4)):
    assert len(found["baselines"]) == 3 * directions and not found["not_measured"]
    for row in (*found["sources"][0]["rows"], *found["sources"][1]["rows"], *found["baselines"]):
      assert (row["queries"], row["archive_size"]) == (16, 16)
  assert csmae["protocol"]["queries"] == "validation"
  assert all(row["co_located"] == 0 for row in csmae["sources"][1]["rows"])
  assert [each["dimensions"] for each in csmae["sources"]] == [32, 3]


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("compiled_quickly")
def test_the_end_of_a_run_by_another_protocol_is_what_the_command_measures_of_its_export(
  compared: tuple[list[Any], str], finished_run: FinishedRun
) -> None:
  (_, csmae), _ = compared
  config = finished_run.config
  chosen = dataclasses.replace(config.evaluation, protocol="csmae-f1@10", linear=20_000)
  experiment = open_experiment(dataclasses.replace(config, evaluation=chosen))
  check_protocol(experiment)
  described = json.loads(Path(finished_run.workdir, "encoder", "encoder.json").read_text())
  with Checkpoints(finished_run.workdir, {}, read_only=True) as checkpoints:
    state = checkpoints.restore(experiment.abstract_state(), described["training"]["steps"])
  found = evaluate_at_end(experiment, state, described["training"]["encoder"])
  assert (found.protocol.queries, found.protocol.archive) == ("validation", "test")
  ours = {
    (row.query, row.archive, row.method): row
    for name in ("layout", "layout, predict-then-search")
    for row in found.evaluation.rows[name]
  }
  theirs = csmae["sources"][0]["rows"]
  assert len(ours) == len(theirs) == 6
  for row in theirs:
    measured = ours[row["query"], row["archive"], row["method"]]
    for metric in found.protocol.headline:
      assert row["metrics"][metric] == pytest.approx(measured.metrics[metric], abs=1e-6)
  baselines = [*baseline_rows(experiment, found.protocol)]
  baselines += [*closed_form(experiment, found.protocol).rows]
  again = {(row.method, row.query, row.archive): row.metrics for row in baselines}
  assert {name for name, _, _ in again} == {"image statistics", "gradients", "linear"}
  assert len(csmae["baselines"]) == len(again)
  for row in csmae["baselines"]:
    expected = again[row["method"], row["query"], row["archive"]]
    assert row["metrics"] == pytest.approx(expected, abs=1e-6), row["method"]


def test_a_protocol_whose_split_is_missing_is_refused_before_training(
  finished_run: FinishedRun,
) -> None:
  data = dataclasses.replace(finished_run.config.data, validation="val")
  evaluation = dataclasses.replace(finished_run.config.evaluation, protocol="csmae-f1@10", every=0)
  config = dataclasses.replace(finished_run.config, data=data, evaluation=evaluation)
  with pytest.raises(DatasetError, match="no split 'val'"):
    check_protocol(open_experiment(config))


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (["none.csv"], "none.csv: there is no such file"),
    (["x.csv", "--protocol", "paired"], "no protocol 'paired'; .*Did you mean 'paired-recall'"),
    (["a=radar:{}/radar.csv", "--plot", "x.png"], "nothing to measure"),
    (["a=radar:{}/radar.csv", "a=radar:{}/radar.csv"], "give each a name of its own"),
    (["a=radar:{}/radar.csv", "--protocol", "ben14k-f1@5"], "no scene has any"),
    (["{}/radar.csv"], "name its sensor as SENSOR:"),
    (["{0}/radar.csv", "--pairs", "{0}"], "sensor"),
  ],
)
def test_what_is_wrong_is_said_in_one_paragraph(
  tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
  two_files(tmp_path, 0.1)
  assert main([each.format(tmp_path) for each in arguments]) == 1
  (paragraph,) = capsys.readouterr().err.strip().splitlines()
  assert paragraph.startswith("error: ") and re.search(said, paragraph), paragraph


@pytest.mark.parametrize("option", ["--split", "--queries", "--archive"])
def test_a_split_is_not_asked_of_files_that_have_none(
  tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
  two_files(tmp_path, 0.5)
  source = f"theirs=radar:{tmp_path}/radar.csv,optical:{tmp_path}/optical.csv"
  assert main([source, option, "train", "--resamples", "0"]) == 1
  error = capsys.readouterr().err
  assert f"{option} train: theirs says of no scene" in error and "--split-column" in error
  assert main([source, "--resamples", "0"]) == 0  # left out
  for key in ("radar", "optical"):  # or a column of splits
    path = tmp_path / f"{key}.csv"
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([f"{header},split", *(f"{line},train" for line in lines)]) + "\n")
  assert main([source, "--split", "train", "--resamples", "0"]) == 0
