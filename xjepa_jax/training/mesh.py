"""The device mesh, and the sharding of every array on it.

There are three mesh axes: `replica` copies the parameters, `fsdp` shards parameters and batch, and
`tensor` splits each layer as Megatron-LM does (Shoeybi et al., section 3): the first matrix of a
pair by its output, the second by its input, so that a pair needs one sum over devices. Shardings
are derived in two steps: a parameter's path gives the logical axes of its dimensions, and the axis
rules give each logical axis a mesh axis or none. A parameter without an entry is an error.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from xjepa_jax.errors import ConfigError
from xjepa_jax.processes.devices import check_devices

AXES = ("replica", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class AxisRules:
  """The mesh axis of each logical axis, or None where every device holds the whole dimension.

  Attributes:
    embed: the width of tokens, at the end of a layer's matrices that `tensor` does not split.
    heads: queries, keys and values of all attention heads, and the output of attention.
    mlp: the hidden width of an MLP.
    patch: the values of a patch.
    descriptor: the output of a head.
    vector: the width of tokens in a small array: norms, biases, tokens, tags.
  """

  embed: str | None = "fsdp"
  heads: str | None = "tensor"
  mlp: str | None = "tensor"
  patch: str | None = None
  descriptor: str | None = None
  vector: str | None = None


RULES = AxisRules()

# (pattern, logical axes of the last dimensions): the first pattern that matches a path counts. The
# patterns match the end of a path, so that they also cover Adam's moments and the target encoder,
# whose paths end like the parameter's. Leading dimensions that are not named, such as the layers of
# a stack, are not sharded.
PARAMETER_AXES: tuple[tuple[str, tuple[str, ...]], ...] = (
  (r"(^|/)objective/.+$", ()),
  (r"(^|/)stems/.+/kernel$", ("patch", "embed")),
  (r"(^|/)qkv/kernel$", ("embed", "heads")),
  (r"(^|/)qkv/bias$", ("heads",)),
  (r"(^|/)attention/out/kernel$", ("heads", "embed")),
  (r"(^|/)up/kernel$", ("embed", "mlp")),
  (r"(^|/)up/bias$", ("mlp",)),
  (r"(^|/)down/kernel$", ("mlp", "embed")),
  (r"(^|/)heads/.+/kernel$", ("embed", "descriptor")),
  (r"(^|/)leave/kernel$", ("vector", "embed")),
  (r"(^|/)\w*kernel$", ("embed", "vector")),
  (r"(^|/)(bias|scale)$", ("vector",)),
  (r"(^|/)(query|shared_queries|register_tokens|mask_token|\w+_tags/\w+)$", ("vector",)),
)


def make_mesh(
  replica: int = 1, fsdp: int = -1, tensor: int = 1, devices: Sequence[Any] | None = None
) -> Mesh:
  """Make a mesh of all devices with the axes replica, fsdp and tensor.

  Several TPU slices, or several groups of GPUs joined by NVLink, are laid along replica, so that
  only the sums of gradients cross the network between them. For GPUs this is not required: where
  replica is not a multiple of the number of groups, devices are used in their given order.

  Args:
    replica, fsdp, tensor: number of devices along each axis; one of them may be -1, which takes
      the remaining devices.
    devices: the devices of the mesh; None takes all devices of all processes.

  Raises:
    ConfigError: the sizes do not multiply to the number of devices, or would split a TPU slice, or
      JAX has no devices.
  """
  if devices is None:
    check_devices()
    devices = jax.devices()
  devices = list(devices)
  sizes = tuple(mesh_sizes(replica, fsdp, tensor, len(devices)).values())
  kinds = (AxisType.Auto,) * len(AXES)
  slices = len({getattr(device, "slice_index", 0) for device in devices})
  if slices == 1 or (sizes[0] % slices and devices[0].platform != "tpu"):
    return jax.make_mesh(sizes, AXES, axis_types=kinds, devices=devices)
  return Mesh(slices_along_replica(sizes, slices, devices), AXES, axis_types=kinds)


def slices_along_replica(
  sizes: tuple[int, ...], slices: int, devices: Sequence[Any]
) -> np.ndarray[Any, Any]:
  """Arrange the devices of several slices as (replica, fsdp, tensor), a range of replica per slice.

  Raises:
    ConfigError: replica is not a multiple of the number of slices.
  """
  replica, fsdp, tensor = sizes
  if replica % slices:
    raise ConfigError(
      f"config key 'mesh.replica' is {replica} and there are {slices} TPU slices: parameters would "
      "be gathered over the network between them. Make mesh.replica a multiple of the slices."
    )
  inside, between = (replica // slices, fsdp, tensor), (slices, 1, 1)
  return mesh_utils.create_hybrid_device_mesh(inside, between, devices)


def mesh_sizes(replica: int, fsdp: int, tensor: int, count: int) -> dict[str, int]:
  """Return axis -> size for a mesh of `count` devices; see `make_mesh`.

  Raises:
    ConfigError: the sizes do not multiply to that number.
  """
  sizes = dict(zip(AXES, (replica, fsdp, tensor), strict=True))
  open_axes = [axis for axis, size in sizes.items() if size == -1]
  for axis, size in sizes.items():
    if size < 1 and size != -1:
      raise ConfigError(f"config key 'mesh.{axis}' is {size}; give a number of devices, or -1.")
  if len(open_axes) > 1:
    named = " and ".join(f"'mesh.{axis}'" for axis in open_axes)
    raise ConfigError(f"config keys {named} are -1; only one axis can take the rest.")
  given = math.prod(size for size in sizes.values() if size != -1)
  named = ", ".join(f"mesh.{axis} = {size}" for axis, size in sizes.items() if size != -1)
  if open_axes:
    if count % given:
      raise ConfigError(
        f"config key 'mesh.{open_axes[0]}' is -1, but the {count} devices are no multiple "
        f"of the {given} of the other axes ({named})."
      )
    sizes[open_axes[0]] = count // given
  elif given != count:
    raise ConfigError(
      f"config keys {named} need {given} devices and there are {count}; set one of them to "
      "-1 to take the rest."
    )
  return sizes


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Return the sharding of a batch: its first axis over replica and fsdp."""
  return NamedSharding(mesh, PartitionSpec(("replica", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
  """Return the sharding of an array that every device holds in full."""
  return NamedSharding(mesh, PartitionSpec())


def on_every_device(mesh: Mesh, tree: Any) -> Any:
  """Copy arrays that may be sharded to every device in full. All processes must call this."""
  shardings = jax.tree.map(lambda _: replicated(mesh), tree)
  return jax.jit(lambda tree: tree, out_shardings=shardings)(tree)


def parameter_shardings(mesh: Mesh, tree: Any, rules: AxisRules = RULES) -> Any:
  """Return the sharding of each array of a state: parameters, moments, averages, counts.

  Scalars are replicated, and so is a dimension whose size its mesh axis does not divide.

  Args:
    mesh: see `make_mesh`.
    tree: arrays or `jax.ShapeDtypeStruct`s, in any structure whose paths end like those of the
      parameters.
    rules: the mesh axis of each logical axis.

  Returns:
    A `NamedSharding` for each array, in the structure of `tree`.

  Raises:
    ConfigError: no pattern matches an array's path, or two of its dimensions share a mesh axis.
  """

  def sharding(path: Any, leaf: Any) -> NamedSharding:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return NamedSharding(mesh, _spec(name, leaf.shape, mesh, rules))

  return jax.tree_util.tree_map_with_path(sharding, tree)


def _spec(name: str, shape: tuple[int, ...], mesh: Mesh, rules: AxisRules) -> PartitionSpec:
  if not shape:
    return PartitionSpec()
  logical = _logical_axes(name)
  if len(logical) > len(shape):  # a summary of a parameter, such as Adafactor's row means
    return PartitionSpec()
  axes: list[str | None] = [None] * (len(shape) - len(logical))
  for size, axis in zip(shape[len(axes) :], logical, strict=True):
    along = getattr(rules, axis)
    axes.append(along if along is not None and size % mesh.shape[along] == 0 else None)
  used = [axis for axis in axes if axis is not None]
  if len(set(used)) < len(used):
    raise ConfigError(
      f"the axis rules put two dimensions of {name!r} ({', '.join(logical)}) along the mesh axis "
      f"{max(used, key=used.count)!r}; give each an axis of its own, or None."
    )
  return PartitionSpec(*axes)


def _logical_axes(name: str) -> tuple[str, ...]:
  for pattern, axes in PARAMETER_AXES:
    if re.search(pattern, name):
      return axes
  raise ConfigError(
    f"no entry of PARAMETER_AXES (training/mesh.py) says how the parameter {name!r} lies on the "
    "mesh; add one with the logical axes of its last dimensions, or () to replicate it."
  )
