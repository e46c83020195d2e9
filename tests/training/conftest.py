"""A small experiment on simulated pairs, its first state and its first batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import pytest
from ml_collections import ConfigDict

from xjepa_jax.config import Config, default_config, resolve
from xjepa_jax.training.experiment import Experiment, device_batch, open_experiment
from xjepa_jax.training.state import TrainState

Open = Callable[..., Experiment]


def small_config(directory: str) -> ConfigDict:
  """Two routes that share a target, and heads that eight devices can share."""
  config = default_config()
  config.data.directories = (directory,)
  config.routes = ("s1->s2", "s2->s2")
  config.model.update(preset="debug", patch=4, attention_heads=8)
  config.mask.update(blocks=2, scale=(0.15, 0.2), context=0.4)
  config.predictor.update(depth=1, attention_heads=8)
  config.heads = ConfigDict({"layout": {"pooling": "grid", "cells": 2, "size": 16}})
  config.objective = ConfigDict({"latent": {}, "vicreg": {"on": "layout"}})
  config.target.update(schedule="linear", momentum=0.99)
  config.training.update(steps=12, batch=8, precision="float32")
  config.optimizer.warmup = 2
  return config


@dataclasses.dataclass(frozen=True)
class Small:
  """The parts that tests put together.

  Attributes:
    config: resolved.
    experiment: on one device.
    batches: three, as arrays of the host.
    state: before the first step, as arrays of the host.
  """

  config: Config
  experiment: Experiment
  batches: list[Any]
  state: TrainState

  def open(self, layout: tuple[int, int, int]) -> Experiment:
    """The experiment on a mesh of all eight devices."""
    axes = dict(zip(("replica", "fsdp", "tensor"), layout, strict=True))
    mesh = dataclasses.replace(self.config.mesh, **axes)
    return open_experiment(dataclasses.replace(self.config, mesh=mesh))


@pytest.fixture(scope="session")
def small(simulated: str) -> Small:
  """See `Small`."""
  config = resolve(small_config(simulated))
  experiment = open_experiment(config, jax.devices()[:1])
  with experiment.training_pipeline() as pipeline:
    batches = pipeline.batches(0)
    chosen = [jax.device_get(device_batch(next(batches)[1])) for _ in range(3)]
    batches.close()
  return Small(config, experiment, chosen, jax.device_get(experiment.new_state()))
