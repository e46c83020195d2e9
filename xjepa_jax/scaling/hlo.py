"""The collectives of a compiled program, read from its HLO text, and how often each runs.

Instructions are counted through the call graph: those in a loop's body count once per iteration of
the loop, as far as its number is known. All sizes are per device.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np

from xjepa_jax.scaling.collectives import Collective
from xjepa_jax.scaling.replica_groups import axes_between, parse_groups

# Bits of the types other than integers and floats, whose names tell; a pred takes a byte.
_BITS = {"pred": 8, "c64": 64, "c128": 128, "token": 0, "opaque": 0}
_OPS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_COLLECTIVE = re.compile(rf"({'|'.join(_OPS)}|ragged-all-to-all)(-start)?$")
# An array type such as f32[8,128], also f8e4m3fn[8] and dynamic sizes <=8.
_ARRAY = re.compile(r"\b([a-z]\w*?\d*(?:e\d+m\d+\w*)?)\[([\d,<=]*)\]")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)")
# XLA's own annotation of a loop's number of iterations, where it could tell.
_TRIPS = re.compile(r'known_trip_count":\s*\{"n":"(\d+)"')
# Opcodes whose result has the same elements as their operand, only moved or converted.
_PASSING = {"bitcast", "copy", "reshape", "transpose", "convert", "get-tuple-element"}


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of HLO: name, type, opcode, operands' names, remaining text, whether it is a root."""

  name: str
  type: str
  opcode: str
  operands: tuple[str, ...]
  rest: str
  root: bool


class Program:
  """Computations of an HLO module by name, each a dict of instructions by name."""

  def __init__(self, text: str):
    self.computations: dict[str, dict[str, Instruction]] = {}
    self.entry = ""
    current: dict[str, Instruction] = {}
    for line in text.splitlines():
      if line.startswith((" ", "\t")):
        found = _instruction(line)
        if found:
          current[found.name] = found
      elif match := _HEAD.match(line):
        current = self.computations.setdefault(match[2], {})
        self.entry = match[2] if match[1] else self.entry
    self._users: dict[str, dict[str, list[Instruction]]] = {}

  def users(self, computation: str, name: str) -> list[Instruction]:
    """The instructions of a computation that use the result of another."""
    if computation not in self._users:
      users: dict[str, list[Instruction]] = defaultdict(list)
      for instruction in self.computations[computation].values():
        for operand in dict.fromkeys(instruction.operands):
          users[operand].append(instruction)
      self._users[computation] = users
    return self._users[computation].get(name, [])

  def runs(self) -> Iterator[tuple[str, int]]:
    """Each computation that runs, and how often; one may occur several times."""
    waiting = [(self.entry, 1)]
    while waiting:
      name, times = waiting.pop()
      yield name, times
      for instruction in self.computations[name].values():
        waiting += [(callee, times * n) for callee, n in _callees(self, instruction)]

  def is_cut(self, computation: str, name: str, size: int, parts: int) -> bool:
    """Whether only one of `parts` equal slices of a result with `size` elements is used."""
    users = self.users(computation, name)
    if not users or self.computations[computation][name].root:
      return False
    return all(self._cuts(computation, name, user, size, parts) for user in users)

  def _cuts(self, computation: str, name: str, user: Instruction, size: int, parts: int) -> bool:
    if user.opcode == "dynamic-slice":
      return user.operands[0] == name and elements(user.type) * parts == size
    if user.opcode in _PASSING:
      return self.is_cut(computation, user.name, size, parts)
    if user.opcode in ("fusion", "call"):
      callee = _CALLED.search(user.rest)
      inside = self.computations.get(callee[1] if callee else "", {})
      places = {str(i) for i, operand in enumerate(user.operands) if operand == name}
      given = [each for each in inside.values() if each.opcode == "parameter"]
      names = [each.name for each in given if each.operands[0] in places]
      return bool(names) and all(self.is_cut(callee[1], n, size, parts) for n in names)  # type: ignore[index]
    return False


def collectives(text: str, mesh: Mapping[str, int]) -> list[Collective]:
  """The collectives of a compiled program, one per instruction or part of one.

  The CPU's compiler turns a reduce-scatter into an all-reduce of which each device uses only its
  own slice. That is reported as a "reduce-scatter" with `summed` True, separately from the rest of
  what the same instruction reduces.

  Args:
    text: `compiled.as_text()`.
    mesh: axis -> size, in order.
  """
  program = Program(text)
  times: dict[str, int] = defaultdict(int)
  for name, count in program.runs():
    times[name] += count
  found: list[Collective] = []
  for computation, count in times.items():
    for instruction in program.computations[computation].values():
      match = _COLLECTIVE.match(instruction.opcode)
      if match:
        found += _collectives(program, computation, instruction, match[1], count, mesh)
  return found


def elements(type_: str) -> int:
  """Number of elements of a type's first array."""
  match = _ARRAY.search(type_)
  return math.prod(_shape(match[2])) if match else 0


def size_in_bytes(type_: str) -> int:
  """Bytes of all arrays of a type, without padding."""
  bits = sum(_bits(kind) * math.prod(_shape(shape)) for kind, shape in _ARRAY.findall(type_))
  return bits // 8


