"""The state that a training step takes and returns, created with its sharding on the mesh."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from xjepa_jax.training.mesh import RULES, AxisRules, parameter_shardings


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """Everything that a step changes.

  Attributes:
    step: () int32, number of steps done; also the number of the next step, from 0.
    params: nested dicts of float32 arrays.
    opt_state: the optimizer's state, which contains the target encoder.
    skipped: () int32, number of updates skipped so far because of NaN or Inf.
    streak: () int32, number of consecutive updates skipped up to now.
  """

  step: jax.Array
  params: Any
  opt_state: Any
  skipped: jax.Array
  streak: jax.Array


def new_state(params: Any, tx: optax.GradientTransformation) -> TrainState:
  """Return the state before the first step."""
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=tx.init(params),
    skipped=jnp.zeros((), jnp.int32),
    streak=jnp.zeros((), jnp.int32),
  )


def abstract_state(
  init_params: Callable[[jax.Array], Any],
  tx: optax.GradientTransformation,
  mesh: Mesh | None = None,
  rules: AxisRules = RULES,
) -> TrainState:
  """Return the shapes and dtypes of a new state without computing anything.

  Args:
    init_params: maps a random key to parameters.
    tx: the optimizer.
    mesh: if given, each `jax.ShapeDtypeStruct` also has its sharding, as needed for a restore.
    rules: the mesh axis of each logical axis.

  Raises:
    ConfigError: no rule describes a parameter.
  """
  # Any key will do, because only shapes and dtypes are computed.
  state = jax.eval_shape(lambda key: new_state(init_params(key), tx), jax.random.key(0))
  if mesh is None:
    return state
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
    state,
    parameter_shardings(mesh, state, rules),
  )


def create_state(
  init_params: Callable[[jax.Array], Any],
  tx: optax.GradientTransformation,
  mesh: Mesh,
  key: jax.Array,
  rules: AxisRules = RULES,
) -> TrainState:
  """Create a new state; every array is created sharded, and is never whole on one device.

  Under `jax.jit` alone the optimizer's state would be replicated, so its shardings are given. The
  values do not depend on the mesh: JAX's random bits are the same however they are divided.

  Args:
    init_params: maps a random key to parameters.
    tx: the optimizer.
    mesh: see `mesh.make_mesh`.
    key: determines the parameters; the same on all processes.
    rules: the mesh axis of each logical axis.

  Raises:
    ConfigError: no rule describes a parameter.
  """
  shardings = parameter_shardings(mesh, abstract_state(init_params, tx), rules)
  create = jax.jit(lambda key: new_state(init_params(key), tx), out_shardings=shardings)
  return create(key)
