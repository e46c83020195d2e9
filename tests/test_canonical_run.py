"""A network that starts from the closed form, trained, exported and evaluated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import xjepa_jax
from tests.conftest import compiling_quickly
from tests.debug_config import get_config
from xjepa_jax.config import resolve
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.errors import ExportError
from xjepa_jax.retrieval.evaluate import main as evaluate
from xjepa_jax.run import run

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def workdir(simulated: str, compiled: str, tmp_path_factory: pytest.TempPathFactory) -> str:
  """Of a run of three steps, whose trained encoder is exported."""
  config = get_config(simulated)
  config.model.local = 8
  config.heads.layout = {"pooling": "canonical", "cells": 4, "numbers": 3, "size": 40}
  config.heads.layout["prefixes"] = (12,)
  config.heads.semantic = {"pooling": "statistics", "numbers": 6, "size": 6}
  config.objective = {
    "latent": {"term": "latent"},
    "match": {"term": "contrastive", "on": "layout", "temperature": 0.1},
  }
  config.training.steps = 3
  config.evaluation.every = 3
  config.evaluation.encoder = "online"
  workdir = str(tmp_path_factory.mktemp("canonical") / "run")
  with compiling_quickly():
    run(resolve(config), workdir)
  return workdir


def arrays(workdir: str) -> dict[str, Any]:
  return load_file(Path(workdir, "encoder", "encoder.safetensors"))


def test_what_was_fitted_stays_and_what_the_network_adds_is_trained(workdir: str) -> None:
  rows = [json.loads(line) for line in Path(workdir, "metrics.jsonl").read_text().splitlines()]
  scores = {row["step"]: row for row in rows if "validation/score" in row}
  assert set(scores) == {0, 3}
  for row in scores.values():
    assert 0 <= row["validation/trained/layout/12/s1->s2/recall@1"] <= 1
  report = json.loads(Path(workdir, "report", "metrics.json").read_text())
  names = {row["name"] for row in report["summary"]}
  assert {"X-JEPA, layout", "X-JEPA, layout, first 12", "X-JEPA, semantic"} <= names
  found = arrays(workdir)
  kernel = "encoder/layouts/layout/additions/{}/project/kernel"
  step = json.loads(Path(workdir, "encoder", "encoder.json").read_text())["training"]["steps"]
  for source in ("tokens", "parts"):
    assert np.any(found[kernel.format(source)]) == (step > 0)
  assert found["encoder/layouts/layout/maps/s1/kernel"].shape == (9, 3)
  assert found["encoder/layouts/semantic/maps/s2/kernel"].shape == (247, 6)


def test_the_exported_encoder_describes_what_the_run_ranked(workdir: str, simulated: str) -> None:
  encoder = xjepa_jax.load_encoder(f"{workdir}/encoder", predictor=True)
  with PairDataset(simulated, "test") as pairs:
    images = {
      key: np.stack([pairs[n].observations[key].values for n in range(len(pairs))])
      for key in encoder.inputs
    }
  report = json.loads(Path(workdir, "report", "metrics.json").read_text())
  for head, size in (("layout", 40), ("semantic", 6)):
    found = {key: encoder.describe({key: each}, head) for key, each in images.items()}
    assert all(each.shape == (16, size) for each in found.values())
    scores = found["s1"] @ found["s2"].T
    places = (scores > np.diag(scores)[:, None]).sum(axis=1)
    (row,) = (
      row
      for row in report["summary"]
      if row["name"] == f"X-JEPA, {head}" and row["direction"] == "s1->s2"
    )
    assert np.mean(places == 0) == pytest.approx(row["recall@1"])
  assert encoder.predicts() == () == encoder.predicts("semantic")
  with pytest.raises(ExportError, match="s1 to s2 cannot be predicted.*a head that pools"):
    encoder.describe({"s1": images["s1"]}, to="s2")
  assert encoder.patch_grid("layout") == (4, 4) and encoder.patch_grid("semantic") == (1, 1)
  assert encoder.patches({"s1": images["s1"]}, "semantic").shape == (16, 1, 6)


def test_it_is_evaluated_by_the_command_that_evaluates_any(
  workdir: str, simulated: str, capsys: pytest.CaptureFixture[str]
) -> None:
  command = [f"{workdir}/encoder", "--pairs", simulated, "--protocol", "paired-recall"]
  assert evaluate(command) == 0
  assert "R@1" in capsys.readouterr().out
