"""The target encoder is an exponential moving average of parameters, in float32, wherever it is."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from xjepa_jax.config import TargetConfig
from xjepa_jax.errors import ConfigError, TrainingError
from xjepa_jax.training.mesh import make_mesh
from xjepa_jax.training.target import (
  TargetState,
  configured_schedule,
  find_target,
  momentum_schedule,
  power_schedule,
  target_encoder,
)


def params_of(seed: int = 0) -> dict[str, Any]:
  rng = np.random.default_rng(seed)
  return {
    "encoder": {"w": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)},
    "predictor": {"w": jnp.asarray(rng.normal(size=(2,)), jnp.float32)},
  }


def gradients(params: Any, n: int) -> Any:
  return jax.tree.map(lambda p: jnp.cos(p * (n + 1)), params)


def test_after_n_updates_it_is_the_closed_form_of_all_parameters_so_far() -> None:
  tau, steps = 0.9, 7
  tx = optax.chain(optax.sgd(0.1), target_encoder(optax.constant_schedule(tau)))
  params = params_of()
  state = tx.init(params)
  history = [np.asarray(params["encoder"]["w"], np.float64)]
  for n in range(steps):
    updates, state = tx.update(gradients(params, n), state, params)
    params = optax.apply_updates(params, updates)
    history.append(np.asarray(params["encoder"]["w"], np.float64))
  expected = tau**steps * history[0] + sum(
    (1 - tau) * tau ** (steps - k) * history[k] for k in range(1, steps + 1)
  )
  target = find_target(state)
  assert list(target) == ["w"]
  np.testing.assert_allclose(target["w"], expected, rtol=0, atol=1e-6)


def test_updates_pass_unchanged_and_the_optimizer_before_it_is_undisturbed() -> None:
  params = params_of()
  plain, chained = (
    optax.adamw(1e-2),
    optax.chain(optax.adamw(1e-2), target_encoder(optax.constant_schedule(0.5))),
  )
  expected, _ = plain.update(gradients(params, 0), plain.init(params), params)
  updates, state = chained.update(gradients(params, 0), chained.init(params), params)
  jax.tree.map(np.testing.assert_array_equal, updates, expected)
  halfway = 0.5 * params["encoder"]["w"] + 0.5 * (params["encoder"]["w"] + updates["encoder"]["w"])
  np.testing.assert_allclose(find_target(state)["w"], halfway, rtol=1e-6)


@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_momentum_zero_copies_and_momentum_one_never_moves(tau: float) -> None:
  params = params_of()
  tx = optax.chain(optax.sgd(0.1), target_encoder(optax.constant_schedule(tau)))
  updates, state = tx.update(gradients(params, 0), tx.init(params), params)
  kept = params if tau else optax.apply_updates(params, updates)
  np.testing.assert_array_equal(find_target(state)["w"], kept["encoder"]["w"])


def test_when_gradients_are_accumulated_it_averages_only_real_updates() -> None:
  params = params_of()
  chain = optax.chain(optax.sgd(0.1), target_encoder(momentum_schedule("linear", 0.5, 0.9, 4)))
  several = optax.MultiSteps(chain, every_k_schedule=3)
  state = several.init(params)
  reference_state, reference = chain.init(params), params
  for n in range(2):
    before = find_target(state)["w"]
    parts = [gradients(params, 3 * n + i) for i in range(3)]
    mean = jax.tree.map(lambda *g: sum(g) / 3, *parts)
    updates, reference_state = chain.update(mean, reference_state, reference)
    reference = optax.apply_updates(reference, updates)
    for i, part in enumerate(parts):
      updates, state = several.update(part, state, params)
      params = optax.apply_updates(params, updates)
      if i < 2:
        np.testing.assert_array_equal(find_target(state)["w"], before)
    np.testing.assert_allclose(
      find_target(state)["w"], find_target(reference_state)["w"], rtol=1e-6, atol=1e-7
    )


def test_an_update_that_is_not_finite_leaves_it_alone() -> None:
  params = params_of()
  chain = optax.chain(optax.sgd(0.1), target_encoder(optax.constant_schedule(0.5)))
  guarded = optax.apply_if_finite(chain, max_consecutive_errors=5)
  bad = jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), params)
  _, state = guarded.update(bad, guarded.init(params), params)
  np.testing.assert_array_equal(find_target(state)["w"], params["encoder"]["w"])


def test_with_bfloat16_parameters_it_is_float32_and_does_not_stall() -> None:
  # From 0 towards constant parameters of 1 at tau = .999: 1 - .999^n. In bfloat16 this stalls.
  ones = {"encoder": {"w": jnp.ones((3,), jnp.bfloat16)}}
  tx = target_encoder(optax.constant_schedule(0.999))
  state = TargetState(jnp.zeros((), jnp.int32), {"w": jnp.zeros((3,), jnp.float32)})
  zeros = jax.tree.map(jnp.zeros_like, ones)
  assert tx.init(ones).encoder["w"].dtype == jnp.float32

  def one(state: TargetState, _: None) -> tuple[TargetState, None]:
    updates, state = tx.update(zeros, state, ones)
    assert updates["encoder"]["w"].dtype == jnp.bfloat16
    return state, None

  state, _ = jax.jit(lambda s: jax.lax.scan(one, s, None, length=5000))(state)
  assert state.encoder["w"].dtype == jnp.float32
  np.testing.assert_allclose(state.encoder["w"], 1 - 0.999**5000, rtol=0, atol=1e-4)
  assert state.count == 5000


def test_a_sharded_parameters_average_is_sharded_alike() -> None:
  mesh = make_mesh(1, 8, 1)
  along, whole = (
    NamedSharding(mesh, PartitionSpec("fsdp")),
    NamedSharding(mesh, PartitionSpec()),
  )
  tx = optax.chain(optax.sgd(0.1), target_encoder(optax.constant_schedule(0.5)))
  params = {"encoder": {"w": jax.device_put(jnp.arange(16.0), along)}}
  shardings = jax.tree.map(lambda x: along if x.ndim else whole, jax.eval_shape(tx.init, params))
  state = jax.jit(tx.init, out_shardings=shardings)(params)
  update = jax.jit(tx.update, out_shardings=({"encoder": {"w": along}}, shardings))
  _, state = update({"encoder": {"w": jnp.ones(16)}}, state, params)
  target = find_target(state)["w"]
  assert target.sharding == along and target.addressable_shards[0].data.shape == (2,)
  np.testing.assert_allclose(target, np.arange(16.0) - 0.05, rtol=1e-6)


def test_the_schedules_run_from_start_to_end_and_stay() -> None:
  steps, counts = 10, np.arange(0, 16)
  done = np.minimum(counts / steps, 1)
  for kind, expected in (
    ("constant", np.full(16, 0.996)),
    ("linear", 0.996 + 0.004 * done),
    ("cosine", 1 - 0.004 * (np.cos(np.pi * done) + 1) / 2),
  ):
    schedule = momentum_schedule(kind, 0.996, 1.0, steps)
    np.testing.assert_allclose([schedule(n) for n in counts], expected, rtol=0, atol=1e-7)
  assert momentum_schedule("linear", 0.996, 1.0, steps)(jnp.asarray(99)) == 1.0


def weights(schedule: optax.Schedule, steps: int) -> np.ndarray:
  """What the start and the parameters after each update weigh in the average, update by update."""
  found = np.zeros(steps + 1)
  found[0] = 1.0
  for n, tau in enumerate(np.asarray(jax.vmap(schedule)(jnp.arange(steps)), np.float64)):
    found *= tau
    found[n + 1] += 1 - tau
  return found


@pytest.mark.parametrize("lag", [0.05, 0.2, 0.5])
def test_the_power_average_lags_by_its_share_of_the_steps_whatever_their_number(lag: float) -> None:
  for steps in (100, 2_000):
    found = weights(power_schedule(lag), steps)
    assert found.sum() == pytest.approx(1)
    age = steps - np.arange(steps + 1)
    assert found @ age / steps == pytest.approx(lag, abs=0.6 / steps)
    # k^e - (k - 1)^e of N^e, with e = 1 / lag - 1
    power = (np.arange(steps + 1) / steps) ** (1 / lag - 1)
    np.testing.assert_allclose(found[1:], np.diff(power), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("steps", [100, 50_000])
def test_the_random_start_weighs_nothing_after_a_short_and_after_a_long_run(steps: int) -> None:
  found = weights(power_schedule(TargetConfig.lag), steps)
  assert found[0] == 0
  # Nor do the parameters that are still near it: those of the first half, all together.
  assert found[: steps // 2 + 1].sum() == pytest.approx(0.5**19, rel=0.01)
  # The schedule that it replaces, over 100 steps from .98 to 1, left a third of the start in it.
  assert weights(momentum_schedule("linear", 0.98, 1.0, 100), 100)[0] == pytest.approx(
    0.36, abs=0.01
  )


def test_without_a_lag_the_average_is_the_parameters_and_at_a_half_their_mean() -> None:
  np.testing.assert_array_equal(weights(power_schedule(0.0), 5), [0, 0, 0, 0, 0, 1])
  np.testing.assert_allclose(weights(power_schedule(0.5), 5), [0, *[0.2] * 5], rtol=1e-5)
  with pytest.raises(ConfigError, match=r"'target\.lag' is 1\.0"):
    power_schedule(1.0)


def test_the_published_schedule_is_a_choice_of_the_config() -> None:
  published = configured_schedule(TargetConfig(schedule="linear"), 1000)
  expected = 0.996 + 0.004 * np.array([0, 500, 1000, 1500]).clip(max=1000) / 1000
  np.testing.assert_allclose([published(n) for n in (0, 500, 1000, 1500)], expected, atol=1e-7)
  constant = configured_schedule(TargetConfig(schedule="constant", momentum=0.9), 10)
  assert constant(7) == np.float32(0.9)
  assert configured_schedule(TargetConfig(), 10)(1) == pytest.approx(0.5**19, rel=1e-4)


@pytest.mark.parametrize(
  ("arguments", "complaint"),
  [
    (("linear", 1.5, 1.0, 10), r"'target\.momentum' is 1.5"),
    (("linear", 0.9, -0.1, 10), r"'target\.final_momentum' is -0.1"),
    (("sine", 0.9, 1.0, 10), "'sine'.*power, linear, cosine, constant"),
    (("cosine", 0.9, 1.0, 0), "over 0 steps"),
  ],
)
def test_a_schedule_that_makes_no_sense_is_refused(arguments: Any, complaint: str) -> None:
  with pytest.raises(ConfigError, match=complaint):
    momentum_schedule(*arguments)


def test_what_is_missing_is_said() -> None:
  params = params_of()
  tx = target_encoder(optax.constant_schedule(0.5))
  with pytest.raises(TrainingError, match="update\\(updates, state, params\\)"):
    tx.update(params, tx.init(params))
  with pytest.raises(TrainingError, match="'trunk'.*encoder, predictor"):
    target_encoder(optax.constant_schedule(0.5), part="trunk").init(params)
  with pytest.raises(TrainingError, match="0 target encoders"):
    find_target(optax.adam(1e-3).init(params))
  with pytest.raises(TrainingError, match="2 target encoders"):
    find_target(optax.chain(tx, tx).init(params))
