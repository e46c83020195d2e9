"""A working directory refuses another config by its keys."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from xjepa_jax.config import Config, DataConfig, describe_keys, to_dict
from xjepa_jax.errors import CheckpointError
from xjepa_jax.training.splits import data_digests
from xjepa_jax.training.workdir import CONFIG, FREE_KEYS, claim_workdir, differences

RUN: dict[str, Any] = {
  "model": {"width": 16, "remat": "none"},
  "routes": ("a->b", "b->a"),
  "objective": {},
  "checkpoint": {"keep": 2},
  "training": {"steps": 100},
}


def test_the_same_config_goes_on_and_free_keys_may_change(tmp_path: Path) -> None:
  workdir = str(tmp_path / "new" / "run")
  claim_workdir(workdir, RUN)
  claim_workdir(workdir, RUN)
  changed = {**RUN, "checkpoint": {"keep": 9}, "mesh": {"fsdp": 4}}
  claim_workdir(workdir, {**changed, "model": {"width": 16, "remat": "full"}})
  assert json.loads((tmp_path / "new" / "run" / CONFIG).read_text())["checkpoint"] == {"keep": 2}


def test_another_config_is_refused_with_every_key_that_differs(tmp_path: Path) -> None:
  claim_workdir(str(tmp_path), RUN)
  other = {
    **RUN,
    "model": {"width": 32, "depth": 2, "remat": "full"},
    "training": {"steps": 200},
    "routes": ("a->b",),
  }
  with pytest.raises(CheckpointError) as error:
    claim_workdir(str(tmp_path), other)
  for said in (
    "model.depth: 0, 2",
    "model.width: 16, 32",
    'routes: ["a->b", "b->a"], ["a->b"]',
    "training.steps: 100, 200",
  ):
    assert said in str(error.value)
  assert "remat" not in str(error.value)


def test_a_key_that_is_newer_than_the_run_had_its_default_then(tmp_path: Path) -> None:
  now = to_dict(Config())
  stored = {key: value for key, value in now.items() if key != "sensors"}
  stored["augment"] = {key: value for key, value in now["augment"].items() if key != "zoom"}
  stored["heads"] = {"layout": {"pooling": "grid", "cells": 8, "size": 512}}
  now["heads"] = {"layout": to_dict(Config().heads["layout"])}
  stored["evaluation"] = now["evaluation"] = {**now["evaluation"], "head": "layout"}
  assert differences(stored, now) == []
  now["augment"]["zoom"] = 0.25
  assert differences(stored, now) == ["augment.zoom: 0.0, 0.25"]


def test_free_keys_are_keys_or_groups_of_the_schema() -> None:
  known = {key for key, _, _ in describe_keys()}
  for free in FREE_KEYS:
    assert any(key == free or key.startswith(f"{free}.") for key in known), free
  assert not any(
    key.startswith(("model.width", "objective", "training.steps")) for key in FREE_KEYS
  )


def test_a_config_that_was_damaged_is_not_overwritten(tmp_path: Path) -> None:
  (tmp_path / CONFIG).write_text('{"model": ')
  with pytest.raises(CheckpointError, match="config.json: is not JSON"):
    claim_workdir(str(tmp_path), RUN)
  assert (tmp_path / CONFIG).read_text() == '{"model": '


def described(directory: str = "pairs", **digests: str) -> list[dict[str, Any]]:
  """One data set as `data_digests` tells it."""
  splits = {split: digests.get(split, f"{split} 1") for split in ("train", "validation", "test")}
  return [{"directory": directory, "sensors": digests.get("sensors", "s"), "splits": splits}]


def at(directory: str) -> dict[str, Any]:
  """The run's config with its data at a path."""
  return {**RUN, "data": {"directories": (directory,), "simulate": 0}}


def test_the_same_data_may_lie_elsewhere(tmp_path: Path) -> None:
  claim_workdir(str(tmp_path), at("pairs"), described())
  claim_workdir(str(tmp_path), at("/moved/pairs"), described("/moved/pairs"))


