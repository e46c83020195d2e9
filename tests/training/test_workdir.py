"""A working directory refuses another config by its keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from xjepa_jax.config import describe_keys
from xjepa_jax.errors import CheckpointError
from xjepa_jax.training.workdir import CONFIG, FREE_KEYS, claim_workdir

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
    "model.depth: absent, 2",
    "model.width: 16, 32",
    'routes: ["a->b", "b->a"], ["a->b"]',
    "training.steps: 100, 200",
  ):
    assert said in str(error.value)
  assert "remat" not in str(error.value)


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
