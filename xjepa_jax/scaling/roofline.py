"""The time of a step that peak rates and bandwidths predict, and what bounds it.

  compute: operations / (peak x efficiency); recomputation of remat counts here, not in MFU
  memory:  bytes that XLA says are read and written / memory's rate
  links:   bytes that a device sends over the fast links, and over the data centre's network

Collectives run beside products as far as the compiler finds work to hide them under. The time is
between the largest of the three (all hidden) and their sum (nothing hidden); the prediction lies
at `HIDDEN` of the way. MFU is of the model's operations alone (PaLM, arXiv 2204.02311, app. B).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

from xjepa_jax.scaling.collectives import Collective
from xjepa_jax.scaling.topologies import Topology

# XLA's latency-hiding scheduler overlaps a layer's gather with the layer before it. Half of what
# could be hidden is assumed to be: a guess between its two ends, both of which are told.
HIDDEN = 0.5


@dataclasses.dataclass(frozen=True)
class Prediction:
  """Seconds of a step.

  Attributes:
    compute, memory, near, far: of products, of memory, of the fast links, of the network.
    flops: of the model, of one device.
    peak: FLOP/s of one device.
  """

  compute: float
  memory: float
  near: float
  far: float
  flops: float
  peak: float

  @property
  def least(self) -> float:
    """All that can run beside products does."""
    return max(self.compute, self.memory, self.links)

  @property
  def most(self) -> float:
    """Nothing is hidden but memory under products."""
    return max(self.compute, self.memory) + self.links

  @property
  def links(self) -> float:
    """Of all messages."""
    return self.near + self.far

  @property
  def seconds(self) -> float:
    """Between the two."""
    return self.most - HIDDEN * (self.most - self.least)

  @property
  def mfu(self) -> float:
    """Model FLOPs utilisation."""
    return self.flops / (self.seconds * self.peak)

  @property
  def bound(self) -> str:
    """What takes longest: "compute", "memory", "links" or "network"."""
    parts = {
      "compute": self.compute,
      "memory": self.memory,
      "links": self.near,
      "network": self.far,
    }
    return max(parts, key=lambda name: parts[name])


def predict(
  topology: Topology,
  mesh: Mapping[str, int],
  found: Iterable[Collective],
  flops: float,
  recomputed: float,
  bytes_accessed: float,
) -> Prediction:
  """A step's time.

  Args:
    topology: of the machines.
    mesh: axis -> size.
    found: what a device sends in a step.
    flops: of the model, of one device.
    recomputed: operations of one device that remat does again.
    bytes_accessed: of one device's memory.
  """
  near = far = 0.0
  for each in found:
    close, distant = _seconds(topology, mesh, each)
    near, far = near + close, far + distant
  return Prediction(
    compute=(flops + recomputed) / (topology.peak * topology.efficiency),
    memory=bytes_accessed / topology.chip.memory_rate,
    near=near,
    far=far,
    flops=flops,
    peak=topology.peak,
  )


def _seconds(topology: Topology, mesh: Mapping[str, int], each: Collective) -> tuple[float, float]:
  """Over the fast links, and over the network.

  Members count through the mesh with `tensor` innermost, so a group is near as far as the axes
  from the innermost on fit into what the fast links join. A group that reaches further is done in
  two levels: inside, then its share between.
  """
  stride = 1  # chips between neighbours along the innermost axis of the group
  for axis in reversed(list(mesh)):
    if axis in each.axes:
      break
    stride *= mesh[axis]
  inside = max(1, min(each.members, topology.near // stride))
  rate = topology.chip.ici * _share(topology, mesh, each.axes)
  close = each.wire / rate if inside == each.members else _part(each, inside) / rate
  between = math.ceil(each.members / inside)
  distant = _part(each, between) / inside / topology.chip.dcn if between > 1 else 0.0
  return close, distant


def _part(each: Collective, members: int) -> float:
  """Bytes that a device sends if it were among `members`."""
  return each.wire * ((members - 1) / members) / ((each.members - 1) / each.members)


def _share(topology: Topology, mesh: Mapping[str, int], axes: tuple[str, ...]) -> float:
  """Of a chip's links, those that a collective along these axes can use.

  A switch gives all. On a torus an axis of the mesh has some of the dimensions: all if it is alone
  on the slice, else the smaller axis one and the larger the rest. A dimension that is not closed
  to a ring has half the rate.
  """
  chip = topology.chip
  if not chip.torus:
    return 1.0
  used = [axis for axis in ("fsdp", "tensor") if mesh[axis] > 1]
  dimensions = chip.torus
  if len(used) > 1 and len(axes) == 1:
    larger = max(used, key=lambda axis: mesh[axis])
    dimensions = chip.torus - 1 if axes[0] == larger else 1
  closed = 1.0 if topology.chips >= chip.wraps else 0.5
  return closed * dimensions / chip.torus
