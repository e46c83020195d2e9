"""A new state is sharded from the start, may be donated, and does not depend on the mesh."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import optax
import pytest

from tests.training.parameters import init_few, paths
from xjepa_jax.training.mesh import make_mesh, parameter_shardings
from xjepa_jax.training.optimizer import optimizer
from xjepa_jax.training.state import TrainState, abstract_state, create_state
from xjepa_jax.training.target import find_target, momentum_schedule

TX = optimizer(1e-2, 0, 10, momentum_schedule("constant", 0.9), weight_decay=0.1, clip=1.0)


@pytest.fixture(scope="module")
def state() -> TrainState:
  return create_state(init_few, TX, make_mesh(1, 8, 1), jax.random.key(7))


def test_moments_and_averages_are_really_cut_into_eight(state: TrainState) -> None:
  cut = {
    name: leaf for name, leaf in paths(state).items() if name.endswith("trunk/blocks/mlp/up/kernel")
  }
  assert len(cut) == 4  # the parameter, two moments, the target encoder
  for name, leaf in cut.items():
    assert {shard.data.shape for shard in leaf.addressable_shards} == {(3, 2, 64)}, name
  on_one = sum(leaf.addressable_shards[0].data.nbytes for leaf in paths(state).values())
  assert on_one < 0.3 * sum(leaf.nbytes for leaf in paths(state).values())


def test_it_starts_at_zero_with_the_target_equal_to_the_encoder(state: TrainState) -> None:
  for count in (state.step, state.skipped, state.streak):
    assert count == 0 and count.dtype == np.int32 and count.shape == ()
  jax.tree.map(np.testing.assert_array_equal, find_target(state.opt_state), state.params["encoder"])


def test_its_values_are_the_same_on_every_mesh(state: TrainState) -> None:
  meshes = [make_mesh(2, 2, 2), make_mesh(1, 1, 1, devices=jax.devices()[:1])]
  for mesh in meshes:
    other = create_state(init_few, TX, mesh, jax.random.key(7))
    jax.tree.map(np.testing.assert_array_equal, other, state)


def test_its_abstract_twin_has_its_shapes_types_and_shardings(state: TrainState) -> None:
  abstract = abstract_state(init_few, TX, make_mesh(1, 8, 1))
  assert str(jax.tree.structure(abstract)) == str(jax.tree.structure(state))

  def compare(a: Any, b: jax.Array) -> None:
    assert (a.shape, a.dtype) == (b.shape, b.dtype) and a.sharding.is_equivalent_to(
      b.sharding, b.ndim
    )

  jax.tree.map(compare, abstract, state)


def test_a_step_may_take_over_its_memory() -> None:
  mesh = make_mesh(1, 8, 1)
  state = create_state(init_few, TX, mesh, jax.random.key(7))
  leaves = jax.tree.leaves(state)
  shardings = parameter_shardings(mesh, jax.eval_shape(lambda: state))

  def step(state: TrainState) -> TrainState:
    updates, opt_state = TX.update(state.params, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return dataclasses.replace(state, step=state.step + 1, params=params, opt_state=opt_state)

  after = jax.jit(step, donate_argnums=0, out_shardings=shardings)(state)
  assert after.step == 1 and all(leaf.is_deleted() for leaf in leaves if leaf.ndim)