def _collectives(
  program: Program,
  computation: str,
  instruction: Instruction,
  op: str,
  count: int,
  mesh: Mapping[str, int],
) -> Iterator[Collective]:
  devices = math.prod(mesh.values())
  if op == "collective-permute":
    pairs = re.search(r"source_target_pairs=(\{\{.*?\}\})", instruction.rest)
    groups = parse_groups(pairs[1], devices) if pairs else np.zeros((1, 1), int)
    members = 2
  else:
    where = instruction.rest.split("replica_groups=", 1)
    groups = parse_groups(where[1] if len(where) > 1 else "{}", devices)
    members = groups.shape[1]
  if members == 1 or (op == "collective-permute" and (groups[:, 0] == groups[:, 1]).all()):
    return
  axes = axes_between(groups, mesh)
  named = re.search(r'op_name="([^"]*)"', instruction.rest)
  table = program.computations[computation]
  whole, cut = 0, dict.fromkeys(_scatters(axes, mesh) if op == "all-reduce" else (), 0)
  for number, operand in enumerate(instruction.operands):
    size = size_in_bytes(table[operand].type)
    for over in cut:
      parts = math.prod(mesh[axis] for axis in over)
      if _slice_used(program, computation, instruction, number, parts):
        cut[over] += size
        break
    else:
      whole += size
  at = named[1] if named else ""
  for over, size in cut.items():
    parts, rest = math.prod(mesh[axis] for axis in over), tuple(a for a in axes if a not in over)
    if size:
      yield Collective("reduce-scatter", size, parts, over, count, at, summed=True)
    if size and rest:  # the scattered part is then summed over the remaining axes
      yield Collective("all-reduce", size // parts, members // parts, rest, count, at)
  if whole:
    size = whole * members if op == "all-gather" else whole
    yield Collective(op, size, members, axes, count, at)


def _scatters(axes: tuple[str, ...], mesh: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
  """Axes over which an all-reduce over `axes` may stand for a reduce-scatter; most axes first."""
  yield axes
  if len(axes) > 1:
    yield from ((axis,) for axis in sorted(axes, key="replica".__eq__) if mesh[axis] > 1)


def _slice_used(
  program: Program, computation: str, instruction: Instruction, number: int, parts: int
) -> bool:
  size = elements(program.computations[computation][instruction.operands[number]].type)
  if len(instruction.operands) == 1:
    return program.is_cut(computation, instruction.name, size, parts)
  taken = [
    user
    for user in program.users(computation, instruction.name)
    if re.search(rf"\bindex={number}\b", user.rest)
  ]
  return bool(taken) and all(program.is_cut(computation, u.name, size, parts) for u in taken)


def turns(program: Program, loop: Instruction) -> int:
  """Iterations of a loop that counts up to the only constant in its condition; else 1."""
  condition = re.search(r"\bcondition=%?([\w.\-]+)", loop.rest)
  inside = program.computations.get(condition[1] if condition else "", {})
  limits = [each.operands[0] for each in inside.values() if each.opcode == "constant"]
  return int(limits[0]) if len(limits) == 1 and limits[0].isdigit() else 1


def _callees(program: Program, instruction: Instruction) -> Iterator[tuple[str, int]]:
  # These call reducers, comparators and the like, which hold no collectives; what an asynchronous
  # operation calls is counted where it starts.
  if instruction.opcode.startswith(_OPS) or instruction.opcode in (
    "reduce", "sort", "map", "scatter", "reduce-window", "select-and-scatter", "custom-call",
    "async-update", "async-done",
  ):  # fmt: skip
    return
  trips = 1
  if instruction.opcode == "while":
    known = _TRIPS.search(instruction.rest)
    trips = int(known[1]) if known else turns(program, instruction)
  for callee in _CALLED.findall(instruction.rest):
    yield callee, trips
  branches = re.search(r"branch_computations=\{([^}]*)\}", instruction.rest)
  for callee in branches[1].split(",") if branches else ():
    yield callee.strip().lstrip("%"), 1


def _instruction(line: str) -> Instruction | None:
  line = re.sub(r"/\*.*?\*/", "", line).strip()
  root = line.startswith("ROOT ")
  name, equals, right = line.removeprefix("ROOT ").partition(" = ")
  if not equals:
    return None
  end = _closing(right, 0) + 1 if right.startswith("(") else right.index(" ")
  type_, right = right[:end], right[end:].strip()
  opcode, _, _ = right.partition("(")
  close = _closing(right, len(opcode))
  inside = right[len(opcode) + 1 : close]
  operands = re.findall(r"%([\w.\-]+)", inside) or ([inside] if inside else [])
  return Instruction(
    name.lstrip("%"), type_, opcode.strip(), tuple(operands), right[close + 1 :], root
  )


def _closing(text: str, start: int) -> int:
  """Index of the parenthesis that closes the one at `start`."""
  depth = 0
  for at in range(start, len(text)):
    depth += (text[at] == "(") - (text[at] == ")")
    if depth == 0:
      return at
  return len(text) - 1


def _bits(kind: str) -> int:
  if kind in _BITS:
    return _BITS[kind]
  digits = re.match(r"[a-z]+(\d+)", kind)
  return int(digits[1]) if digits else 0


def _shape(text: str) -> list[int]:
  return [int(part.lstrip("<=")) for part in text.split(",") if part]
