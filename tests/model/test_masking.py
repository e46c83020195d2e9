"""Masks: every invariant of a draw, its distribution, and settings that are refused."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy import stats

from tests.compiling import SIMPLE, known
from tests.model.test_mask_plan import planned
from xjepa_jax.model.mask_plan import MaskPlan
from xjepa_jax.model.masking import sample_masks

SAMPLES = 3000
# A two-sided normal deviate beyond 5.5 has a chance of 4e-8; a test looks at a thousand at most.
SIGMAS = 5.5

SENSORS = ("optical", "radar")
PLANS = {
  "4x4": planned((4, 4), visible=0.0, same_context=True),
  "hidden": planned((5, 5), visible=0.0),
  "half": planned((6, 5), visible=0.5),
  "4x7": planned((4, 7)),
  "6x6": planned((6, 6)),
  "28x28": planned((28, 28)),
  "random": planned((5, 4), mode="random", context=0.35, target=0.5),
  "overlap": planned((7, 4), context=0.8, overlap=True),
  "squares": planned((8, 8), blocks=2, scale=(0.25, 0.25), aspect=(1.0, 1.0)),
  "strip": planned((1, 9), blocks=2),
}

# Compiling is what takes the time here.
sample = jax.jit(sample_masks, static_argnums=(1, 2, 3, 4), compiler_options=known(SIMPLE))


@functools.cache
def drawn(name: str) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
  """Contexts and targets of both sensors."""
  masks = sample(jax.random.key(7), PLANS[name], SAMPLES, SENSORS, SENSORS)
  contexts, targets = (
    tuple(np.asarray(found[sensor]) for sensor in SENSORS)
    for found in (masks.context, masks.target)
  )
  return contexts, targets


def members(places: np.ndarray, tokens: int) -> np.ndarray:
  """(..., k) places as (..., N) bool."""
  inside = np.zeros((*places.shape[:-1], tokens), bool)
  np.put_along_axis(inside, places, True, axis=-1)
  return inside


def rises(places: np.ndarray) -> bool:
  return bool((np.diff(places, axis=-1) > 0).all())


@pytest.mark.parametrize("name", PLANS)
def test_sizes_are_the_plan_s_and_places_are_distinct_and_in_the_grid(name: str) -> None:
  plan = PLANS[name]
  contexts, targets = drawn(name)
  for places in (*contexts, *targets):
    assert places.dtype == np.int32
    assert places.min() >= 0 and places.max() < plan.tokens
    assert rises(places)
  for context, target in zip(contexts, targets, strict=True):
    assert context.shape == (SAMPLES, plan.context_tokens)
    assert target.shape == (SAMPLES, plan.blocks, plan.block_tokens)


@pytest.mark.parametrize("name", PLANS)
def test_no_target_of_a_sensor_is_in_its_own_context_unless_overlap_is_asked_for(name: str) -> None:
  plan = PLANS[name]
  for context, target in zip(*drawn(name), strict=True):
    targets = members(target.reshape(SAMPLES, -1), plan.tokens)
    assert (members(context, plan.tokens) & targets).any() == plan.overlap


@pytest.mark.parametrize("name", PLANS)
def test_a_share_of_the_blocks_is_alike_for_all_and_hidden_from_all(name: str) -> None:
  plan = PLANS[name]
  contexts, (one, other) = drawn(name)
  shared = (one == other).all(axis=-1)
  if plan.visible == 0:
    assert shared.all()
  if plan.visible == 0.5:
    # Blocks of one's own are seldom the same by chance.
    assert abs(shared.mean() - 0.5) < SIGMAS * 0.5 / math.sqrt(shared.size) + 1e-2
    assert 0 < (shared.any(axis=1) & ~shared.all(axis=1)).mean() < 1
  if plan.visible < 1:
    for context in contexts:
      seen = members(context, plan.tokens)
      hidden = members(one, plan.tokens) & shared[..., None]
      assert not (seen[:, None] & hidden).any() or plan.overlap


@pytest.mark.parametrize("name", ["4x7", "6x6", "half", "hidden"])
def test_a_sensor_shows_the_targets_of_another_as_often_as_any_token(name: str) -> None:
  """Of those that are neither hidden from it nor its own targets."""
  plan = PLANS[name]
  (context, _), (own, other) = drawn(name)
  seen = members(context, plan.tokens)
  hidden = members(own, plan.tokens).any(axis=1)
  asked = members(other, plan.tokens).any(axis=1) & ~hidden
  if plan.visible == 0:
    assert not asked.any()
    return
  # Given what is hidden, the context is a uniform draw of n of the others.
  odds = plan.context_tokens / (~hidden).sum(axis=1)
  expected, found = (odds * asked.sum(axis=1)).sum(), (seen & asked).sum()
  spread = math.sqrt((odds * (1 - odds) * asked.sum(axis=1)).sum())
  assert abs(found - expected) <= SIGMAS * spread + 1e-9
  assert found > 0


def test_a_sensor_that_is_asked_for_nothing_shows_what_it_likes() -> None:
  plan = planned((4, 4), context=1.0 - 4 * 2 / 16)
  masks = sample(jax.random.key(7), plan, 500, ("optical", "radar"), ("radar",))
  assert list(masks.target) == ["radar"]
  seen = members(np.asarray(masks.context["optical"]), 16).mean(axis=0)
  np.testing.assert_allclose(seen, 0.5, atol=SIGMAS * 0.5 / math.sqrt(500))


@pytest.mark.parametrize("name", PLANS)
def test_every_place_is_reached_as_target_and_as_context(name: str) -> None:
  for found in drawn(name):
    for places in found:
      assert set(places.ravel()) == set(range(PLANS[name].tokens))


@pytest.mark.parametrize("name", PLANS)
def test_tokens_of_a_block_lie_in_a_rectangle_of_an_allowed_shape(name: str) -> None:
  plan = PLANS[name]
  row, column = np.divmod(np.stack(drawn(name)[1]), plan.grid[1])
  height, width = np.ptp(row, axis=-1) + 1, np.ptp(column, axis=-1) + 1
  fits = [(height <= h) & (width <= w) for h, w in plan.shapes]
  assert np.any(fits, axis=0).all()


def test_samples_of_a_batch_and_blocks_of_a_sample_differ() -> None:
  contexts, targets = drawn("28x28")
  for places in (*contexts, *(target.reshape(SAMPLES, -1) for target in targets)):
    assert len(np.unique(places, axis=0)) == SAMPLES
  assert (targets[0][:, 0] != targets[0][:, 1]).any(axis=1).mean() > 0.99
  assert (targets[0] != targets[1]).any(axis=2).mean() > 0.99


def test_masks_depend_on_the_key_alone() -> None:
  contexts, targets = drawn("4x7")
  again = sample(jax.random.key(7), PLANS["4x7"], SAMPLES, SENSORS, SENSORS)
  other = sample(jax.random.key(8), PLANS["4x7"], SAMPLES, SENSORS, SENSORS)
  for sensor, context, target in zip(SENSORS, contexts, targets, strict=True):
    assert np.array_equal(again.target[sensor], target)
    assert np.array_equal(again.context[sensor], context)
    assert (np.asarray(other.target[sensor]) == target).all(axis=(1, 2)).mean() < 0.01


@pytest.mark.parametrize("name", ["4x7", "half", "hidden"])
def test_a_sample_s_masks_depend_neither_on_its_batch_nor_on_the_devices(name: str) -> None:
  contexts, targets = drawn(name)
  rows = NamedSharding(Mesh(np.array(jax.devices()), ("fsdp",)), PartitionSpec("fsdp"))
  sharded = jax.jit(
    sample_masks,
    static_argnums=(1, 2, 3, 4),
    out_shardings=rows,
    compiler_options=known(SIMPLE),
  )
  count = len(jax.devices())
  masks = sharded(jax.random.key(7), PLANS[name], count, SENSORS, SENSORS)
  for sensor, context, target in zip(SENSORS, contexts, targets, strict=True):
    assert masks.target[sensor].sharding.is_equivalent_to(rows, 3)
    assert np.array_equal(masks.target[sensor], target[:count])
    assert np.array_equal(masks.context[sensor], context[:count])


def test_sensors_share_a_context_only_if_asked_to() -> None:
  (one, other), _ = drawn("4x4")
  assert np.array_equal(one, other)
  (one, other), _ = drawn("4x7")
  assert (one != other).any(axis=1).mean() > 0.9


# The distribution, held against the definition played out token by token.


def simulate_shape(rng: np.random.Generator, plan: MaskPlan, least: int) -> tuple[int, int]:
  rows, columns = plan.grid
  while True:
    area, aspect = rng.uniform(0.15, 0.2) * rows * columns, rng.uniform(0.75, 1.5)
    height, width = math.sqrt(area * aspect), math.sqrt(area / aspect)
    if height > rows:
      height, width = rows, area / rows
    if width > columns:
      height, width = area / columns, columns
    if round(height) * round(width) >= least:
      return round(height), round(width)


def simulate(rng: np.random.Generator, plan: MaskPlan) -> tuple[np.ndarray, np.ndarray]:
  """(N,) bool of a context and (J, N) bool of the targets of one sample."""
  (rows, columns), least = plan.grid, math.floor(0.15 * plan.tokens)
  targets = np.zeros((4, plan.tokens), bool)
  for block in targets:
    height, width = simulate_shape(rng, plan, least)
    top, left = rng.integers(rows - height + 1), rng.integers(columns - width + 1)
    inside = [
      row * columns + column
      for row in range(top, top + height)
      for column in range(left, left + width)
    ]
    block[rng.choice(inside, least, replace=False)] = True
  context = np.zeros(plan.tokens, bool)
  free = np.flatnonzero(~targets.any(0))
  context[rng.choice(free, round(0.4 * plan.tokens), replace=False)] = True
  return context, targets


def deviates(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
  """Two-sample normal deviates of the means along the first axis."""
  variance = ours.var(0) / len(ours) + theirs.var(0) / len(theirs)
  return (ours.mean(0) - theirs.mean(0)) / np.sqrt(variance)


@pytest.mark.parametrize("name", ["4x7", "6x6"])
def test_targets_and_contexts_are_distributed_as_the_definition_played_out(name: str) -> None:
  plan = PLANS[name]
  rng = np.random.default_rng(0)
  simulated = [simulate(rng, plan) for _ in range(SAMPLES)]
  their_context = np.array([context for context, _ in simulated])
  their_blocks = np.array([targets for _, targets in simulated])
  for context, target in zip(*drawn(name), strict=True):
    assert np.abs(deviates(members(context, plan.tokens), their_context)).max() < SIGMAS
    check_blocks(members(target, plan.tokens), their_blocks)


def check_blocks(our_blocks: np.ndarray, their_blocks: np.ndarray) -> None:
  tokens = our_blocks.shape[-1]
  # Places, pairs of places within a block (its shape), and what blocks cover together.
  ours, theirs = our_blocks.reshape(-1, tokens), their_blocks.reshape(-1, tokens)
  assert np.abs(deviates(ours, theirs)).max() < SIGMAS
  pairs = np.triu_indices(tokens, 1)
  seen = ours[:, pairs[0]] & ours[:, pairs[1]], theirs[:, pairs[0]] & theirs[:, pairs[1]]
  possible = seen[0].any(0) | seen[1].any(0)
  assert np.abs(deviates(seen[0][:, possible], seen[1][:, possible])).max() < SIGMAS
  covered = our_blocks.any(1).sum(1), their_blocks.any(1).sum(1)
  assert abs(deviates(*covered)) < SIGMAS


def test_shapes_have_the_odds_of_an_independent_scale_and_aspect() -> None:
  plan = planned((64, 64))
  rng = np.random.default_rng(1)
  count = 20_000
  played = [simulate_shape(rng, plan, math.floor(0.15 * 64 * 64)) for _ in range(count)]
  odds = np.array(plan.odds) / sum(plan.odds)
  seen = np.array([played.count(shape) for shape in plan.shapes]) / count
  assert np.abs((seen - odds) / np.sqrt(odds * (1 - odds) / count)).max() < SIGMAS
  # I-JEPA's collator draws one number for both: its correlation is 1.
  height, width = np.array(plan.shapes).T
  covariance = np.cov(height * width, height / width, aweights=odds)
  assert abs(covariance[0, 1]) / math.sqrt(covariance[0, 0] * covariance[1, 1]) < 0.05


def test_a_block_of_one_shape_is_whole_and_uniform_over_all_its_places() -> None:
  row, column = np.divmod(drawn("squares")[1][0].reshape(-1, 16), 8)
  top, left = row.min(1), column.min(1)
  assert (row.max(1) - top == 3).all() and (column.max(1) - left == 3).all()
  counts = np.bincount(top * 5 + left, minlength=25)
  assert len(counts) == 25 and stats.chisquare(counts).pvalue > 1e-6
  # Two blocks of a sample are placed independently of one another.
  place = (top * 5 + left).reshape(SAMPLES, 2)
  table = np.bincount(place[:, 0] * 25 + place[:, 1], minlength=625).reshape(25, 25)
  assert stats.chi2_contingency(table).pvalue > 1e-6


def test_random_targets_and_contexts_are_uniform_and_contexts_independent() -> None:
  plan = PLANS["random"]
  contexts, targets = drawn("random")
  for places in (*contexts, *(target[:, 0] for target in targets)):
    inside, share = members(places, 20), places.shape[1] / 20
    spread = math.sqrt(share * (1 - share) / SAMPLES)
    assert np.abs((inside.mean(0) - share) / spread).max() < SIGMAS
    pairs = np.triu_indices(20, 1)
    both = places.shape[1] * (places.shape[1] - 1) / (20 * 19)
    seen = (inside[:, pairs[0]] & inside[:, pairs[1]]).mean(0)
    assert np.abs((seen - both) / math.sqrt(both * (1 - both) / SAMPLES)).max() < SIGMAS
  # Each avoids its own half of the grid, so two contexts have as many in common as any two draws.
  shared = (members(contexts[0], 20) & members(contexts[1], 20)).sum(1)
  law = stats.hypergeom(20, plan.context_tokens, plan.context_tokens)
  assert abs(shared.mean() - law.mean()) < SIGMAS * law.std() / math.sqrt(SAMPLES)


# What was not seen.


@functools.cache
def of_half_seen(name: str) -> tuple[Any, dict[str, np.ndarray]]:
  """Masks, and which tokens each sensor saw: none of the right half, and few of the last sample."""
  plan = PLANS[name]
  rows, columns = plan.grid
  seen = {sensor: np.ones((200, rows, columns), bool) for sensor in SENSORS}
  seen["radar"][:, :, columns // 2 :] = False
  seen["radar"][-1] = False
  seen["radar"][-1, 0, :2] = True
  seen["optical"][-1] = False
  flat = {sensor: each.reshape(200, -1) for sensor, each in seen.items()}
  found = sample(jax.random.key(3), plan, 200, SENSORS, SENSORS, flat)
  return jax.device_get(found), flat


@pytest.mark.parametrize("name", ["6x6", "28x28", "hidden"])
def test_what_was_not_seen_is_a_target_only_where_no_block_has_enough_of_the_seen(
  name: str,
) -> None:
  plan = PLANS[name]
  masks, seen = of_half_seen(name)
  rows, columns = plan.grid
  for sensor in SENSORS:
    # Blocks of all are for what all saw.
    wanted = seen["radar"] & seen["optical"] if plan.visible == 0 else seen[sensor]
    covered = np.take_along_axis(wanted, masks.target[sensor].reshape(200, -1), axis=1)
    covered = covered.reshape(200, plan.blocks, -1)
    # By brute force: the most that any block of any shape could cover, and the least of the best.
    for row in (0, 199):
      image = wanted[row].reshape(rows, columns)
      best = [
        max(
          image[top : top + h, left : left + w].sum()
          for top in range(rows - h + 1)
          for left in range(columns - w + 1)
        )
        for h, w in plan.shapes
      ]
      least, most = min(*best, plan.block_tokens), min(max(best), plan.block_tokens)
      counts = covered[row].sum(axis=-1)
      assert least <= counts.min() and counts.max() <= most, (sensor, row)


@pytest.mark.parametrize("name", ["4x4", "half", "6x6", "overlap", "random"])
def test_a_context_has_all_of_the_seen_that_it_may_before_it_has_any_other(name: str) -> None:
  plan = PLANS[name]
  masks, seen = of_half_seen(name)
  for sensor in SENSORS:
    allowed = np.ones((200, plan.tokens), bool)
    if not plan.overlap:
      allowed &= ~members(masks.target[sensor].reshape(200, -1), plan.tokens)
    wanted = seen["optical"] & seen["radar"] if plan.same_context else seen[sensor]
    chosen = members(masks.context[sensor], plan.tokens)
    assert (chosen.sum(axis=1) == plan.context_tokens).all()
    assert not (chosen & ~allowed).any()
    expected = np.minimum((allowed & wanted).sum(axis=1), plan.context_tokens)
    np.testing.assert_array_equal((chosen & wanted).sum(axis=1), expected)


def test_masks_of_images_that_were_seen_whole_are_those_of_none_told() -> None:
  plan = PLANS["half"]
  seen = dict.fromkeys(SENSORS, np.ones((50, plan.tokens), bool))
  told = sample(jax.random.key(3), plan, 50, SENSORS, SENSORS, seen)
  plain = sample(jax.random.key(3), plan, 50, SENSORS, SENSORS)
  assert all(jax.tree.leaves(jax.tree.map(np.array_equal, told, plain)))
