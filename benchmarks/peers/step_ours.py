"""xjepa_jax's train step on arrays that are on the device already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from benchmarks.peers.pair_files import pixels
from benchmarks.peers.pair_format import SENSORS
from benchmarks.peers.step_shapes import (
  BETAS,
  CONTEXT,
  LEARNING_RATE,
  MOMENTUM,
  SCALE,
  WEIGHT_DECAY,
  StepShape,
)
from xjepa_jax.config import default_config, resolve
from xjepa_jax.training.experiment import Experiment, open_experiment
from xjepa_jax.training.mesh import batch_sharding


def experiment(shape: StepShape, directory: str, accumulate: int = 1, **model: Any) -> Experiment:
  """The experiment of a size.

  Args:
    shape: the size.
    directory: of a data set with pairs of that size; nothing but its description is used.
    accumulate: parts of a batch whose gradients are added up.
    model: keys of the config's group `model` that differ from the default, such as `unroll=12`.
  """
  config = default_config()
  config.data.update(directories=(directory,), validation="train", test="train")
  config.augment.update(flips=False, quarter_turns=False, gain=0.0, offset=0.0)
  config.mask.update(blocks=shape.blocks, scale=SCALE, context=CONTEXT)
  config.model.update(
    width=shape.width, depth=shape.depth, attention_heads=shape.heads, patch=shape.patch, **model
  )
  config.predictor.update(
    width=shape.predictor_width, depth=shape.predictor_depth, attention_heads=shape.heads
  )
  config.objective = {"latent": {"term": "latent", "distance": "l2"}}
  config.heads = {"semantic": {"pooling": "mean", "size": 16}}  # one there must be
  config.evaluation.head = "semantic"
  config.optimizer.update(
    learning_rate=LEARNING_RATE,
    final_learning_rate=LEARNING_RATE,
    warmup=0,
    clip=0.0,
    weight_decay=WEIGHT_DECAY,
    final_weight_decay=WEIGHT_DECAY,
    b1=BETAS[0],
    b2=BETAS[1],
  )
  config.target.update(momentum=MOMENTUM, schedule="constant")
  config.training.update(batch=shape.batch, accumulate=accumulate, precision="float32")
  built = open_experiment(resolve(config))
  found = (built.plan.context_tokens, built.plan.blocks, built.plan.block_tokens)
  if found != (shape.context_tokens, shape.blocks, shape.block_tokens):
    raise AssertionError(f"masks have {found} tokens, which are not those of {shape}")
  return built


def stored_values(shape: StepShape) -> dict[str, np.ndarray]:
  """A batch of different pairs as they are stored: sensor -> (B, H, W, C)."""
  pairs = [pixels(index, shape.pixels) for index in range(shape.batch)]
  return {key: np.stack([pair[key] for pair in pairs]) for key in SENSORS}


def device_batch(built: Experiment, values: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """A batch as the step takes it, on the device."""
  count = len(next(iter(values.values())))
  batch = {
    "values": dict(values),
    "present": {key: np.ones(count, bool) for key in values},
    "valid": np.ones(count, bool),
  }
  return jax.device_put(batch, batch_sharding(built.mesh))
