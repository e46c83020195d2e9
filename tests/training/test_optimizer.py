"""The optimizer against AdamW written out in NumPy, and every parameter's decay against a table."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.training.parameters import SHAPES, init_params, paths
from xjepa_jax.errors import ConfigError
from xjepa_jax.training.optimizer import decay_factors, optimizer, schedules
from xjepa_jax.training.target import find_target, momentum_schedule


def test_the_rate_rises_linearly_then_falls_along_a_cosine() -> None:
  rate = schedules(1e-3, warmup=4, steps=20, final_learning_rate=1e-6).learning_rate
  values = np.array([rate(n) for n in range(25)])
  np.testing.assert_allclose(values[:4], [0.25e-3, 0.5e-3, 0.75e-3, 1e-3], rtol=1e-6)
  done = np.minimum((np.arange(4, 25) - 4) / 16, 1)
  np.testing.assert_allclose(
    values[4:], 1e-6 + (1e-3 - 1e-6) * (1 + np.cos(np.pi * done)) / 2, rtol=1e-4
  )
  assert schedules(1e-3, warmup=0, steps=5).learning_rate(0) == np.float32(1e-3)


def test_the_decay_changes_over_all_steps() -> None:
  decay = schedules(1e-3, 0, 10, weight_decay=0.04, final_weight_decay=0.4).weight_decay
  np.testing.assert_allclose([decay(0), decay(5), decay(10)], [0.04, 0.22, 0.4], rtol=1e-6)
  constant = schedules(1e-3, 0, 10, weight_decay=0.04).weight_decay
  np.testing.assert_allclose([constant(0), constant(7)], 0.04, rtol=1e-6)


def adamw_in_numpy(params: dict[str, Any], grads: list[dict[str, Any]]) -> dict[str, Any]:
  """Clipping to norm 1, then AdamW with the schedules and factors spelled out, in float64."""
  params = {key: np.asarray(value, np.float64) for key, value in params.items()}
  m = {key: np.zeros_like(value) for key, value in params.items()}
  v = {key: np.zeros_like(value) for key, value in params.items()}
  for n, grad in enumerate(grads):
    norm = np.sqrt(sum((np.asarray(g, np.float64) ** 2).sum() for g in grad.values()))
    rate = 0.1 * (n + 1) / 2 if n < 2 else 0.01 + 0.09 * (1 + np.cos(np.pi * (n - 2) / 6)) / 2
    decay = 0.4 + (0.1 - 0.4) * (1 + np.cos(np.pi * n / 8)) / 2
    for key in params:
      g = np.asarray(grad[key], np.float64) / max(norm, 1)
      m[key] = 0.9 * m[key] + 0.1 * g
      v[key] = 0.95 * v[key] + 0.05 * g**2
      adam = (m[key] / (1 - 0.9 ** (n + 1))) / (np.sqrt(v[key] / (1 - 0.95 ** (n + 1))) + 1e-8)
      factor = 1.0 if key.endswith("kernel") else 0.0
      params[key] = params[key] - rate * (adam + decay * factor * params[key])
  return params


def test_updates_are_those_of_adamw_with_scheduled_decay_by_rule() -> None:
  rng = np.random.default_rng(0)
  shapes = {"kernel": (3, 4), "bias": (4,)}
  params: Any = {"encoder": {k: jnp.asarray(rng.normal(size=s)) for k, s in shapes.items()}}
  grads = [{k: rng.normal(size=s) * 3.0**-n for k, s in shapes.items()} for n in range(6)]
  expected = adamw_in_numpy(params["encoder"], grads)
  tx = optimizer(
    learning_rate=0.1,
    warmup=2,
    steps=8,
    momentum=momentum_schedule("constant", 0.0),
    final_learning_rate=0.01,
    weight_decay=0.1,
    final_weight_decay=0.4,
    clip=1.0,
  )
  state, update = tx.init(params), jax.jit(tx.update)
  for grad in grads:
    given = {"encoder": {k: jnp.asarray(g, jnp.float32) for k, g in grad.items()}}
    updates, state = update(given, state, params)
    params = optax.apply_updates(params, updates)
  for key, value in expected.items():
    np.testing.assert_allclose(params["encoder"][key], value, rtol=1e-4, atol=1e-5)
    # At momentum 0 the target encoder is the parameters.
    np.testing.assert_allclose(find_target(state)[key], params["encoder"][key], rtol=1e-6)


def test_matrices_decay_and_nothing_else_does() -> None:
  factors = paths(decay_factors(jax.eval_shape(init_params, jax.random.key(0))))
  shapes = paths(jax.tree.map(lambda s: 0, SHAPES, is_leaf=lambda x: isinstance(x, tuple)))
  assert factors.keys() == shapes.keys()
  for name, factor in factors.items():
    assert factor == (1.0 if name.endswith("/kernel") else 0.0), name
  # A projection inside an attention is a matrix, whatever it is called.
  assert paths(decay_factors({"cross": {"query": {"kernel": 0.0}}}))["cross/query/kernel"] == 1.0


def test_a_parameter_without_a_rule_is_named() -> None:
  params = {"encoder": {"kernel": jnp.ones(2), "whatever": jnp.ones(2)}}
  tx = optimizer(1e-3, 0, 10, momentum_schedule("constant", 0.9))
  with pytest.raises(ConfigError, match="'encoder/whatever'"):
    tx.init(params)


@pytest.mark.parametrize(
  ("arguments", "complaint"),
  [
    ({"learning_rate": -1.0}, r"optimizer\.learning_rate' is -1"),
    ({"weight_decay": float("nan")}, r"optimizer\.weight_decay' is nan"),
    ({"warmup": 10}, r"optimizer\.warmup' is 10 and training\.steps is 10"),
  ],
)
def test_schedules_that_make_no_sense_are_refused(
  arguments: dict[str, Any], complaint: str
) -> None:
  with pytest.raises(ConfigError, match=complaint):
    schedules(**{"learning_rate": 1e-3, "warmup": 0, "steps": 10, **arguments})
