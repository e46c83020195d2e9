"""The resources that a run will need, determined before it runs: parameters, FLOPs and memory.

Operations are counted by formula (`flops`). Device memory is read from the compiled step, and the
process's memory is measured while this module compiles it: the compiler's share is too large to
guess. The numbers of the process therefore hold only in a process that did nothing else before.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from xjepa_jax.config import HeadConfig, describe_keys, dotted, to_dict
from xjepa_jax.model.encoder import has_network, layer_spec
from xjepa_jax.model.gradients import DIRECTIONS
from xjepa_jax.model.layout import Reading, Source, is_fitted, reads_images, token_parts
from xjepa_jax.model.local import LOCAL_MLP_RATIO, PARTS, PIECES, features
from xjepa_jax.model.predictor import predictor_spec
from xjepa_jax.model.statistics import STATISTICS_CELLS, STATISTICS_PIECES
from xjepa_jax.training import flops, process_memory
from xjepa_jax.training.config_warnings import config_warnings
from xjepa_jax.training.device_peaks import peak_flops
from xjepa_jax.training.experiment import Experiment
from xjepa_jax.training.mesh import batch_sharding
from xjepa_jax.training.splits import split_sizes
from xjepa_jax.training.step import BATCH_KEYS

# Measured on a CPU with JAX 0.10: what a run loads and a plan does not, namely Grain, Orbax's
# writer and the programs that initialise and evaluate a state.
_BESIDES = 80_000_000


@dataclasses.dataclass(frozen=True)
class Memory:
  """Memory in bytes, of one device and of this process.

  Attributes:
    state: on one device: parameters, moments and target encoder.
    batch: on one device: the batch of one step, as stored.
    temporary: on one device: what the compiled step needs besides, activations and gradients.
    compiling: the process's peak while it compiled the step, as measured.
    process: the process's memory after it compiled the step, as measured: Python, JAX, libraries
      and the compiled step.
    ahead: batches that the process reads ahead of the step.
    devices: number of devices of this process.
    shared: whether the devices' memory is the process's own, as on a CPU.
  """

  state: int
  batch: int
  temporary: int
  compiling: int
  process: int
  ahead: int
  devices: int
  shared: bool

  @property
  def peak(self) -> int:
    """The peak on one device. The state is updated in place, so it counts once."""
    return self.state + self.batch + self.temporary

  @property
  def kept(self) -> int:
    """What the process holds throughout: its state on a CPU, batches read ahead, libraries."""
    return self.ahead + _BESIDES + (self.state * self.devices if self.shared else 0)

  @property
  def process_peak(self) -> int:
    """The peak of the process at its first start.

    It is reached either while the step compiles, or while a step runs and a copy of the state
    before it is being saved.
    """
    step = (self.batch + self.temporary) * self.devices if self.shared else 0
    running = self.process + self.kept + self.state * self.devices + step
    return max(self.compiling + self.kept, running)


def step_flops(experiment: Experiment) -> float:
  """Return the floating-point operations of one update with a whole batch, forward and backward."""
  config, model, plan = experiment.config, experiment.model, experiment.plan
  if not has_network(config.model):
    return 0.0
  spec, depth, _ = layer_spec(config.model, model.dtype)
  narrow = predictor_spec(config.predictor, spec)
  shapes = {key: (given.patch, given.bands) for key, given in experiment.inputs.items()}
  return flops.step(
    pairs=config.training.batch,
    contexts=[shapes[key] for key in model.contexts],
    targets=[shapes[key] for key in model.targets],
    routes=[sum(a == key for a, _ in model.routes) for key in model.contexts],
    tokens=plan.tokens,
    context_tokens=plan.context_tokens,
    target_tokens=plan.blocks * plan.block_tokens,
    blocks=plan.blocks,
    width=spec.width,
    depth=depth,
    mlp_ratio=spec.mlp_ratio,
    predictor_width=narrow.width,
    predictor_depth=config.predictor.depth,
    queries=config.predictor.queries if config.predictor.kind == "queries" else None,
    registers=config.model.registers,
    heads=[_head_flops(head, spec.width, experiment) for head in config.heads.values()],
    images=image_flops(experiment),
    parts=parts_flops(experiment, spec.width),
  )


def _head_flops(head: HeadConfig, width: int, experiment: Experiment) -> float:
  """Return the FLOPs of one descriptor, computed from tokens or from the gradients of cells."""
  if head.pooling == "gradients":
    return 0.0
  if is_fitted(head):
    reading, bands = Reading.of(head), [each.bands for each in experiment.inputs.values()]
    told = sum(map(reading.count, bands)) / len(bands)
    total = flops.canonical(reading.cells, head.numbers, told)
    for source in _sources(experiment, width):
      split = token_parts(reading.cells, source.grid)
      places = math.prod(source.grid)
      total += flops.addition(source.width, places, reading.cells, head.numbers, split)
    return total
  return flops.head(width, head.size, head.hidden, head.cells**2 if head.pooling == "grid" else 1)


def _sources(experiment: Experiment, width: int) -> list[Source]:
  grid = experiment.model.grid
  found = [Source(width, grid)]
  if experiment.config.model.local:
    found.append(Source(experiment.config.model.local, (PARTS * grid[0], PARTS * grid[1])))
  return found


def image_flops(experiment: Experiment) -> list[float]:
  """Return, per sensor, the FLOPs per image of everything that reads it without learning."""
  config, model = experiment.config, experiment.model
  readings = [Reading.of(head) for head in config.heads.values() if reads_images(head)]
  rows, columns = (PARTS * PIECES * length for length in model.grid)
  found = []
  for key, each in experiment.inputs.items():
    size = each.height, each.width, each.bands
    total = 0.0
    for reading in readings if key in model.contexts else ():
      if reading.whole:
        total += flops.statistics(*size, STATISTICS_PIECES, STATISTICS_CELLS, DIRECTIONS)
      else:
        total += flops.gradients(*size, reading.cells, DIRECTIONS)
    if config.model.local:
      total += flops.structure(*size, rows, columns, DIRECTIONS)
    found.append(total)
  return found


def parts_flops(experiment: Experiment, width: int) -> float:
  """Return the FLOPs per image of the local network, averaged over sensors."""
  config, grid = experiment.config.model, experiment.model.grid
  if not config.local:
    return 0.0
  patches = math.prod(grid)
  bands = [each.bands for each in experiment.inputs.values()]
  described = PIECES**2 * sum(features(each) for each in bands) / len(bands)
  hidden = LOCAL_MLP_RATIO * config.local
  sizes = config.local, hidden, config.local_depth
  return flops.local(described, *sizes, PARTS**2 * patches, patches, width)


def peak_rate(experiment: Experiment) -> float | None:
  """Return the peak FLOP/s of all devices together, or None where it is not known."""
  devices = experiment.mesh.devices.ravel()
  peak = peak_flops(devices[0].device_kind, str(experiment.model.dtype))
  return None if peak is None else peak * len(devices)


def memory(experiment: Experiment) -> Memory:
  """Compile the step and determine the memory that it needs. Takes as long as a run's first step.

  The process's numbers are right only in a process that has done nothing else before.
  """
  state, batch = experiment.abstract_state(), abstract_batch(experiment)
  compiled = experiment.step.lower(state, batch).compile()  # type: ignore[attr-defined]
  compiling = process_memory.peak_resident()
  process_memory.give_back()
  devices = experiment.mesh.local_devices
  with experiment.training_pipeline() as pipeline:
    ahead = (pipeline.reading.prefetch + 1) * pipeline.source.nbytes()
  return Memory(
    state=device_bytes(state),
    batch=device_bytes(batch),
    temporary=int(compiled.memory_analysis().temp_size_in_bytes),
    compiling=compiling,
    process=process_memory.resident(),
    ahead=ahead,
    devices=len(devices),
    shared=devices[0].platform == "cpu",
  )


def abstract_batch(experiment: Experiment) -> dict[str, Any]:
  """Return shapes, dtypes and shardings of the part of a batch that the step takes."""
  slots = experiment.slots
  rows, sharding = experiment.config.training.batch, batch_sharding(experiment.mesh)

  def array(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((rows, *shape), np.dtype(dtype), sharding=sharding)

  batch = {
    "values": {key: array(slot.shape, slot.sensor.dtype) for key, slot in slots.items()},
    "present": {key: array((), bool) for key in slots},
    "valid": array((), bool),
  }
  return {key: batch[key] for key in BATCH_KEYS}


def device_bytes(tree: Any) -> int:
  """Return the bytes that sharded arrays take on one device."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def describe_plan(experiment: Experiment) -> Iterator[str]:
  """Yield the plan as text, line by line: config, sensors, parameters, FLOPs, memory, mesh."""
  yield "Config"
  yield from (f"  {line}" for line in config_lines(experiment))
  yield from _input_lines(experiment)
  yield "Parameters"
  yield from (f"  {line}" for line in parameter_lines(experiment))
  if not experiment.config.training.steps:
    yield "No steps: what is fitted in closed form is evaluated and exported"
    return
  needed = memory(experiment)
  operations, peak = step_flops(experiment), peak_rate(experiment)
  yield f"Operations: {operations / 1e9:,.2f} GFLOP a step"
  if peak:
    yield f"  at the devices' peak of {peak / 1e12:,.0f} TFLOP/s: {operations / peak * 1e3:,.2f} ms"
  yield from memory_lines(needed)
  devices = experiment.mesh.devices
  sizes = ", ".join(f"{axis} {size}" for axis, size in experiment.mesh.shape.items())
  yield f"Mesh: {devices.size} x {devices.ravel()[0].device_kind}: {sizes}"
  yield f"Arithmetic: {experiment.model.dtype}"
  pairs = split_sizes(experiment.config, experiment.config.data.train)
  yield from (f"Note: {warning}" for warning in config_warnings(experiment, pairs))


