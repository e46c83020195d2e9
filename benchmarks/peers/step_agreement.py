"""Whether PyTorch's step computes the loss that ours does, of the same parameters and masks.

  python -m benchmarks.peers.step_agreement tiny DIRECTORY

The predictor that the benchmark times lets context tokens attend to the block that they were
copied for, as I-JEPA's does; ours does not. Here PyTorch's keeps them apart, so that both are one
function.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import jax
import numpy as np
import torch

from benchmarks.peers import step_ours
from benchmarks.peers.pair_format import SENSORS
from benchmarks.peers.step_shapes import SHAPES, StepShape, pairs_path, shape_of
from benchmarks.peers.step_torch import Layer, Trainer
from xjepa_jax.model.masking import sample_masks
from xjepa_jax.training.step import plain_images

_SMALL = {"batch": 2, "depth": 2, "predictor_depth": 2}


def losses(shape: StepShape, directory: str) -> dict[str, float]:
  """The loss of both: "ours", "torch", and "torch_joint" as it is timed."""
  built = step_ours.experiment(shape, pairs_path(directory))
  params = built.init(jax.random.key(0))
  # Biases, tags and scales start at 0 or 1, where a mistake would not show.
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  moved = [x + 0.05 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
  params = jax.tree.unflatten(tree, moved)
  values = step_ours.stored_values(shape)
  key = jax.random.key(2)

  @jax.jit
  def ours(params: Any, batch: Any) -> jax.Array:
    images, seen = plain_images(built.model, batch["values"])
    outputs = built.model.outputs(
      params, params["encoder"], images, seen, batch["present"], built.plan, key
    )
    return built.objective.loss(params["objective"], outputs, 0, key)[0]

  masks = sample_masks(key, built.plan, shape.batch, built.model.contexts, built.model.targets)
  context, blocks = (
    {name: torch.from_numpy(np.array(places)).long() for name, places in found.items()}
    for found in masks
  )
  scalings = {name: given.sensor.scaling for name, given in built.inputs.items()}
  statistics = {name: torch.tensor([each.mean, each.std]) for name, each in scalings.items()}
  trainer = Trainer(shape, statistics)
  _copy(trainer, params)
  stored = {name: torch.from_numpy(each) for name, each in values.items()}
  with torch.no_grad():
    apart = trainer.loss(stored, context, blocks, isolated=True).item()
    joint = trainer.loss(stored, context, blocks).item()
  found = float(ours(params, step_ours.device_batch(built, values)))
  return {"ours": found, "torch": apart, "torch_joint": joint}


def main(argv: list[str] | None = None) -> None:
  """Prints the losses as JSON."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.peers.step_agreement",
    description="Compare the loss of both train steps.",
  )
  parser.add_argument("size", choices=tuple(SHAPES))
  parser.add_argument("directory", help="with the inputs")
  args = parser.parse_args(argv)
  print(json.dumps(losses(shape_of(args.size, **_SMALL), args.directory)))


def _copy(trainer: Trainer, params: Any) -> None:
  encoder, predictor = params["encoder"], params["predictor"]
  for module in (trainer.encoder, trainer.target):
    for key in SENSORS:
      _linear(module.stems[key], encoder["stems"][key]["project"])
    _layers(module.layers, encoder["trunk"]["blocks"])
    _norm(module.norm, encoder["norm"])
  ends = predictor["embedding"]
  _linear(trainer.predictor.enter, ends["enter_tokens"])
  _linear(trainer.predictor.leave, ends["leave"])
  _norm(trainer.predictor.norm, ends["norm"])
  _set(trainer.predictor.mask_token, ends["mask_token"])
  for key in SENSORS:
    _set(trainer.predictor.tags[key], ends["sensor_tags"][key])
    _set(trainer.predictor.context_tags[key], ends["context_tags"][key])
  _layers(trainer.predictor.layers, predictor["trunk"]["blocks"])


def _layers(layers: Any, stacked: Any) -> None:
  for number, layer in enumerate(layers):
    given = jax.tree.map(lambda x, number=number: x[number], stacked)
    _norm(layer.norm1, given["norm1"])
    _norm(layer.norm2, given["norm2"])
    _set_qkv(layer, given["attention"]["qkv"])
    _linear(layer.out, given["attention"]["out"])
    _linear(layer.up, given["mlp"]["up"])
    _linear(layer.down, given["mlp"]["down"])


def _set_qkv(layer: Layer, given: Any) -> None:
  """Ours has the columns head by head, PyTorch's queries, keys and values one after another."""

  def turned(x: Any) -> np.ndarray:
    parts = np.asarray(x).reshape(*x.shape[:-1], layer.heads, 3, -1)
    return np.moveaxis(parts, -2, -3).reshape(x.shape)

  _linear(layer.qkv, {"kernel": turned(given["kernel"]), "bias": turned(given["bias"])})


def _linear(layer: Any, given: Any) -> None:
  _set(layer.weight, np.asarray(given["kernel"]).T)
  _set(layer.bias, given["bias"])


def _norm(layer: Any, given: Any) -> None:
  _set(layer.weight, given["scale"])
  _set(layer.bias, given["bias"])


def _set(parameter: torch.Tensor, value: Any) -> None:
  if parameter.shape != value.shape:
    raise AssertionError(f"PyTorch's parameter has shape {parameter.shape}, ours {value.shape}")
  with torch.no_grad():
    parameter.copy_(torch.from_numpy(np.array(value)))


if __name__ == "__main__":
  main()
