"""Collectives: the bytes that a device sends, and the least that fully sharded training needs.

Bytes are those that one device sends in a ring, the minimum for an all-reduce (Patarasuk and Yuan,
J. Parallel Distrib. Comput. 69, 2009): with n devices and S bytes of the whole array, an all-gather
or a reduce-scatter sends S (n - 1) / n, and an all-reduce twice as much.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax

GATHER, SCATTER, REDUCE = "all-gather", "reduce-scatter", "all-reduce"
GRADIENT = 4  # bytes per element of a gradient while it is summed in float32, see `model.layers`


@dataclasses.dataclass(frozen=True)
class Collective:
  """One collective instruction, or the sum of several of one kind.

  Attributes:
    op: name in HLO.
    size: S, bytes of the whole array: after gathering, before reducing, or sent.
    members: n, number of participating devices.
    axes: mesh axes along which these lie.
    count: how often it runs per step.
    at: place in the program where it originates.
    summed: whether it is a reduce-scatter that was compiled as an all-reduce and a slice.
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
    """Bytes that a device sends per step, with a reduce-scatter counted as such."""
    return self.count * wire_bytes(self.op, self.size, self.members)


def wire_bytes(op: str, size: float, members: int) -> float:
  """Bytes that each of `members` devices sends in a collective of `size` bytes; see the module."""
  share = (members - 1) / members
  if op == "all-reduce":
    return 2 * size * share
  if op == "collective-permute":
    return size
  return size * share  # all-gather, reduce-scatter, all-to-all


@dataclasses.dataclass(frozen=True)
class Passes:
  """How often parameters are needed whole per step, and whether they have a gradient."""

  gathers: int
  gradient: bool


def expected(params: Any, target: Any, mesh: Mapping[str, int], width: int) -> list[Collective]:
  """The collectives that a step cannot avoid, on a mesh whose axis `tensor` is 1.

  A matrix that is sharded by `fsdp` is gathered where it is used: once in the forward pass, and
  again in the backward pass if it is in a stack of layers, whose gathered weights are not kept; the
  target encoder's only once. Its gradient is scattered over `fsdp` and summed over `replica`. The
  gradients of replicated parameters (norms, biases, tokens) are summed over all devices.

  Args:
    params: the trained parameters, `jax.ShapeDtypeStruct`s with shardings.
    target: those of the target encoder.
    mesh: axis -> size.
    width: bytes per gathered element, which has the dtype of products. Gradients are summed in
      float32.

  Returns:
    At most one `Collective` per operation and set of axes.
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
        # After the reduce-scatter, each device sums only its own shard with the other replicas.
        add(REDUCE, ("replica",), size // mesh["fsdp"])
      elif trained:
        add(REDUCE, ("replica", "fsdp"), size)
  return [
    Collective(op, size, math.prod(mesh[axis] for axis in axes), axes)
    for (op, axes), size in found.items()
  ]


def by_axes(found: Iterable[Collective]) -> dict[tuple[tuple[str, ...], str], Collective]:
  """Add up collectives of one kind: (axes, operation) -> totals per step, the largest first."""
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
