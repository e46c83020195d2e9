"""Times the parts of our train step, each compiled by itself, forward and backward.

  python -m benchmarks.peers.step_parts tiny DIRECTORY

The parts do not add up to the step exactly: compiled together, XLA merges what lies between them.
Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks.peers.process_tree import cpu_seconds
from benchmarks.peers.step_measure import use_cache
from benchmarks.peers.step_shapes import SHAPES, StepShape, pairs_path, shape_of

_TIMES = 5


class Part(NamedTuple):
  """A part of the step: its name, a pure function, its arguments, its operations."""

  name: str
  run: Callable[..., Any]
  arguments: tuple[Any, ...]
  flops: float


def parts(shape: StepShape, directory: str) -> Iterator[Part]:
  """The parts in the order in which the step runs them."""
  import jax
  import optax

  from benchmarks.peers import step_ours
  from xjepa_jax.model.xjepa import merge
  from xjepa_jax.training import flops
  from xjepa_jax.training.step import plain_images
  from xjepa_jax.training.target import find_target

  built = step_ours.experiment(shape, pairs_path(directory))
  model = built.model
  batch = step_ours.device_batch(built, step_ours.stored_values(shape))
  state = built.new_state()
  params, target = state.params, find_target(state.opt_state)
  images, seen = jax.jit(lambda values: plain_images(model, values))(batch["values"])
  key = jax.random.key(0)
  outputs = jax.jit(
    lambda params, target: model.outputs(
      params, target, images, seen, batch["present"], built.plan, key
    )
  )(params, target)
  pairs, sensors, width = shape.batch, len(model.contexts), shape.width
  rows = (sensors, pairs)
  context_places = outputs.positions
  few = jax.random.normal(key, (*rows, shape.context_tokens, width))
  many = jax.random.normal(key, (*rows, shape.tokens, width))
  stem_flops = pairs * sum(
    2 * flops.stem(shape.context_tokens, given.patch, given.bands, width)
    + flops.stem(shape.tokens, given.patch, given.bands, width)
    for given in built.inputs.values()
  )

  def stems(encoder: Any, target: Any, values: Any) -> Any:
    images, seen = plain_images(model, values)

    def entered(encoder: Any, places: Any) -> list[Any]:
      module = merge(model.encoder, encoder)
      return [
        module.stems[key](images[key], seen[key], None if places is None else places[key])
        for key in images
      ]

    def summed(encoder: Any) -> Any:
      return sum(each.sum() for each in entered(encoder, context_places))

    return jax.grad(summed)(encoder)["stems"], entered(target, None)

  yield Part("scaling, stems", stems, (params["encoder"], target, batch["values"]), stem_flops)

  def trunk(encoder: Any, x: Any) -> Any:
    return merge(model.encoder, encoder).trunk(x, None)

  layers = {"width": width, "mlp_ratio": 4, "depth": shape.depth}
  all_images = pairs * sensors
  yield Part(
    "trunk, context, with gradients",
    jax.grad(lambda encoder, x: (trunk(encoder, x) * few).sum(), argnums=(0, 1)),
    (params["encoder"], few),
    3 * all_images * flops.trunk(**layers, tokens=shape.context_tokens),
  )
  yield Part(
    "trunk, target",
    trunk,
    (target, many),
    all_images * flops.trunk(**layers, tokens=shape.tokens),
  )

  blocks = jax.random.randint(
    key, (shape.batch, shape.blocks, shape.block_tokens), 0, shape.tokens, "int32"
  )
  places = jax.random.randint(key, (*rows, shape.context_tokens), 0, shape.tokens, "int32")

  def predicted(predictor: Any, x: Any) -> Any:
    module = merge(model.predictor, predictor)
    found = module(x, places, model.contexts, dict.fromkeys(model.targets, blocks))
    return sum((each**2).sum() for each in found.values())

  asked = shape.blocks * shape.block_tokens * len(model.targets)
  yield Part(
    "predictor, with gradients",
    jax.grad(predicted, argnums=(0, 1)),
    (params["predictor"], few),
    3
    * all_images
    * flops.predictor(
      width,
      shape.predictor_width,
      4,
      shape.predictor_depth,
      shape.context_tokens,
      asked,
      shape.blocks * len(model.targets),
    ),
  )
  yield Part(
    "terms, with gradients",
    jax.grad(
      lambda outputs, key: built.objective.loss(params["objective"], outputs, 0, key)[0],
      allow_int=True,
    ),
    (outputs, key),
    0.0,
  )

  def update(state: Any, grads: Any) -> Any:
    updates, opt_state = built.optimizer.update(grads, state.opt_state, state.params)
    return optax.apply_updates(state.params, updates), opt_state

  yield Part("optimizer, target update", update, (state, params), 0.0)


def timed(part: Part) -> dict[str, Any]:
  """Median seconds of a part, its processor seconds and its operations."""
  import jax

  compiled = jax.jit(part.run).lower(*part.arguments).compile()
  jax.block_until_ready(compiled(*part.arguments))
  times, cpu = [], cpu_seconds(os.getpid())
  for _ in range(_TIMES):
    start = time.perf_counter()
    jax.block_until_ready(compiled(*part.arguments))
    times.append(time.perf_counter() - start)
  return {
    "name": part.name,
    "seconds": statistics.median(times),
    "cpu_seconds": (cpu_seconds(os.getpid()) - cpu) / _TIMES,
    "flops": part.flops,
  }


def main(argv: list[str] | None = None) -> None:
  """Prints the parts as JSON."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.peers.step_parts", description="Time the parts of our train step."
  )
  parser.add_argument("size", choices=tuple(SHAPES))
  parser.add_argument("directory", help="with the inputs")
  args = parser.parse_args(argv)
  use_cache(args.directory)
  print(json.dumps([timed(part) for part in parts(shape_of(args.size), args.directory)]))


if __name__ == "__main__":
  main()
