"""Writes what all competitors of the train step's benchmark work on.

  python -m benchmarks.peers.step_inputs tiny DIRECTORY

Pairs as a data set and as arrays, statistics of the bands, and masks for a few steps, which come
round again. Ours draws its masks in the step, from the same plan; theirs are read, which costs
them nothing.
"""

from __future__ import annotations

import argparse
import json
import os

import jax
import numpy as np

from benchmarks.peers.pair_files import write_pairs
from benchmarks.peers.pair_format import SENSORS
from benchmarks.peers.step_ours import experiment, stored_values
from benchmarks.peers.step_shapes import (
  SHAPES,
  StepShape,
  blocks_path,
  context_path,
  pairs_path,
  shape_of,
  statistics_path,
  values_path,
)
from xjepa_jax.model.masking import sample_masks

_STEPS = 4


def write_inputs(shape: StepShape, directory: str) -> None:
  """Writes everything into a directory, which is made if need be."""
  os.makedirs(directory, exist_ok=True)
  write_pairs(pairs_path(directory), shape.batch, shape.pixels)
  built = experiment(shape, pairs_path(directory))
  for key, values in stored_values(shape).items():
    np.save(values_path(directory, key), values)
    scaling = built.inputs[key].sensor.scaling
    np.save(statistics_path(directory, key), np.asarray([scaling.mean, scaling.std], np.float32))
  masks = [
    sample_masks(
      jax.random.key(step), built.plan, shape.batch, built.model.contexts, built.model.targets
    )
    for step in range(_STEPS)
  ]
  for key in SENSORS:
    np.save(context_path(directory, key), np.stack([each.context[key] for each in masks]))
    np.save(blocks_path(directory, key), np.stack([each.target[key] for each in masks]))


def main(argv: list[str] | None = None) -> None:
  """Writes the inputs of one size."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.peers.step_inputs", description="Write pairs and masks."
  )
  parser.add_argument("size", choices=tuple(SHAPES))
  parser.add_argument("directory")
  args = parser.parse_args(argv)
  write_inputs(shape_of(args.size), args.directory)
  print(json.dumps({"directory": args.directory}))


if __name__ == "__main__":
  main()
