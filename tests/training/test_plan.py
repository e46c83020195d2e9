"""The plan of a run: its numbers against sums by hand and against the arrays of a real state."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np
import pytest

from tests.training.conftest import Small
from tests.training.parameters import paths
from xjepa_jax.config import HeadConfig
from xjepa_jax.training.experiment import Experiment, device_batch
from xjepa_jax.training.plan import (
  Memory,
  abstract_batch,
  config_lines,
  describe_plan,
  memory,
  memory_lines,
  parameter_lines,
  peak_rate,
  step_flops,
)

TEMPORARY = 4 * 1024 * 1024


def quick(experiment: Experiment) -> Experiment:
  """With a step that compiles at once, and whose sort needs 4 MiB a device besides."""

  def step(state: Any, batch: Any) -> Any:
    numbers = jax.numpy.arange(1024 * 1024) * state.step + batch["valid"].sum()
    return jax.numpy.sort(numbers)[::1000].sum()

  return dataclasses.replace(experiment, step=jax.jit(step))


@pytest.fixture(scope="module")
def sharded(small: Small) -> Experiment:
  return quick(small.open((2, 2, 2)))


def test_the_memory_of_a_state_is_what_its_arrays_take_on_a_device(
  small: Small, sharded: Experiment
) -> None:
  shardings = jax.tree.map(lambda leaf: leaf.sharding, sharded.abstract_state())
  state = jax.device_put(small.state, shardings)
  held = [leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state)]
  found = memory(sharded)
  assert found.state == sum(held) < sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 2
  # 8 rows over 2 x 2 devices: 2 of 16 x 16 pixels, 2 float32 and 12 uint16 bands, and 3 flags.
  assert found.batch == 2 * (16 * 16 * (2 * 4 + 12 * 2) + 3)
  assert found.temporary >= TEMPORARY
  assert found.peak == found.state + found.batch + found.temporary


def test_the_memory_of_the_process_is_the_most_of_compiling_and_running() -> None:
  needed = Memory(
    state=100,
    batch=10,
    temporary=1000,
    compiling=9000,
    process=3000,
    ahead=40,
    devices=2,
    shared=True,
  )
  besides = needed.kept - 40 - 2 * 100  # what is read ahead, and the state of two devices
  assert besides > 0
  assert needed.process_peak == 9000 + besides + 40 + 200
  larger = dataclasses.replace(needed, temporary=10_000)
  saved, step = 2 * 100, 2 * (10 + 10_000)
  assert larger.process_peak == 3000 + besides + 40 + 200 + saved + step
  of_a_gpu = dataclasses.replace(larger, shared=False)
  assert of_a_gpu.process_peak == 9000 + besides + 40


def test_the_process_was_measured_and_batches_ahead_are_counted(sharded: Experiment) -> None:
  found = memory(sharded)
  assert 100e6 < found.process <= found.compiling
  assert found.devices == 8 and found.shared
  local = 8 * (16 * 16 * (2 * 4 + 12 * 2))
  assert found.ahead >= 3 * local  # two at least, and the one that is on its way
  lines = list(memory_lines(found))
  assert f"at most: {found.process_peak / 1e6:,.1f} MB, the devices' included" in lines[1]
  assert len(lines) == 5
  assert len(list(memory_lines(dataclasses.replace(found, process=0)))) == 1


def test_a_batch_is_described_as_the_pipeline_gives_it(sharded: Experiment) -> None:
  with sharded.training_pipeline() as pipeline:
    batches = pipeline.batches(0)
    batch = device_batch(next(batches)[1])
    batches.close()
  described = abstract_batch(sharded)
  assert paths(described).keys() == paths(batch).keys()

  def compare(a: Any, b: jax.Array) -> None:
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    assert a.sharding.is_equivalent_to(b.sharding, b.ndim)

  jax.tree.map(compare, described, batch)


def layer(width: int, tokens: int, seen: float) -> float:
  """Multiply-adds of qkv, scores and sums over `seen` keys in all, out, and an MLP of ratio 4."""
  return tokens * width * width * (3 + 1 + 2 * 4) + 2 * width * seen


@pytest.mark.parametrize("kind", ["narrow", "queries"])
def test_the_operations_of_a_step_are_the_sum_of_its_products(small: Small, kind: str) -> None:
  config = small.config
  heads = {
    **config.heads,
    "deep": dataclasses.replace(config.heads["layout"], pooling="mean", size=10, hidden=20),
  }
  config = dataclasses.replace(
    config,
    heads=heads,
    model=dataclasses.replace(config.model, registers=1),
    predictor=dataclasses.replace(config.predictor, kind=kind, queries=3),
  )
  plan = small.experiment.plan
  n, asked = plan.context_tokens, 2 * plan.block_tokens  # of 16 tokens, and in 2 blocks
  assert (n, plan.block_tokens) == (6, 2)
  target = 16 * (4 * 4 * 12) * 32 + 2 * layer(32, 17, 17 * 17)
  total = target  # forward only
  for bands in (2, 12):  # both sensors predict the second
    total += 2 * n * (4 * 4 * bands) * 32  # the images themselves need no gradient
    context = 2 * layer(32, n + 1, (n + 1) ** 2)
    described = 32 * 16 + 32 * 20 + 20 * 10
    ends = n * 32 * 16 + asked * 16 * 32
    if kind == "narrow":
      route = layer(16, n + asked, n * n + asked * (n + plan.block_tokens))
    else:
      memory = n + 3
      route = layer(16, memory, memory * memory)
      # Queries and outputs of what is asked, keys and values of the memory.
      route += 16 * 16 * (2 * asked + 2 * memory + 8 * asked) + 2 * 16 * asked * memory
    total += 3 * (context + described + ends + route)
  experiment = dataclasses.replace(small.experiment, config=config)
  assert step_flops(experiment) == pytest.approx(8 * 2 * total, rel=1e-12)


def test_heads_that_read_images_are_counted_with_their_gradients(small: Small) -> None:
  new = {
    "linear": HeadConfig(pooling="canonical", cells=8, numbers=3, size=100),
    "gradients": HeadConfig(pooling="gradients", cells=4, size=144),
  }
  config = dataclasses.replace(small.config, heads={**small.config.heads, **new})
  experiment = dataclasses.replace(small.experiment, config=config)
  total = 0.0
  for bands in (2, 12):  # 16 x 16 pixels: blurs, and means of 8 x 8 and of 4 x 4 cells
    total += 2 * (bands + 2) * 2 * 16**3
    total += 10 * (16 * 16 * 8 + 8 * 16 * 8 + 16 * 16 * 4 + 4 * 16 * 4)
    # Maps of 64 cells, 16 tokens of 2 x 2 parts, which go to cells where they are not of fill, and
    # the transform.
    total += 3 * (64 * 9 * 3 + 16 * 32 * 12 + 16 * 32 + 64 * 64 * 3 + 2 * 64 * 8 * 3)
  found = step_flops(experiment) - step_flops(small.experiment)
  assert found == pytest.approx(8 * 2 * total, rel=1e-12)


def test_the_peak_of_a_cpu_is_not_known(small: Small) -> None:
  assert peak_rate(small.experiment) is None


def test_every_parameter_is_listed_with_its_size_and_place(
  small: Small, sharded: Experiment
) -> None:
  lines = list(parameter_lines(sharded))
  params = paths(small.state.params)
  assert [line.split()[0] for line in lines[:-1]] == list(params)
  by_name = {line.split()[0]: line for line in lines}
  line = by_name["encoder/trunk/blocks/mlp/up/kernel"]
  assert "2 x 32 x 128" in line and f"{2 * 32 * 128:,}" in line and "'fsdp', 'tensor'" in line
  assert lines[-1].split()[-1] == f"{sum(np.size(leaf) for leaf in params.values()):,}"


def test_the_config_is_listed_and_what_was_changed_is_marked(small: Small) -> None:
  lines = list(config_lines(small.experiment))
  assert "* training.batch = 8" in lines
  assert "* routes = ('s1->s2', 's2->s2')" in lines
  assert "* heads.layout.cells = 2" in lines
  assert "  model.mlp_ratio = 4.0" in lines


def test_the_plan_in_words_names_what_matters(sharded: Experiment) -> None:
  text = "\n".join(describe_plan(sharded))
  needed = memory(sharded)
  for part in (
    "s1: simulated Sentinel-1 GRD, sigma0; 16 x 16 pixels, 2 bands, patches of 4 pixels = 40 m",
    "4 x 4 tokens; the context sees 6 of 16, 2 target blocks of 2",
    "routes s1->s2, s2->s2",
    f"Operations: {step_flops(sharded) / 1e9:,.2f} GFLOP a step",
    f"Memory of a device: {needed.peak / 1e6:,.1f} MB",
    "Mesh: 8 x cpu: replica 2, fsdp 2, tensor 2",
    "Arithmetic: float32",
  ):
    assert part in text
  assert math.isfinite(step_flops(sharded))
