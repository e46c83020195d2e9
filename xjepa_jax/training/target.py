"""The EMA target encoder as the last transformation of an optax chain.

Its state is part of the optimizer's, so it is sharded, saved and restored with it, and an update
that is skipped or accumulated leaves it unchanged. `optax.ema` does not serve: it averages updates,
starting from zero.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from xjepa_jax.config import TargetConfig
from xjepa_jax.errors import ConfigError, TrainingError

UNSET = -1.0  # a momentum that the config does not set
PUBLISHED = (0.996, 1.0)  # first and last tau of I-JEPA and X-JEPA


class TargetState(NamedTuple):
  """State of `target_encoder`.

  Attributes:
    count: () int32, number of updates averaged so far.
    encoder: the averaged parameters, float32, in the structure of the part that is averaged.
  """

  count: jax.Array  # type: ignore[assignment]  # hides tuple.count, as in optax's states
  encoder: Any


def target_encoder(
  momentum: optax.Schedule, part: str = "encoder"
) -> optax.GradientTransformationExtraArgs:
  """Average a part of the parameters as they are after each update; updates pass unchanged.

  `average <- tau * average + (1 - tau) * parameters` (X-JEPA, section 3; BYOL, eq. 1), in float32
  whatever the dtype of the parameters: in bfloat16 the small steps at tau = 0.999 are rounded away.
  This has to be the last transformation of a chain, because it averages the parameters plus the
  updates that it sees.

  Args:
    momentum: tau in [0, 1] of the n-th update, counted from 0.
    part: key of the subtree of the parameters that is averaged.

  Returns:
    A transformation whose update needs `params`. Its state starts as a copy of the part.

  Raises:
    TrainingError: on update, `params` was not given, or has no such part.
  """

  def init(params: Any) -> TargetState:
    # Copy even float32 arrays: a step that donates its state would donate a shared buffer twice.
    encoder = jax.tree.map(
      lambda value: jnp.array(value, dtype=jnp.float32, copy=True), _part(params, part)
    )
    return TargetState(jnp.zeros((), jnp.int32), encoder)

  def update(
    updates: Any, state: TargetState, params: Any = None, **extra: Any
  ) -> tuple[Any, TargetState]:
    del extra
    new = optax.apply_updates(_part(params, part), _part(updates, part))
    tau = jnp.asarray(momentum(state.count), jnp.float32)
    encoder = jax.tree.map(
      lambda old, value: tau * old + (1 - tau) * value.astype(jnp.float32), state.encoder, new
    )
    return updates, TargetState(optax.safe_increment(state.count), encoder)

  return optax.GradientTransformationExtraArgs(init, update)


def power_schedule(lag: float) -> optax.Schedule:
  """Return tau by update for an average whose memory is a fixed share of the updates done so far.

  With e = 1 / lag - 1, the n-th update (from 0) has `tau_n = (n / (n + 1))^e`. After N updates the
  parameters after update k then have the weight `(k^e - (k - 1)^e) / N^e`, about
  e k^(e - 1) / N^e. This is the power function EMA of Karras et al. 2024 (arXiv:2312.02696, section
  3.1, with gamma = e - 1), related to the polynomial-decay averaging of Shamir and Zhang 2013. So

  - the start has weight exactly 0 from the first update on, and the first k updates together have
    (k / N)^e: at a lag of .05 the first half weighs 2e-6, whatever N;
  - the mean age of the averaged parameters is lag * N (its deviation is nearly the same: .048 N at
    .05): 5 updates out of 100, 2,500 out of 50,000. This also holds in mid-run, and does not depend
    on the run's length;
  - lag 0 gives the last parameters themselves, .5 the plain mean of all since the start.

  A fixed tau has a memory of 1 / (1 - tau) updates. That is too long for a short run, whose average
  stays near its random start (at .98 rising to 1 over 100 updates, the start weighs 36 %), and too
  short for a long one.

  Args:
    lag: mean age of the averaged parameters as a share of the updates done, at least 0, below 1.

  Raises:
    ConfigError: the lag is out of range.
  """
  if not 0 <= lag < 1:
    raise ConfigError(f"config key 'target.lag' is {lag}; expected at least 0 and less than 1.")

  def schedule(count: Any) -> jax.Array:
    done = jnp.asarray(count, jnp.float32)
    if lag == 0:
      return jnp.zeros_like(done)
    # Through the logarithm, because n / (n + 1) would be rounded before the power. 0 where n is 0.
    return jnp.exp((1 - 1 / lag) * jnp.log1p(1 / done))

  return schedule


def momentum_schedule(kind: str, start: float, end: float = 1.0, steps: int = 1) -> optax.Schedule:
  """Return tau by update: constant, or from `start` to `end`, where it stays after `steps`.

  Args:
    kind: "constant"; "linear" (I-JEPA, X-JEPA: from .996 to 1); "cosine",
      `end - (end - start) (1 + cos(pi n/steps)) / 2` (BYOL, section 3.2).
    start: tau of the first update.
    end: tau of update number `steps` and later.
    steps: number of updates from start to end.

  Raises:
    ConfigError: an unknown kind, a tau outside [0, 1], or fewer than one step.
  """
  for key, value in (("momentum", start), ("final_momentum", end)):
    if not 0 <= value <= 1:
      raise ConfigError(f"config key 'target.{key}' is {value}; expected a number from 0 to 1.")
  if steps < 1:
    raise ConfigError(f"the target's momentum changes over {steps} steps; expected at least 1.")
  if kind == "constant":
    return lambda count: jnp.full((), start, jnp.float32)
  if kind not in ("linear", "cosine"):
    raise ConfigError(
      f"config key 'target.schedule' is {kind!r}; allowed: power, linear, cosine, constant."
    )

  def schedule(count: Any) -> jax.Array:
    done = jnp.clip(jnp.asarray(count, jnp.float32) / steps, 0, 1)
    if kind == "cosine":
      done = (1 - jnp.cos(jnp.pi * done)) / 2
    return start + (end - start) * done

  return schedule


def configured_schedule(target: TargetConfig, steps: int) -> optax.Schedule:
  """Return tau by update as configured, for a number of training steps.

  Raises:
    ConfigError: see `power_schedule` and `momentum_schedule`.
  """
  if target.schedule == "power":
    return power_schedule(target.lag)
  start = PUBLISHED[0] if target.momentum == UNSET else target.momentum
  end = PUBLISHED[1] if target.final_momentum == UNSET else target.final_momentum
  return momentum_schedule(target.schedule, start, end, steps)


def find_target(opt_state: Any) -> Any:
  """Return the target encoder's parameters, wherever in an optimizer's state they are.

  Args:
    opt_state: the state of a chain, however wrapped (`MultiSteps`, `apply_if_finite`, ...), with
      arrays or stand-ins for them.

  Raises:
    TrainingError: the optimizer has no target encoder, or several.
  """
  leaves = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, TargetState))
  found = [leaf for leaf in leaves if isinstance(leaf, TargetState)]
  if len(found) != 1:
    raise TrainingError(
      f"the optimizer's state holds {len(found)} target encoders, expected one: end its chain "
      "with one target_encoder(...)."
    )
  return found[0].encoder


def _part(tree: Any, part: str) -> Any:
  if tree is None:
    raise TrainingError(
      "the target encoder averages parameters and got none: call update(updates, state, params)."
    )
  if part not in tree:
    raise TrainingError(
      f"the target encoder averages the part {part!r} of the parameters, whose parts are "
      f"{', '.join(map(str, tree))}."
    )
  return tree[part]
