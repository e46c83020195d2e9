"""A small experiment as a blueprint: no data set, on devices that are here or that are not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from xjepa_jax.config import Config, default_config, resolve

GOLDEN = Path(__file__).parent / "golden"
# (replica, fsdp, tensor) on eight devices.
LAYOUTS = {
  "fsdp": (1, 8, 1),
  "replica": (8, 1, 1),
  "replica x fsdp": (2, 4, 1),
  "all three": (2, 2, 2),
}


def debug_config(layout: tuple[int, int, int] = (1, 8, 1)) -> Config:
  """The smallest model, wide enough that weights outweigh all else, in float32."""
  config = default_config()
  config.data.image_size = 16
  config.model.update(preset="debug", width=128, patch=4, attention_heads=8)
  config.mask.blocks = 2
  config.predictor.update(depth=1, width=64, attention_heads=8)
  config.heads = ConfigDict({"layout": {"pooling": "grid", "cells": 2, "size": 16}})
  config.objective = ConfigDict({"latent": {}, "vicreg": {"on": "layout"}})
  config.training.update(batch=16, precision="float32")
  config.mesh.update(dict(zip(("replica", "fsdp", "tensor"), layout, strict=True)))
  return resolve(config)


def preset_config(preset: str, mesh: Mapping[str, int] | None = None) -> Config:
  """A preset at 224 pixels and patches of 16, everything else as it is by default."""
  config = default_config()
  config.data.image_size = 224
  config.model.update(preset=preset, patch=16)
  config.training.batch = 4096
  config.mesh.update(dict(mesh or {}))
  return resolve(config)


def compare_with_golden(name: str, lines: list[str]) -> None:
  """Lines against a file of `golden/`; RENEW_GOLDEN=1 in the environment writes it instead."""
  path = GOLDEN / name
  if os.environ.get("RENEW_GOLDEN"):
    path.write_text("\n".join(lines) + "\n")
  golden = path.read_text().splitlines()
  different = [f"- {line}" for line in golden if line not in lines]
  different += [f"+ {line}" for line in lines if line not in golden]
  assert not different, f"{path}: RENEW_GOLDEN=1 accepts\n" + "\n".join(different)
