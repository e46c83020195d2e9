"""A plan in words for machines that are not at hand: memory, communication, time per step.

It puts estimates beside what the compilers found, names the assumptions of the predicted time, and
ends with warnings and, if there is one, a better layout.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

from xjepa_jax.config import Config
from xjepa_jax.errors import ConfigError, TrainingError
from xjepa_jax.scaling import lowering, proposal
from xjepa_jax.scaling.blueprint import slots_of
from xjepa_jax.scaling.collectives import GRADIENT, REDUCE, SCATTER, Collective, by_axes
from xjepa_jax.scaling.layout import Layout, lay_out
from xjepa_jax.scaling.lowering import Lowered
from xjepa_jax.scaling.roofline import HIDDEN, Prediction
from xjepa_jax.scaling.topologies import Topology, topology
from xjepa_jax.training.config_warnings import config_warnings
from xjepa_jax.training.plan import step_flops

FASTER = 0.95  # another layout is mentioned if its step takes at most this share of the time
ABOVE = 0.05  # warn if more than this share of bytes is sent beyond the unavoidable ones


@dataclasses.dataclass(frozen=True)
class Plan:
  """A layout, and what compiling it showed.

  Attributes:
    layout: the layout, estimated.
    simulated: whether the simulation's sensors are used.
    sent: collectives per step of a device, in the dtypes of a run and over all devices.
    prediction: predicted time of the step.
    compiled: result of compiling for simulated CPUs, perhaps fewer than the devices.
    by_tpu: result of the TPU's compiler, if it is installed.
    failed: reasons for which a compiler failed.
  """

  layout: Layout
  simulated: bool
  sent: tuple[Collective, ...]
  prediction: Prediction
  compiled: Lowered | None
  by_tpu: Lowered | None
  failed: tuple[str, ...] = ()

  @property
  def temporary(self) -> float:
    """Bytes of activations and gradients: as compiled if possible, else estimated."""
    found = self.by_tpu or self.compiled
    return found.temporary if found else self.layout.temporary

  @property
  def peak(self) -> float:
    """Bytes needed on one device."""
    return sum(self.layout.parts.values()) + self.temporary

  @property
  def above(self) -> float | None:
    """Share of bytes sent beyond the unavoidable ones; None with a tensor axis."""
    least = sum(each.wire for each in self.layout.theory)
    if self.layout.mesh["tensor"] > 1 or not least:
      return None
    return sum(each.wire for each in self.sent) / least - 1


def plan(config: Config, name: str, compiles: bool = True, use_libtpu: bool | None = None) -> Plan:
  """Plan a run.

  Args:
    config: resolved config.
    name: name of a topology, see `topologies.topology`.
    compiles: compile the step for simulated CPUs; if False, communication is estimated.
    use_libtpu: also compile with the TPU's compiler; None does so if it is installed.

  Raises:
    ConfigError: the name is unknown, the layout is impossible, or there is nothing to train.
  """
  if not config.training.steps:
    raise ConfigError(
      "config key 'training.steps' is 0: a plan for other machines is about the train step. What "
      "is fitted in closed form takes seconds on any; --plan without --topology lists its "
      "parameters."
    )
  machines = topology(name)
  slots, simulated = slots_of(config)
  layout = lay_out(config, slots, machines)
  compiled = by_tpu = None
  failed = []
  platform = machines.platform
  if compiles:
    smaller, shrunk = shrink(layout)
    try:
      compiled = lowering.lower(smaller, slots, shrunk, platform)
    except TrainingError as error:
      failed.append(str(error))
  wanted = lowering.has_libtpu() if use_libtpu is None else use_libtpu
  if compiles and wanted and machines.tpu:
    try:
      by_tpu = lowering.lower(
        config, slots, layout.mesh, platform, machines.libtpu_name(), machines.slices
      )
    except TrainingError as error:
      failed.append(f"libtpu: {error}")
  sent = tuple(_as_run(layout, compiled) if compiled else layout.theory)
  return Plan(layout, simulated, sent, layout.predict(sent), compiled, by_tpu, tuple(failed))


def shrink(layout: Layout) -> tuple[Config, dict[str, int]]:
  """The config and mesh to compile: the largest axis is halved until CPUs can be simulated.

  The number of samples per device stays the same.
  """
  config, mesh = layout.config, dict(layout.mesh)
  while math.prod(mesh.values()) > lowering.MOST_DEVICES:
    axis = max(mesh, key=lambda each: mesh[each])
    mesh[axis] //= 2
  batch = layout.rows * mesh["replica"] * mesh["fsdp"]
  sizes = dataclasses.replace(config.mesh, **mesh)
  training = dataclasses.replace(config.training, batch=batch)
  return dataclasses.replace(config, mesh=sizes, training=training), mesh


def _as_run(layout: Layout, compiled: Lowered) -> Iterator[Collective]:
  """Convert compiled collectives to those of an accelerator, over all devices.

  The CPU's compiler widens bfloat16 to float32 before sending; those of TPU and GPU do not. Sums of
  gradients, which do not lie along `tensor`, are float32 everywhere. A ring over more devices sends
  arrays of the same size.
  """
  for each in compiled.collectives:
    gradient = each.op in (SCATTER, REDUCE) and "tensor" not in each.axes
    width = GRADIENT if gradient else layout.experiment.model.dtype.itemsize
    members = each.members
    for axis in each.axes:
      members = members * layout.mesh[axis] // compiled.mesh[axis]
    if each.op == "collective-permute":
      members = each.members
    # The compiled size is that of float32, 4 bytes per element.
    yield dataclasses.replace(each, size=each.size * width // 4, members=members)


def describe(found: Plan) -> Iterator[str]:
  """The plan in words, with warnings and a proposal at the end."""
  layout = found.layout
  yield from topology_lines(layout.topology)
  if found.simulated:
    shapes = ", ".join(
      f"{key} {' x '.join(map(str, slot.shape))}" for key, slot in layout.experiment.slots.items()
    )
    yield f"  no data set is here: simulated sensors are taken ({shapes})"
  yield (
    f"Mesh: {_axes(layout.mesh)}; {layout.rows} pairs a device of a batch of "
    f"{layout.config.training.batch:,}, in {layout.experiment.model.dtype}, "
    f"remat {layout.config.model.remat}"
  )
  yield from memory_lines(found)
  yield from sent_lines(found)
  yield from time_lines(found)
  trouble = list(warnings(found))
  yield from (f"WARNING: {line}" for line in trouble)
  yield from proposal_lines(found, bool(trouble))


def topology_lines(machines: Topology) -> Iterator[str]:
  """The machines, and the source of their numbers."""
  chip = machines.chip
  many = f"{machines.slices} x {machines.chips}" if machines.slices > 1 else f"{machines.chips}"
  yield (
    f"Topology {machines.name}: {many} x {chip.kind}, each {chip.memory / 1e9:,.1f} GB at "
    f"{chip.memory_rate / 1e9:,.0f} GB/s, {machines.peak / 1e12:,.0f} TFLOP/s in bfloat16; links "
    f"{chip.ici / 1e9:,.0f} GB/s among {machines.near}, network {chip.dcn / 1e9:,.2f} GB/s"
  )
  yield f"  from {chip.source}; one way, of one chip"


def memory_lines(found: Plan) -> Iterator[str]:
  """Bytes on one device by content, and the compilers' results."""
  layout, parts = found.layout, found.layout.parts
  memory = layout.topology.chip.memory
  yield (
    f"Memory of a device: {_gb(found.peak)} of {_gb(memory)} ({found.peak / memory:.0%}): "
    f"parameters {_gb(parts['parameters'])}, optimizer and target encoder "
    f"{_gb(parts['optimizer'])}, batch {_gb(parts['batch'])}, activations and gradients "
    f"{_gb(found.temporary)}"
  )
  yield f"  activations and gradients by arithmetic: {_gb(layout.temporary)}"
  if found.compiled:
    compiled = found.compiled
    yield (
      f"  by {compiled.devices:,} simulated CPUs ({_axes(compiled.mesh)}), compiled in "
      f"{compiled.seconds:.0f} s: {_gb(compiled.temporary)}, arguments {_gb(compiled.arguments)} "
      f"where {_gb(_argument_bytes(found))} were counted"
    )
    if compiled.devices < math.prod(layout.mesh.values()):
      yield (
        f"  {math.prod(layout.mesh.values()):,} devices cannot be simulated; these have as many "
        "pairs each, and what they send was scaled to the longer ring"
      )
  if found.by_tpu:
    by_tpu, sent = found.by_tpu, sum(each.wire for each in found.by_tpu.collectives)
    yield (
      f"  by libtpu for {by_tpu.devices:,} chips, compiled in {by_tpu.seconds:.0f} s: "
      f"{_gb(by_tpu.temporary)}; it sends {_gb(sent)}, for it writes many a gather as an all-reduce"
    )
  yield from (f"  not compiled: {line}" for line in found.failed)