def _input_lines(experiment: Experiment) -> Iterator[str]:
  """Yield lines on the sensors and on what a network sees of them: tokens, masks and routes."""
  network = has_network(experiment.config.model)
  yield "Sensors"
  for key, given in experiment.inputs.items():
    patches = f", patches of {given.patch} pixels = {given.metres:g} m" if network else ""
    yield (
      f"  {key}: {given.sensor.product}; {given.height} x {given.width} pixels, "
      f"{given.bands} bands{patches}"
    )
  if not network:
    return
  plan = experiment.plan
  rows, columns = plan.grid
  yield (
    f"  {rows} x {columns} tokens; the context sees {plan.context_tokens} of {plan.tokens}, "
    f"{plan.blocks} target blocks of {plan.block_tokens}"
  )
  yield "  routes " + ", ".join(f"{a}->{b}" for a, b in experiment.model.routes)


def memory_lines(needed: Memory) -> Iterator[str]:
  """Yield lines on the memory of a device and of the process, with their parts in MB."""
  yield (
    f"Memory of a device: {_mb(needed.peak)}: state {_mb(needed.state)}, batch "
    f"{_mb(needed.batch)}, activations and gradients {_mb(needed.temporary)}"
  )
  if not needed.process:
    return  # the operating system does not report the process's memory
  yield (
    f"Memory of the process, at most: {_mb(needed.process_peak)}"
    + (", the devices' included" if needed.shared else "")
  )
  yield f"  {_mb(needed.compiling)} while the step compiles, as measured now"
  yield (
    f"  {_mb(needed.process)} after it, as measured now: Python, JAX, libraries, the compiled step"
  )
  yield (
    f"  {_mb(needed.ahead)} of batches read ahead, {_mb(needed.state * needed.devices)} of a state "
    f"that is being saved, {_mb(_BESIDES)} of what a run loads besides"
  )


def config_lines(experiment: Experiment) -> Iterator[str]:
  """Yield every key with its value; those that differ from the default are marked with a star."""
  values = dotted(to_dict(experiment.config))
  defaults = {key: default for key, default, _ in describe_keys()}
  flat = dotted(defaults)
  for key, value in values.items():
    yield f"{'*' if flat.get(key) != value else ' '} {key} = {value!r}"


def parameter_lines(experiment: Experiment) -> Iterator[str]:
  """Yield name, shape, size and sharding of every parameter array, and the total number."""
  params = experiment.abstract_state().params
  leaves = jax.tree_util.tree_leaves_with_path(params)
  names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
  longest = max(map(len, names))
  for name, (_, leaf) in zip(names, leaves, strict=True):
    shape = " x ".join(map(str, leaf.shape)) or "()"
    yield f"{name:<{longest}}  {shape:>16}  {math.prod(leaf.shape):>12,}  {leaf.sharding.spec}"
  total = sum(math.prod(leaf.shape) for _, leaf in leaves)
  yield f"{'in all':<{longest}}  {'':>16}  {total:>12,}"


def _mb(size: int) -> str:
  return f"{size / 1e6:,.1f} MB"
