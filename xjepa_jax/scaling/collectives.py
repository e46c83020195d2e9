"""Collectives: what a device sends, and what fully sharded training cannot do without.

Bytes on the wire of one device for a ring, the least that an all-reduce needs (Patarasuk and Yuan,
J. Parallel Distrib. Comput. 69, 2009): of n devices and S bytes of the whole array, an all-gather
or a reduce-scatter sends S (n - 1) / n, an all-reduce twice as much.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax

GATHER, SCATTER, REDUCE = "all-gather", "reduce-scatter", "all-reduce"
GRADIENT = 4  # bytes of an element while devices add it up, see `model.layers`


@dataclasses.dataclass(frozen=True)
class Collective:
  """One collective instruction, or a sum of alike ones.

  Attributes:
    op: as HLO names it.
    size: S, bytes of the whole array: gathered, or to be reduced, or sent.
    members: n, devices that take part.
    axes: of the mesh that they lie along.
    count: how often it runs in a step.
    at: where in the program it comes from.
    summed: a reduce-scatter that was compiled as an all-reduce and a slice.
  """

  op: str
  size: int
  members: int
  axes: tuple[str, ...]
  count: int = 1
  at: str = ""
  summed: bool = False

  @property
  def wire(self) -> float:
    """Bytes that a device sends in a step, with a reduce-scatter counted as one."""
    return self.count * wire_bytes(self.op, self.size, self.members)


def wire_bytes(op: str, size: float, members: int) -> float:
  """Bytes that each of `members` devices sends in one collective of `size` bytes, see above."""
  share = (members - 1) / members
  if op == "all-reduce":
    return 2 * size * share
  if op == "collective-permute":
    return size
  return size * share  # all-gather, reduce-scatter, all-to-all


@dataclasses.dataclass(frozen=True)
class Passes:
  """How often an array of parameters is needed whole in a step, and whether it has a gradient."""

  gathers: int
  gradient: bool


def expected(params: Any, target: Any, mesh: Mapping[str, int], width: int) -> list[Collective]:
  """What a step cannot do without on a mesh whose axis `tensor` is 1.

  A matrix that `fsdp` cuts is gathered where it is used: once forward, and once more backward if
  it is in a stack of layers, whose gathered weights are not kept; the target encoder's once. Its
  gradient is scattered over `fsdp` and summed over `replica`. Of what is whole on every device
  (norms, biases, tokens) the gradient is summed over all.

  Args:
    params: the trained parameters, `jax.ShapeDtypeStruct`s with shardings.
    target: those of the target encoder.
    mesh: axis -> size.
    width: bytes of an element as it is gathered, in the dtype of products. Gradients are summed in
      float32.

  Returns:
    At most one `Collective` an operation and set of axes.
  """
  found: dict[tuple[str, tuple[str, ...]], int] = {}

  def add(op: str, axes: tuple[str, ...], size: int) -> None:
    axes = tuple(axis for axis in axes if mesh[axis] > 1)
    if axes and size:
      found[op, axes] = found.get((op, axes), 0) + size

  for trained, tree in ((True, params), (False, target)):
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
      name = jax.tree_util.keystr(path, simple=True, separator="/")
      size, cut = math.prod(leaf.shape) * GRADIENT, "fsdp" in leaf.sharding.spec
      if cut:
        twice = trained and "/blocks/" in name
        add(GATHER, ("fsdp",), math.prod(leaf.shape) * width * (2 if twice else 1))
      if trained and cut:
        add(SCATTER, ("fsdp",), size)
        add(REDUCE, ("replica",), size // mesh["fsdp"])
      elif trained:
        add(REDUCE, ("replica", "fsdp"), size)
  return [
    Collective(op, size, math.prod(mesh[axis] for axis in axes), axes)
    for (op, axes), size in found.items()
  ]


def by_axes(found: Iterable[Collective]) -> dict[tuple[tuple[str, ...], str], Collective]:
  """Alike ones added up: (axes, operation) -> `size` and `count` of a step, the largest first."""
  totals: dict[tuple[tuple[str, ...], str], list[float]] = {}
  example: dict[tuple[tuple[str, ...], str], Collective] = {}
  for each in found:
    key = (each.axes, each.op)
    example.setdefault(key, each)
    total = totals.setdefault(key, [0, 0])
    total[0] += each.count
    total[1] += each.count * each.size
  order = sorted(totals, key=lambda key: -totals[key][1])
  return {
    key: dataclasses.replace(
      example[key], count=int(totals[key][0]), size=int(totals[key][1] / totals[key][0]), at=""
    )
    for key in order
  }
