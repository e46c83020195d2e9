"""AdamW with scheduled learning rate and weight decay, and the target encoder at the chain's end.

`update = -rate(n) * (adam(clipped gradient) + decay(n) * factor(path) * parameter)`, which is
decoupled weight decay (Loshchilov and Hutter, AdamW, algorithm 2) with the decay on a schedule, as
in DINO and I-JEPA. The factor of a parameter comes from a table of rules on its path. A parameter
that no rule matches is an error, so that a new one cannot silently get the wrong decay.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from xjepa_jax.errors import ConfigError, TrainingError
from xjepa_jax.training.target import target_encoder

DecayRules = Sequence[tuple[str, float]]

# The first pattern that matches a parameter's path ("encoder/trunk/blocks/mlp/up/kernel") gives the
# factor of its decay. Parameters of the objective (temperatures, metrics) have a meaningful scale
# and do not decay; nor do norms, biases and embeddings of a place, a query or a sensor.
DECAY_RULES: DecayRules = (
  (r"^objective/", 0.0),
  (r"(^|/)layouts/[^/]+/maps/", 0.0),  # fitted in closed form, not trained
  (r"(^|/)(bias|scale)$", 0.0),
  (r"(^|/)\w*kernel$", 1.0),
  (r"(^|/)(query|shared_queries|register_tokens|mask_token|\w+_tags/\w+)$", 0.0),
)


class Schedules(NamedTuple):
  """The scheduled quantities of an update, as functions of its number, counted from 0."""

  learning_rate: optax.Schedule
  weight_decay: optax.Schedule


def schedules(
  learning_rate: float,
  warmup: int,
  steps: int,
  final_learning_rate: float = 0.0,
  weight_decay: float = 0.0,
  final_weight_decay: float | None = None,
) -> Schedules:
  """Return the schedules of learning rate and weight decay by update.

  The rate of update n is `learning_rate * (n + 1) / warmup` while n < warmup, so that the first
  update is not lost, and then follows a cosine to `final_learning_rate` at n = steps. The decay
  follows a cosine from `weight_decay` to `final_weight_decay` (None keeps it constant) over all
  steps.

  Raises:
    ConfigError: a value is negative or not finite, or no steps are left after the warm-up.
  """
  final_weight_decay = weight_decay if final_weight_decay is None else final_weight_decay
  for key, value in (
    ("learning_rate", learning_rate),
    ("final_learning_rate", final_learning_rate),
    ("weight_decay", weight_decay),
    ("final_weight_decay", final_weight_decay),
    ("warmup", warmup),
  ):
    if not (math.isfinite(value) and value >= 0):
      raise ConfigError(f"config key 'optimizer.{key}' is {value}; expected 0 or more.")
  if warmup >= steps:
    raise ConfigError(
      f"config key 'optimizer.warmup' is {warmup} and training.steps is {steps}; the warm-up must "
      "end before the training."
    )

  def rate(count: Any) -> jax.Array:
    count = jnp.asarray(count, jnp.float32)
    rising = learning_rate * (count + 1) / max(warmup, 1)
    falling = _cosine(learning_rate, final_learning_rate, (count - warmup) / (steps - warmup))
    return jnp.where(count < warmup, rising, falling)

  def decay(count: Any) -> jax.Array:
    return _cosine(weight_decay, final_weight_decay, jnp.asarray(count, jnp.float32) / steps)

  return Schedules(rate, decay)


def optimizer(
  learning_rate: float,
  warmup: int,
  steps: int,
  momentum: optax.Schedule,
  final_learning_rate: float = 0.0,
  weight_decay: float = 0.0,
  final_weight_decay: float | None = None,
  b1: float = 0.9,
  b2: float = 0.95,
  eps: float = 1e-8,
  clip: float = 0.0,
  decay_rules: DecayRules = DECAY_RULES,
) -> optax.GradientTransformationExtraArgs:
  """Return clipping, AdamW and the target encoder as one transformation.

  Args:
    learning_rate, warmup, steps, final_learning_rate, weight_decay, final_weight_decay: see
      `schedules`.
    momentum: tau of the target encoder by update; see `target.configured_schedule`.
    b1, b2, eps: Adam's.
    clip: largest global norm of the gradients; 0 does not clip.
    decay_rules: (pattern, factor) pairs; the first pattern that matches a parameter's path counts.

  Raises:
    ConfigError: see `schedules`; or, on init, no rule matches a parameter.
  """
  rate, decay = schedules(
    learning_rate, warmup, steps, final_learning_rate, weight_decay, final_weight_decay
  )
  return optax.chain(
    optax.clip_by_global_norm(clip) if clip > 0 else optax.identity(),
    optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
    decay_weights(decay, decay_rules),
    optax.scale_by_learning_rate(rate),
    # The target encoder averages the parameters plus the final updates, so it has to come last.
    target_encoder(momentum),
  )


class DecayState(NamedTuple):
  """State of `decay_weights`: () int32, the number of updates seen."""

  count: jax.Array  # type: ignore[assignment]  # hides tuple.count, as in optax's states


def decay_weights(
  decay: optax.Schedule, rules: DecayRules = DECAY_RULES
) -> optax.GradientTransformationExtraArgs:
  """Add `decay(n) * factor * parameter` to each update, with the factor given by the rules.

  Raises:
    ConfigError: on init, no rule matches a parameter.
    TrainingError: on update, `params` was not given.
  """

  def init(params: Any) -> DecayState:
    decay_factors(params, rules)
    return DecayState(jnp.zeros((), jnp.int32))

  def update(
    updates: Any, state: DecayState, params: Any = None, **extra: Any
  ) -> tuple[Any, DecayState]:
    del extra
    if params is None:
      raise TrainingError("weight decay needs parameters: call update(updates, state, params).")
    weight = decay(state.count)
    updates = jax.tree.map(
      lambda u, p, factor: u + (weight * factor * p).astype(u.dtype) if factor else u,
      updates,
      params,
      decay_factors(params, rules),
    )
    return updates, DecayState(optax.safe_increment(state.count))

  return optax.GradientTransformationExtraArgs(init, update)


def decay_factors(params: Any, rules: DecayRules = DECAY_RULES) -> Any:
  """Return the factor of each parameter's decay, in the structure of `params`.

  Raises:
    ConfigError: no rule matches a parameter.
  """

  def factor(path: Any, _: Any) -> float:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    for pattern, value in rules:
      if re.search(pattern, name):
        return value
    raise ConfigError(
      f"no rule says whether the parameter {name!r} decays; add one to the decay rules, which are "
      f"{', '.join(repr(pattern) for pattern, _ in rules)}."
    )

  return jax.tree_util.tree_map_with_path(factor, params)


def _cosine(start: float, end: float, done: jax.Array) -> jax.Array:
  """Interpolate from start to end along half a cosine as `done` goes from 0 to 1."""
  return end + (start - end) * (1 + jnp.cos(jnp.pi * jnp.clip(done, 0, 1))) / 2
