"""Measures one competitor's train step, in the process that this file is started in.

  python -m benchmarks.peers.step_measure ours tiny DIRECTORY --seconds 10

Prints one line of JSON. Memory is looked at from outside.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.peers.pair_format import SENSORS
from benchmarks.peers.process_tree import cpu_seconds
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

COMPETITORS = ("ours", "torch")
_PRODUCT = 2048  # rows and columns of the matrices that a machine's rate is measured with

# step number -> loss
Step = Callable[[int], float]


def measure(step: Step, batch: int, warm_up: int, seconds: float, least: int) -> dict[str, float]:
  """Runs steps for a while.

  Args:
    step: one update.
    batch: pairs of a step.
    warm_up: steps before the clock starts.
    seconds: how long to measure.
    least: steps to measure, if that takes longer.

  Returns:
    "pairs", "seconds", "cpu_seconds", "fastest" (seconds of the fastest step), "loss" (the last).
  """
  for number in range(warm_up):
    step(number)
  times: list[float] = []
  loss, cpu = float("nan"), cpu_seconds(os.getpid())
  while sum(times) < seconds or len(times) < least:
    start = time.perf_counter()
    loss = step(warm_up + len(times))
    times.append(time.perf_counter() - start)
  return {
    "pairs": batch * len(times),
    "seconds": sum(times),
    "cpu_seconds": cpu_seconds(os.getpid()) - cpu,
    "fastest": min(times),
    "loss": loss,
  }


def product_rate(run: Callable[[], Any], times: int = 8) -> float:
  """FLOP/s of the fastest of several products of two matrices of 2048 x 2048."""
  run()
  found = []
  for _ in range(times):
    start = time.perf_counter()
    run()
    found.append(time.perf_counter() - start)
  return 2 * _PRODUCT**3 / min(found)


def use_cache(directory: str) -> None:
  """Has JAX keep compiled programs in a directory and find them there."""
  import jax

  jax.config.update("jax_compilation_cache_dir", f"{directory}/compiled")
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def ours(
  shape: StepShape, directory: str, cache: bool = True, accumulate: int = 1, **model: Any
) -> tuple[Step, Callable[[], Any], dict[str, float]]:
  """The step of xjepa_jax, a product of matrices, and what was measured of the first step.

  Args:
    shape: the size.
    directory: with the inputs.
    cache: whether the compiled step is kept in the directory and found there.
    accumulate: parts of a batch whose gradients are added up.
    model: keys of the config's group `model`.
  """
  import jax
  import jax.numpy as jnp

  from benchmarks.peers import step_ours
  from xjepa_jax.training.plan import step_flops

  if cache:
    use_cache(directory)
  built = step_ours.experiment(shape, pairs_path(directory), accumulate, **model)
  batch = step_ours.device_batch(built, _values(directory))
  state = jax.block_until_ready(built.new_state())
  start = time.perf_counter()
  lowered = built.step.lower(state, batch)  # type: ignore[attr-defined]
  traced = time.perf_counter()
  compiled = lowered.compile()
  first = {
    "trace": traced - start,
    "compile": time.perf_counter() - traced,
    "temporary": compiled.memory_analysis().temp_size_in_bytes,
    "flops": step_flops(built),
  }

  def step(number: int) -> float:
    nonlocal state
    del number
    state, metrics = compiled(state, batch)
    return float(metrics["loss/total"])

  matrix = jnp.asarray(_matrix())
  product = jax.jit(jnp.matmul)
  return step, lambda: product(matrix, matrix).block_until_ready(), first


def torch(
  shape: StepShape, directory: str, threads: int = 1, accumulate: int = 1
) -> tuple[Step, Callable[[], Any], dict[str, float]]:
  """The same of PyTorch, with so many threads."""
  import torch as pytorch

  from benchmarks.peers.step_torch import Trainer

  pytorch.set_num_threads(threads)
  statistics = {
    key: pytorch.from_numpy(np.load(statistics_path(directory, key))) for key in SENSORS
  }
  trainer = Trainer(shape, statistics)
  stored = {key: pytorch.from_numpy(each) for key, each in _values(directory).items()}
  places, asked = (
    {key: pytorch.from_numpy(np.load(path(directory, key))).long() for key in SENSORS}
    for path in (context_path, blocks_path)
  )

  def step(number: int) -> float:
    context, blocks = (
      {key: each[number % len(each)] for key, each in found.items()} for found in (places, asked)
    )
    return trainer.step(stored, context, blocks, accumulate)

  matrix = pytorch.from_numpy(_matrix())
  return step, functools.partial(pytorch.matmul, matrix, matrix), {}


def main(argv: list[str] | None = None) -> None:
  """Prints a measurement."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.peers.step_measure",
    description="Measure one competitor's train step.",
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument("competitor", choices=COMPETITORS)
  parser.add_argument("size", choices=tuple(SHAPES))
  parser.add_argument("directory", help="with the inputs")
  parser.add_argument("--seconds", type=float, default=10.0)
  parser.add_argument("--warm-up", type=int, default=1, help="steps before the clock starts")
  parser.add_argument("--least", type=int, default=3, help="steps measured, however long they take")
  parser.add_argument("--shape", default="{}", help="numbers of the size to change, as JSON")
  parser.add_argument("--options", default="{}", help="of the competitor, as JSON")
  args = parser.parse_args(argv)
  shape = shape_of(args.size, **json.loads(args.shape))
  open_competitor: Any = {"ours": ours, "torch": torch}[args.competitor]
  step, product, first = open_competitor(shape, args.directory, **json.loads(args.options))
  found: dict[str, float] = dict(first)
  if args.least:
    found |= measure(step, shape.batch, args.warm_up, args.seconds, args.least)
    found["product_rate"] = product_rate(product)
  print(json.dumps(found))


def _values(directory: str) -> dict[str, np.ndarray]:
  return {key: np.load(values_path(directory, key)) for key in SENSORS}


def _matrix() -> np.ndarray:
  return np.random.default_rng(0).standard_normal((_PRODUCT, _PRODUCT), np.float32)


if __name__ == "__main__":
  main()
