"""The time of a step as predicted from peak rates and bandwidths, and what limits it.

  compute: operations / (peak x efficiency); recomputation by remat counts here, not in MFU
  memory:  bytes that XLA reports as read and written / memory bandwidth
  links:   bytes that a device sends over the fast links, and over the data centre's network

Collectives overlap with products as far as the compiler finds work to hide them behind. The time is
between the largest of the three (all hidden) and their sum (nothing hidden); the prediction lies
at `HIDDEN` of the way. MFU counts the model's operations only (PaLM, arXiv 2204.02311, app. B).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

from xjepa_jax.scaling.collectives import Collective
from xjepa_jax.scaling.topologies import Topology

# XLA's latency-hiding scheduler overlaps the gather of a layer with the layer before it. The value
# is a guess halfway between its two extremes, both of which are reported.
HIDDEN = 0.5


@dataclasses.dataclass(frozen=True)
class Prediction:
  """Predicted seconds of a step.

  Attributes:
    compute, memory, near, far: seconds of products, memory, fast links and network.
    flops: operations of the model on one device.
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
    """Seconds if everything that can overlap with products does."""
    return max(self.compute, self.memory, self.links)

  @property
  def most(self) -> float:
    """Seconds if nothing overlaps but memory traffic with products."""
    return max(self.compute, self.memory) + self.links

  @property
  def links(self) -> float:
    """Seconds of all communication."""
    return self.near + self.far

  @property
  def seconds(self) -> float:
    """The prediction, between `least` and `most`."""
    return self.most - HIDDEN * (self.most - self.least)

  @property
  def mfu(self) -> float:
    """Model FLOPs utilisation."""
    return self.flops / (self.seconds * self.peak)

  @property
  def bound(self) -> str:
    """The slowest part: "compute", "memory", "links" or "network"."""
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
  """Predict the time of a step.

  Args:
    topology: the machines.
    mesh: axis -> size.
    found: collectives of a device per step.
    flops: operations of the model on one device.
    recomputed: operations that remat repeats on one device.
    bytes_accessed: bytes read from and written to one device's memory.
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
  """Seconds of a collective over the fast links, and over the network.

  Partitions are numbered with `tensor` innermost, so a group communicates over the fast links as
  far as its axes, from the innermost, fit into the chips that these join. A larger group works on
  two levels: within these chips, and then, with its share, between them.
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
  """Bytes that a device would send in a group of `members`."""
  return each.wire * ((members - 1) / members) / ((each.members - 1) / each.members)


def _share(topology: Topology, mesh: Mapping[str, int], axes: tuple[str, ...]) -> float:
  """The share of a chip's links that a collective along these axes can use.

  With a switch it is all of them. On a torus, a mesh axis has some of the dimensions: all if it is
  alone on the slice; otherwise the smaller axis has one and the larger has the rest. A dimension
  that does not close to a ring has half the rate.
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