@pytest.mark.parametrize(
  ("now", "said"),
  [
    (
      described(sensors="t"),
      "pairs differs in its sensors or their scaling from what lay in pairs",
    ),
    (described(train="2"), "pairs differs in the pairs of its split 'train'"),
    (described("new", validation="2"), "new differs in the pairs of its split 'validation'"),
    (described(test="2"), "pairs differs in the pairs of its split 'test'"),
    (described() * 2, "1 data sets then and 2 now"),
  ],
  ids=["sensors", "train", "validation", "test", "number"],
)
def test_other_data_are_refused_by_what_differs_though_the_path_is_the_same(
  tmp_path: Path, now: list[dict[str, Any]], said: str
) -> None:
  claim_workdir(str(tmp_path), at("pairs"), described())
  with pytest.raises(CheckpointError, match="belongs to a run of other data") as error:
    claim_workdir(str(tmp_path), at("pairs"), now)
  assert said in str(error.value)


def test_a_run_from_before_there_were_digests_gets_those_of_the_data_at_its_path(
  tmp_path: Path,
) -> None:
  claim_workdir(str(tmp_path), at("pairs"))
  with pytest.raises(CheckpointError, match="data.directories.*Name the data set as then once"):
    claim_workdir(str(tmp_path), at("moved"), described("moved"))
  claim_workdir(str(tmp_path), at("pairs"), described())
  claim_workdir(str(tmp_path), at("moved"), described("moved"))


def test_a_run_from_before_test_pairs_had_a_digest_gets_theirs_and_keeps_all_others(
  tmp_path: Path,
) -> None:
  old = described("old")
  del old[0]["splits"]["test"]
  claim_workdir(str(tmp_path), at("old"), old)
  claim_workdir(str(tmp_path), at("pairs"), described("pairs"))
  assert json.loads((tmp_path / "data.json").read_text())["data"] == described("old")
  claim_workdir(str(tmp_path), at("old"), old)  # as a version that asks for none
  with pytest.raises(CheckpointError, match="split 'test'"):
    claim_workdir(str(tmp_path), at("pairs"), described(test="2"))


def test_digests_are_of_test_pairs_too_where_there_are_some(tmp_path: Path, simulated: str) -> None:
  other = tmp_path / "other"
  shutil.copytree(simulated, other)
  for path in other.glob("*-validation.tfrecord*"):
    named = path.with_name(path.name.replace("-validation.", "-test."))
    assert named.exists()
    shutil.copy(path, named)

  def digests(directory: str, test: str = "test") -> dict[str, str]:
    data = DataConfig(directories=(directory,), test=test)
    (found,) = data_digests(dataclasses.replace(Config(), data=data))
    return dict(found["splits"])

  before, after = digests(simulated), digests(str(other))
  assert set(before) == {"train", "validation", "test"}
  assert {split for split in before if before[split] != after[split]} == {"test"}
  assert set(digests(simulated, test="none")) == {"train", "validation"}


def test_a_damaged_record_of_the_data_is_refused_by_name_and_can_be_removed(tmp_path: Path) -> None:
  claim_workdir(str(tmp_path), at("pairs"), described())
  (tmp_path / "data.json").write_text('{"data": [{"sensors": 1}]}')
  with pytest.raises(CheckpointError, match=r"data\.json: is not what was written .*remove it"):
    claim_workdir(str(tmp_path), at("pairs"), described())
  (tmp_path / "data.json").unlink()
  claim_workdir(str(tmp_path), at("pairs"), described())


def test_more_steps_are_for_extend_which_keeps_them(tmp_path: Path) -> None:
  longer = {**RUN, "training": {"steps": 200}}
  with pytest.raises(CheckpointError, match="--extend goes on with a run that is there"):
    claim_workdir(str(tmp_path), longer, extend=True)
  claim_workdir(str(tmp_path), RUN)
  with pytest.raises(CheckpointError, match="To train on for more steps, add --extend"):
    claim_workdir(str(tmp_path), longer)
  with pytest.raises(CheckpointError, match="model.width: 16, 32"):
    claim_workdir(str(tmp_path), {**longer, "model": {"width": 32}}, extend=True)
  claim_workdir(str(tmp_path), {**longer, "checkpoint": {"keep": 9}}, extend=True)
  claim_workdir(str(tmp_path), longer, extend=True)
  claim_workdir(str(tmp_path), longer)
  stored = json.loads((tmp_path / CONFIG).read_text())
  assert stored["training"] == {"steps": 200} and stored["checkpoint"] == {"keep": 2}
  with pytest.raises(CheckpointError, match="training.steps was 200 and is 100"):
    claim_workdir(str(tmp_path), RUN, extend=True)