def sent_lines(found: Plan) -> Iterator[str]:
  """Collectives of a step by axes, with the bytes that a device sends."""
  yield "Sent by a device in a step"
  for (axes, op), each in by_axes(found.sent).items():
    yield f"  {'+'.join(axes):<14} {op:<18} {each.count:>6,} x  {_gb(each.wire):>12}"
  total, least = (sum(c.wire for c in many) for many in (found.sent, found.layout.theory))
  if found.above is not None:
    yield (
      f"  in all {_gb(total)}; gathering parameters and scattering gradients needs {_gb(least)}: "
      f"{found.above:+.1%}"
    )
  else:
    yield f"  in all {_gb(total)}; by arithmetic {_gb(least)}"
  if found.compiled:
    yield (
      "  an all-reduce of which each device uses its slice, as the CPU's compiler makes of it, is "
      "counted as the reduce-scatter that it stands for"
    )
    if found.layout.experiment.model.dtype.itemsize == 2:
      yield (
        "  gradients' sums in float32, the rest in bfloat16, which the CPU's compiler widens: its "
        "bytes were halved"
      )


def time_lines(found: Plan) -> Iterator[str]:
  """Operations, the predicted time of a step with its parts, and MFU."""
  layout, time = found.layout, found.prediction
  machines = layout.topology
  yield (
    f"Operations: {step_flops(layout.experiment) / 1e12:,.2f} TFLOP a step, "
    f"{time.flops / 1e12:,.3f} a device"
  )
  yield (
    f"Step predicted: {_ms(time.seconds)} ({_ms(time.least)} with all messages hidden, "
    f"{_ms(time.most)} with none), {layout.config.training.batch / time.seconds:,.0f} pairs/s, "
    f"MFU {time.mfu:.1%}; bound by {time.bound}"
  )
  yield (
    f"  compute {_ms(time.compute)}, memory {_ms(time.memory)}, links {_ms(time.near)}, network "
    f"{_ms(time.far)}"
  )
  yield (
    f"  assumed: products reach {machines.efficiency:.0%} of the peak, {HIDDEN:.0%} of the "
    "messages that could be hidden are, rings use every link of their axes, input never waits"
  )


