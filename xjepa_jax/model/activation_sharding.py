"""Activations keep their samples on the devices that read them.

Left alone, XLA's partitioner may cut a product of (B, n, D) activations and a (D, E) matrix whose D
lies along `fsdp` by D: every device then has all samples, and each product of a layer ends with a
sum of all activations over all devices. With the samples held in place it gathers the matrix, which
is what fully sharded training means. One constraint a layer is enough.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AbstractMesh, PartitionSpec

# The mesh axes over which the samples of a batch are cut, see `training.mesh.batch_sharding`.
SAMPLE_AXES = ("replica", "fsdp")


def on_mesh(function: Callable[..., Any], mesh: AbstractMesh) -> Callable[..., Any]:
  """The function, traced for a mesh, so that `keep_samples` knows of it."""

  @functools.wraps(function)
  def placed(*args: Any) -> Any:
    with jax.sharding.use_abstract_mesh(mesh):
      return function(*args)

  return placed


def keep_samples(x: jax.Array, axis: int = -3) -> jax.Array:
  """x with its axis of samples cut as the batch is, and its other axes whole.

  Without a mesh (`on_mesh`), and on a mesh of one device, x as it is.

  Args:
    x: activations (..., B, n, D).
    axis: of the samples.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1 or not set(SAMPLE_AXES) <= set(mesh.axis_names):
    return x
  spec: list[tuple[str, ...] | None] = [None] * x.ndim
  spec[axis] = SAMPLE_AXES
  return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))
