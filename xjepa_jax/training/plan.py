"""What a run will need, before it runs: parameters, operations, memory of a device."""

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

# Measured on a CPU, JAX 0.10: what a run loads that a plan does not, Grain and Orbax's writer, and
# its other programs, which draw a state and measure it.
_BESIDES = 80_000_000


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes: of one device, and of this process.

  Attributes:
    state: of one device: parameters, moments, target encoder.
    batch: of one device and one step, as stored.
    temporary: of one device: what the compiled step needs besides: activations, gradients.
    compiling: the most that the process had while it compiled the step, as measured.
    process: of the process when the step was compiled, as measured: Python, JAX, libraries and the
      step itself.
    ahead: batches that are read ahead of the step, all of this process.
    devices: of this process.
    shared: whether the devices' memory is the process's, as on a CPU.
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
    """Of one device: the state is updated in place."""
    return self.state + self.batch + self.temporary

  @property
  def kept(self) -> int:
    """Of the process, all the time: its state on a CPU, batches read ahead, libraries."""
    return self.ahead + _BESIDES + (self.state * self.devices if self.shared else 0)

  @property
  def process_peak(self) -> int:
    """Of the process, on its first start: while it compiles, or while a step runs and the copy of
    the state before it is being saved."""
    step = (self.batch + self.temporary) * self.devices if self.shared else 0
    running = self.process + self.kept + self.state * self.devices + step
    return max(self.compiling + self.kept, running)


def step_flops(experiment: Experiment) -> float:
  """Floating-point operations of one update of a whole batch, forward and backward."""
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
  """Of a descriptor, from what a network says of places, or from the gradients of cells."""
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
  """Of each sensor's image, by what reads it without learning."""
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
  """Of an image, by the local network, the mean over sensors."""
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
  """FLOP/s of all devices together at best, or None where it is not known."""
  devices = experiment.mesh.devices.ravel()
  peak = peak_flops(devices[0].device_kind, str(experiment.model.dtype))
  return None if peak is None else peak * len(devices)


def memory(experiment: Experiment) -> Memory:
  """Compiles the step and reads what a device will need. Takes as long as a run's first step.

  The measurements of the process are those of a process that has done nothing else before.
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
  """Shapes, types and shardings of what the step takes of a batch."""
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
  """Of one device, of arrays that have shardings."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def describe_plan(experiment: Experiment) -> Iterator[str]:
  """The plan for people, line by line: config, sensors, parameters, operations, memory, mesh."""
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
  """Sensors, and what a network sees of them: tokens, masks, routes."""
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
  """What a device needs and what the process needs, each with its parts, in MB."""
  yield (
    f"Memory of a device: {_mb(needed.peak)}: state {_mb(needed.state)}, batch "
    f"{_mb(needed.batch)}, activations and gradients {_mb(needed.temporary)}"
  )
  if not needed.process:
    return  # the system does not tell
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
  """Every key with its value; those that differ from the default are marked."""
  values = dotted(to_dict(experiment.config))
  defaults = {key: default for key, default, _ in describe_keys()}
  flat = dotted(defaults)
  for key, value in values.items():
    yield f"{'*' if flat.get(key) != value else ' '} {key} = {value!r}"


def parameter_lines(experiment: Experiment) -> Iterator[str]:
  """Name, shape, number and sharding of every array of parameters, and their sum."""
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
