"""The train step: alike on every mesh, bit for bit repeatable, and unharmed by what is broken."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.compiling import compile_quickly, compiled
from tests.training.conftest import Small
from tests.training.parameters import paths
from xjepa_jax.config import MaskConfig
from xjepa_jax.model.images import scale
from xjepa_jax.model.mask_plan import plan_masks
from xjepa_jax.objective import table
from xjepa_jax.training.experiment import Experiment, open_experiment
from xjepa_jax.training.mesh import batch_sharding, replicated
from xjepa_jax.training.plan import abstract_batch
from xjepa_jax.training.state import TrainState
from xjepa_jax.training.step import jit_step, train_step
from xjepa_jax.training.target import find_target, target_encoder

LAYOUTS = {
  "fsdp": (1, 8, 1),
  "all three": (2, 2, 2),
  "replica": (8, 1, 1),
  "tensor": (1, 1, 8),
}
Run = Callable[[Any, Any], tuple[TrainState, dict[str, Any]]]


def shardings(experiment: Experiment) -> Any:
  return jax.tree.map(lambda leaf: leaf.sharding, experiment.abstract_state())


def compile_step(experiment: Experiment, step: Any) -> Any:
  lowered = step.lower(experiment.abstract_state(), abstract_batch(experiment))
  return compile_quickly(lowered)


def same(one: Any, other: Any) -> None:
  """Every bit of two trees."""
  jax.tree.map(np.testing.assert_array_equal, one, other)


def copied(tree: Any) -> Any:
  """On the host, in memory of its own: a step takes over the memory of its state."""
  return jax.tree.map(np.array, tree)


@pytest.fixture(scope="module")
def run(small: Small) -> Run:
  """One step on one device. Its sensors are not clipped, and stored values are doubled.

  The doubling is undone by twice the deviation, without any rounding: so the largest float32 is
  the only stored value that overflows.
  """
  experiment = small.experiment
  inputs = {}
  for key, given in experiment.inputs.items():
    scaling = given.sensor.scaling
    mean, std = (tuple(2 * x for x in values) for values in (scaling.mean, scaling.std))
    doubled = dataclasses.replace(scaling, clip=None, gain=2.0, mean=mean, std=std)
    sensor = dataclasses.replace(given.sensor, scaling=doubled)
    inputs[key] = dataclasses.replace(given, sensor=sensor)
  pure = train_step(
    dataclasses.replace(experiment.model, inputs=inputs),
    experiment.objective,
    experiment.optimizer,
    experiment.plan,
    experiment.config,
  )
  mesh = experiment.mesh
  step = jit_step(pure, shardings(experiment), batch_sharding(mesh), replicated(mesh))
  executable = compile_step(experiment, step)

  def run(state: Any, batch: Any) -> tuple[TrainState, dict[str, Any]]:
    on_device = jax.device_put((state, batch), jax.devices()[0])
    after, metrics = executable(*on_device)
    return copied(after), copied(metrics)

  return run


@pytest.fixture(scope="module")
def three(small: Small, run: Run) -> tuple[TrainState, list[dict[str, Any]]]:
  """The state after three steps, and the metrics of each."""
  state, metrics = small.state, []
  for batch in small.batches:
    state, found = run(state, batch)
    metrics.append(found)
  return state, metrics


class Sharded(NamedTuple):
  """Three steps on a mesh.

  Attributes:
    experiment: on that mesh.
    given: the first state's arrays, which the first step was given.
    after: the state after the third.
    metrics: of each.
  """

  experiment: Experiment
  given: TrainState
  after: TrainState
  metrics: list[dict[str, Any]]


@pytest.fixture(scope="module", params=LAYOUTS)
def sharded(request: pytest.FixtureRequest, small: Small) -> Sharded:
  experiment = small.open(LAYOUTS[request.param])
  step = compile_step(experiment, experiment.step)
  given = state = jax.device_put(small.state, shardings(experiment))
  metrics = []
  for batch in small.batches:
    state, found = step(state, jax.device_put(batch, batch_sharding(experiment.mesh)))
    metrics.append(jax.device_get(found))
  return Sharded(experiment, given, state, metrics)


def test_every_mesh_gives_the_losses_of_one_device(
  sharded: Sharded, three: tuple[TrainState, list[dict[str, Any]]]
) -> None:
  for found, expected in zip(sharded.metrics, three[1], strict=True):
    assert found.keys() == expected.keys() and not found["skipped"]
    for name, value in expected.items():
      np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


def test_moments_and_the_target_are_cut_as_the_parameters_are(sharded: Sharded) -> None:
  mesh = sharded.experiment.mesh
  state = paths(sharded.after)
  size = {axis: mesh.shape[axis] for axis in mesh.shape}
  for end, whole, cut in (
    ("trunk/blocks/mlp/up/kernel", (2, 32, 128), (2, 32 // size["fsdp"], 128 // size["tensor"])),
    ("trunk/blocks/mlp/down/kernel", (2, 128, 32), (2, 128 // size["tensor"], 32 // size["fsdp"])),
    (
      "trunk/blocks/attention/qkv/kernel",
      (2, 32, 96),
      (2, 32 // size["fsdp"], 96 // size["tensor"]),
    ),
  ):
    found = {name: leaf for name, leaf in state.items() if name.endswith(f"encoder/{end}")}
    assert len(found) == 4, found.keys()  # the parameter, two moments, the target
    for name, leaf in found.items():
      assert leaf.shape == whole, name
      assert {shard.data.shape for shard in leaf.addressable_shards} == {cut}, name


def test_the_state_given_is_used_up(sharded: Sharded) -> None:
  kept = [name for name, leaf in paths(sharded.given).items() if not leaf.is_deleted()]
  assert kept == []


def test_two_runs_are_the_same_bit_for_bit(
  small: Small, run: Run, three: tuple[TrainState, list[dict[str, Any]]]
) -> None:
  state = small.state
  for batch, expected in zip(small.batches, three[1], strict=True):
    state, metrics = run(state, batch)
    same(metrics, expected)
  same(state, three[0])


def test_a_step_says_its_losses_by_term_and_route_and_counts_itself(
  three: tuple[TrainState, list[dict[str, Any]]],
) -> None:
  state, metrics = three
  assert (state.step, state.skipped, state.streak) == (3, 0, 0)
  for found in metrics:
    assert all(value.shape == () and np.isfinite(value) for value in found.values())
    routes = [found[f"latent/route/{route}"] for route in ("s1->s2", "s2->s2")]
    assert found["loss/latent"] == pytest.approx(np.mean(routes), rel=1e-6)
    total = found["loss/latent"] + found["loss/vicreg"]
    assert found["loss/total"] == pytest.approx(total, rel=1e-6)
    assert found["norm/gradient"] > 0 and found["skipped"] == 0


def test_the_target_is_moved_by_the_average_alone(small: Small, run: Run) -> None:
  after, _ = run(small.state, small.batches[0])
  tau = small.config.target.momentum
  jax.tree.map(
    lambda old, new, target: np.testing.assert_allclose(
      target, tau * old + (1 - tau) * new, rtol=1e-6, atol=1e-8
    ),
    find_target(small.state.opt_state),
    after.params["encoder"],
    find_target(after.opt_state),
  )


def test_a_step_that_is_not_finite_changes_nothing_but_counters_and_the_next_goes_on(
  small: Small, run: Run
) -> None:
  good = small.batches[0]
  broken = copied(good)
  broken["values"]["s1"][2] = 3e38  # finite as stored; twice as much is not
  before, _ = run(small.state, good)
  state = before
  for number in (1, 2):
    state, metrics = run(state, broken)
    assert metrics["skipped"] == 1 and metrics["skipped/total"] == number
    assert not np.isfinite(metrics["loss/total"])
    assert (state.step, state.skipped, state.streak) == (1 + number, number, number)
    same((state.params, state.opt_state), (before.params, before.opt_state))
  state, metrics = run(state, good)
  assert metrics["skipped"] == 0 and np.isfinite(metrics["loss/total"])
  assert (state.step, state.skipped, state.streak) == (4, 2, 0)
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, before.params)
  assert np.mean(jax.tree.leaves(moved)) > 0.9
  # The schedules count updates that were made.
  assert find_counts(state.opt_state) == {2}


def find_counts(opt_state: Any) -> set[int]:
  return {int(leaf) for name, leaf in paths(opt_state).items() if name.endswith("count")}


def test_pixels_that_were_not_seen_do_not_break_a_step(small: Small, run: Run) -> None:
  batch = copied(small.batches[0])
  batch["values"]["s1"][2, :3] = np.nan
  batch["values"]["s1"][3] = np.nan
  batch["values"]["s2"][4] = 0
  state, metrics = run(small.state, batch)
  assert metrics["skipped"] == 0 and state.skipped == 0


@pytest.mark.parametrize("how", ["absent", "not a real row"])
def test_what_a_sample_lacks_has_no_influence(small: Small, run: Run, how: str) -> None:
  batch = copied(small.batches[0])
  if how == "absent":
    batch["present"]["s1"][[1, 5]] = False
    lacking = ["s1"]
  else:
    batch["valid"][[1, 5]] = False
    lacking = ["s1", "s2"]
  found = []
  for fill in (0, 77):
    filled = copied(batch)
    for key in lacking:
      filled["values"][key][[1, 5]] = fill
    found.append(run(small.state, filled))
  same(*found)
  assert found[0][1]["loss/latent"] != run(small.state, small.batches[0])[1]["loss/latent"]


def test_a_route_that_nobody_has_is_left_out(small: Small, run: Run) -> None:
  batch = copied(small.batches[0])
  batch["present"]["s1"][:] = False
  _, metrics = run(small.state, batch)
  assert metrics["latent/route/s1->s2"] == 0 and metrics["skipped"] == 0
  assert metrics["loss/latent"] == metrics["latent/route/s2->s2"] > 0


def test_what_a_step_draws_depends_on_its_number_and_on_nothing_else(
  small: Small, run: Run
) -> None:
  def metrics(step: int, **counters: int) -> Any:
    numbers: Any = {name: np.int32(value) for name, value in (counters | {"step": step}).items()}
    state = dataclasses.replace(small.state, **numbers)
    return run(state, small.batches[0])[1]

  fifth = metrics(5)
  same(metrics(5, skipped=3, streak=2), {**fifth, "skipped/total": np.float32(3)})
  assert metrics(6)["loss/latent"] != fifth["loss/latent"]


def test_steps_in_bfloat16_follow_those_in_float32(
  small: Small, three: tuple[TrainState, list[dict[str, Any]]]
) -> None:
  training = dataclasses.replace(small.config.training, precision="bfloat16")
  config = dataclasses.replace(small.config, training=training)
  experiment = open_experiment(config, jax.devices()[:1])
  step, state = compile_step(experiment, experiment.step), small.state
  for batch, expected in zip(small.batches, three[1], strict=True):
    state, metrics = step(*jax.device_put((state, batch), jax.devices()[0]))
    for name in ("loss/total", "norm/gradient"):
      assert float(metrics[name]) == pytest.approx(float(expected[name]), rel=0.02)
  assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


def test_gradients_of_parts_are_averaged(small: Small) -> None:
  """Nothing is drawn here: every token is context and target, and images are as they are.

  In the first part a sample lacks a sensor, so the mean of parts is not that of the whole batch.
  """
  model = small.experiment.model
  plan = plan_masks(model.grid, MaskConfig(mode="random", target=1.0, context=1.0, overlap=True))
  still = dataclasses.replace(
    small.config.augment, flips=False, quarter_turns=False, gain=0.0, offset=0.0
  )
  training = dataclasses.replace(small.config.training, accumulate=2)
  config = dataclasses.replace(small.config, augment=still, training=training)
  descend = optax.chain(optax.sgd(1.0), target_encoder(optax.constant_schedule(0.9)))
  step = train_step(model, table.build({"latent": {}}), descend, plan, config)
  batch = copied(small.batches[0])
  batch["present"]["s1"][2] = False
  params = small.state.params
  state = dataclasses.replace(small.state, opt_state=descend.init(params))
  after, metrics = compiled(step, state, batch)
  found = jax.tree.map(lambda a, b: a - b, params, after.params)

  def latent(params: Any, batch: Any) -> Any:
    pairs = {key: scale(each.sensor, batch["values"][key]) for key, each in model.inputs.items()}
    values, seen = ({key: pair[i] for key, pair in pairs.items()} for i in range(2))
    out = model.outputs(
      params, params["encoder"], values, seen, batch["present"], plan, jax.random.key(0)
    )
    losses = []
    for route, predicted in out.predicted.items():
      has = [out.present[sensor] for sensor in route.split("->")]
      weights = (has[0] & has[1]).astype(jnp.float32)
      squares = jnp.square(predicted - out.target[route]).mean(axis=(1, 2))
      losses.append((squares * weights).sum() / weights.sum())
    return sum(losses) / len(losses)

  halves = [jax.tree.map(lambda x, p=p: x[p::2], batch) for p in range(2)]
  lowered = jax.jit(jax.value_and_grad(latent)).lower(params, halves[0])
  of_half = compile_quickly(lowered)
  parts = [jax.device_get(of_half(params, half)) for half in halves]
  expected = jax.tree.map(lambda a, b: (a + b) / 2, parts[0], parts[1])
  assert abs(parts[0][0] - parts[1][0]) > 1e-3
  assert metrics["loss/latent"] == pytest.approx(float(expected[0]), rel=1e-5)
  largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected[1]))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * largest),
    found,
    expected[1],
  )


def test_every_product_of_a_float32_step_is_computed_in_float32_on_any_device(small: Small) -> None:
  layout = small.config.heads["layout"]
  heads = {"layout": layout, "one": dataclasses.replace(layout, pooling="attention")}
  model = dataclasses.replace(small.config.model, stem="bands")
  experiment = open_experiment(dataclasses.replace(small.config, heads=heads, model=model))
  step: Any = experiment.step
  lowered = step.lower(experiment.abstract_state(), abstract_batch(experiment))
  products = [line for line in lowered.as_text().splitlines() if "stablehlo.dot_general" in line]
  assert len(products) > 50
  assert [line for line in products if "HIGHEST, HIGHEST" not in line] == []
