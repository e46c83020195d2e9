"""Sharding constraints that keep the samples of activations on the devices that read them.

Left alone, XLA's partitioner may shard a product of (B, n, D) activations and a (D, E) matrix,
whose D lies along `fsdp`, by D: every device then holds all samples, and each product of a layer
ends with a sum of all activations over all devices. With the samples pinned in place, the
partitioner gathers the matrix instead, which is what fully sharded training means. One constraint
per layer is enough.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AbstractMesh, PartitionSpec

# The mesh axes that shard the samples of a batch, see `training.mesh.batch_sharding`.
SAMPLE_AXES = ("replica", "fsdp")


def on_mesh(function: Callable[..., Any], mesh: AbstractMesh) -> Callable[..., Any]:
  """Wrap a function so that it is traced for a mesh, which `keep_samples` then sees."""

  @functools.wraps(function)
  def placed(*args: Any) -> Any:
    with jax.sharding.use_abstract_mesh(mesh):
      return function(*args)

  return placed


def keep_samples(x: jax.Array, axis: int = -3) -> jax.Array:
  """Constrain x so that its sample axis is sharded like the batch and all other axes are whole.

  Outside `on_mesh`, and on a mesh of one device, x is returned unchanged.

  Args:
    x: activations (..., B, n, D).
    axis: the sample axis.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1 or not set(SAMPLE_AXES) <= set(mesh.axis_names):
    return x
  spec: list[tuple[str, ...] | None] = [None] * x.ndim
  spec[axis] = SAMPLE_AXES
  return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))
