"""The groups of devices in a collective, parsed from every notation that XLA uses.

XLA writes them as lists, as iotas, or as axes of a mesh. An unknown notation is an error
rather than a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from xjepa_jax.errors import ConfigError

_IOTA = re.compile(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(r"mesh\[([^\]]*)\](.*?)\s*\{([^}]*)\}")
_ORDER = re.compile(r"device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\)")
_AXIS = re.compile(r"'([^']+)'(?:=(\d+))?(?::\((\d+)\)(\d+))?")


def parse_groups(text: str, devices: int) -> np.ndarray:
  """Parse the groups of an instruction to an array (groups, members) of partition numbers.

  Args:
    text: the text after "replica_groups=": a list `{{0,1},{2,3}}`; an iota `[2,4]<=[8]T(1,0)`
      (numbers in order, reshaped, transposed, reshaped); or the axes of a mesh,
      `mesh['a'=2,'b'=4] {'b'}`, in which `'b':(1)2` is a part of an axis, of size 2 after a first
      factor of 1. There, `device_ids=([2,4]T(1,0))` before the axes gives the order in which
      devices fill the mesh.
    devices: devices of the program; an empty list means one group of all.

  Raises:
    ConfigError: the notation is unknown to this function.
  """
  text = text.strip()
  if text.startswith("{{"):
    inner = text[1 : text.index("}}") + 1]
    groups = [[int(x) for x in part.split(",")] for part in re.findall(r"\{([\d,\s]+)\}", inner)]
    return np.array(groups)
  if text.startswith("{}"):
    return np.arange(devices)[None]
  if text.startswith("["):
    match = _IOTA.match(text)
    if match:
      return _iota(match)
  if text.startswith("mesh["):
    match = _MESH.match(text)
    if match:
      return _of_mesh(match)
  raise _unknown(text)


def _unknown(text: str) -> ConfigError:
  return ConfigError(
    f"the compiled step has replica groups {text[:80]!r}, written in a way that "
    "scaling/replica_groups.py does not know."
  )


def axes_between(groups: Iterable[Sequence[int]], mesh: Mapping[str, int]) -> tuple[str, ...]:
  """The axes of a mesh along which the members of a group differ.

  Args:
    groups: groups of partition numbers, which number the mesh in row-major order.
    mesh: axis -> size.
  """
  places = np.stack(
    np.unravel_index(np.arange(int(np.prod(list(mesh.values())))), tuple(mesh.values())), axis=1
  )
  differ = np.zeros(len(mesh), bool)
  for group in groups:
    members = places[np.asarray(group)]
    differ |= (members != members[0]).any(axis=0)
  return tuple(axis for axis, does in zip(mesh, differ, strict=True) if does)


def _numbers(text: str) -> list[int]:
  return [int(part) for part in text.split(",")]


def _iota(match: re.Match[str]) -> np.ndarray:
  shape, order = _numbers(match[1]), _numbers(match[2])
  ids = np.arange(int(np.prod(order))).reshape(order)
  if match[3]:
    ids = ids.transpose(_numbers(match[3]))
  return ids.reshape(shape)


def _of_mesh(match: re.Match[str]) -> np.ndarray:
  sizes = {name: int(size) for name, size, _, _ in _AXIS.findall(match[1])}
  ids = np.arange(int(np.prod(list(sizes.values()))))
  if order := _ORDER.search(match[2]):
    given = _numbers(order[1])
    turned = _numbers(order[2]) if order[2] else list(range(len(given)))
    ids = ids.reshape(given).transpose(turned).ravel()
  elif listed := re.search(r"device_ids=\(([\d,\s]+)\)", match[2]):
    ids = np.array(_numbers(listed[1]))
  elif "device_ids" in match[2]:
    raise _unknown(match[0])
  # Each axis is split into three factors, (before, part, after); for a whole axis, part is all.
  chosen = {
    name: (int(before), int(part)) if part else (1, sizes[name])
    for name, _, before, part in _AXIS.findall(match[3])
  }
  shape: list[int] = []
  inside: list[int] = []
  for name, size in sizes.items():
    before, part = chosen.get(name, (size, 1))
    if name in chosen:
      inside.append(len(shape) + 1)
    shape += [before, part, size // before // part]
  outside = [axis for axis in range(len(shape)) if axis not in inside]
  members = int(np.prod([shape[axis] for axis in inside]))
  return ids.reshape(shape).transpose(outside + inside).reshape(-1, members)
