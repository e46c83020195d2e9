"""Samples stay where they are: the constraint, and when there is none."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from xjepa_jax.model.activation_sharding import SAMPLE_AXES, keep_samples, on_mesh
from xjepa_jax.training.mesh import batch_sharding, make_mesh


def test_without_a_mesh_or_on_one_device_nothing_is_added() -> None:
  x = jnp.ones((4, 3, 2))
  assert keep_samples(x) is x
  one = make_mesh(devices=jax.devices()[:1])
  for function in (keep_samples, on_mesh(keep_samples, one.abstract_mesh)):
    assert "sharding_constraint" not in str(jax.make_jaxpr(function)(x))


def test_samples_lie_as_the_batch_does_wherever_their_axis_is() -> None:
  mesh = make_mesh(2, 2, 2)
  assert batch_sharding(mesh).spec == P(SAMPLE_AXES)
  x = np.ones((3, 8, 5, 2), np.float32)
  for axis in (1, -3):
    keep = jax.jit(on_mesh(lambda x, axis=axis: keep_samples(x, axis) + 1, mesh.abstract_mesh))
    found = keep(jax.device_put(x, NamedSharding(mesh, P())))
    assert found.sharding.is_equivalent_to(NamedSharding(mesh, P(None, SAMPLE_AXES)), 4)