def warnings(found: Plan) -> Iterator[str]:
  """Problems of a layout, each with the setting to change."""
  layout, time = found.layout, found.prediction
  machines, mesh = layout.topology, layout.mesh
  memory = machines.chip.memory
  if found.peak > memory:
    yield (
      f"a device needs {_gb(found.peak)} and has {_gb(memory)}: it does not fit. Set model.remat "
      "to 'dots' or 'full', raise training.accumulate or mesh.fsdp, or lower training.batch."
    )
  elif found.peak > proposal.USABLE * memory:
    yield f"a device needs {found.peak / memory:.0%} of its memory; fragments may make it fail."
  if any("RESOURCE_EXHAUSTED" in line or "Ran out of memory" in line for line in found.failed):
    yield "the TPU's compiler says that the step does not fit into a device's memory."
  if time.links > time.compute:
    yield (
      f"messages take {_ms(time.links)} and products {_ms(time.compute)}: communication-bound. "
      "Give each device more pairs (a larger training.batch, fewer devices)"
      + (", or a smaller mesh.tensor." if mesh["tensor"] > 1 else ".")
    )
  if machines.slices > 1 and mesh["replica"] % machines.slices:
    yield (
      f"mesh.replica is {mesh['replica']} and there are {machines.slices} slices: parameters would "
      "be gathered over the network. Make mesh.replica a multiple of the slices."
    )
  if mesh["tensor"] > machines.near:
    yield (
      f"mesh.tensor is {mesh['tensor']} and fast links join {machines.near}: every layer would "
      "wait for the network."
    )
  yield from config_warnings(layout.experiment)
  if found.above is not None and found.above > ABOVE:
    yield (
      f"a device sends {found.above:.0%} more than gathering parameters and scattering gradients "
      "needs; the largest: " + "; ".join(_largest(found)) + "."
    )


def proposal_lines(found: Plan, trouble: bool) -> Iterator[str]:
  """A layout that fits and is faster, as flags, with its prediction."""
  factor = max(1.0, found.temporary / found.layout.temporary)
  other = proposal.propose(found.layout, factor)
  if other is None:
    yield "No layout of this batch fits these machines: take more of them, or a smaller batch."
    return
  flags, time = proposal.changes(found.layout, other), other.predict(other.theory)
  better = time.seconds < FASTER * found.prediction.seconds
  if not flags or not (better or not proposal.fits(found.layout, factor)):
    if trouble:
      yield "No layout of this batch on these machines is predicted to be better."
    return
  yield f"{'Proposed' if trouble else 'Faster, if it fits'}: {' '.join(flags)}"
  yield (
    f"  by arithmetic {_gb(other.needed)} a device, {_ms(time.seconds)} a step, "
    f"MFU {time.mfu:.1%}; not compiled"
  )


def _largest(found: Plan, most: int = 3) -> Sequence[str]:
  """The largest collectives of kinds that theory lacks, or the largest of all if it lacks none."""
  known = {(each.op, each.axes) for each in found.layout.theory}
  extra = [each for each in found.sent if (each.op, each.axes) not in known]
  chosen = sorted(extra or found.sent, key=lambda each: -each.wire)[:most]
  return [f"{each.op} of {_gb(each.wire)} in {each.at.split('/')[-1] or '?'}" for each in chosen]


def _argument_bytes(found: Plan) -> float:
  """Estimated bytes of arguments on the mesh that was compiled, which may be a smaller one."""
  assert found.compiled is not None
  if found.compiled.devices == math.prod(found.layout.mesh.values()):
    return sum(found.layout.parts.values())
  smaller, mesh = shrink(found.layout)
  other = lay_out(smaller, found.layout.experiment.slots, found.layout.topology, mesh)
  return sum(other.parts.values())


def _axes(mesh: Mapping[str, int]) -> str:
  return ", ".join(f"{axis} {size:,}" for axis, size in mesh.items())


def _gb(size: float) -> str:
  return f"{size / 1e9:,.2f} GB" if size >= 1e8 else f"{size / 1e6:,.2f} MB"


def _ms(seconds: float) -> str:
  return f"{seconds * 1e3:,.1f} ms"
