"""Which tokens of a sample are context and which are targets, drawn on the device.

  plan = plan_masks((14, 14), config.mask)  # on the host: every size is known
  masks = sample_masks(key, plan, 256, ("s1", "s2"), ("s1", "s2"))  # inside the jitted step

Multi-block sampling after I-JEPA (Assran et al., CVPR 2023, section 3), with each sample and
block on its own, every place of the grid reached, and no loop. All shapes follow from the plan:

- A block's scale and aspect are drawn uniformly and independently, its place uniformly among all
  where it fits. Blocks of a sample may overlap one another.
- Every block yields the same number of tokens m, which is what the smallest scale asks for:
  floor(scale[0] * N). A larger block yields m of its tokens at random. The few shapes that
  rounding to whole tokens makes smaller than m are never drawn, because they would lower m for
  all. Blocks that share no token leave at least a share of 1 - blocks * scale[0] to the context.
- Each sensor has blocks of its own, which are hidden from its own context: the route a -> b asks
  for what b shows where a was seen as well as where it was not (DX-JEPA, CR-JEPA). Of a share of
  1 - visible of the blocks there is one draw for all sensors, hidden from every context.
- The context is n tokens at random among all that are not hidden, for each sensor anew.

Mode "random" is the same with one block, which is the whole grid.

Where a sensor saw nothing there is neither context nor target, as far as sizes allow: a block goes
where it covers the most seen tokens (m are enough), and both prefer these. What still has to be
taken to fill the shapes is for the caller to hide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from xjepa_jax.model.mask_plan import MaskPlan


class Masks(NamedTuple):
  """Chosen tokens, as places in the row-major grid: row * columns + column.

  Attributes:
    context: sensor -> (B, n) int32, distinct and rising along n.
    target: sensor -> (B, J, m) int32, distinct and rising along m.
  """

  context: dict[str, jax.Array]
  target: dict[str, jax.Array]


def sample_masks(
  key: jax.Array,
  plan: MaskPlan,
  batch: int,
  contexts: Sequence[str],
  targets: Sequence[str],
  seen: Mapping[str, jax.Array] | None = None,
) -> Masks:
  """Draws context and targets of every sample; a pure function of its arguments, for use under jit.

  A sample's masks depend on the key, the plan, its row in the batch and what was seen of it only:
  not on the batch's size, nor, with JAX's default generator, on how it is sharded.

  Args:
    key: for all that is drawn.
    plan: from `plan_masks`.
    batch: B, samples.
    contexts: sensors that are seen, each with a context of its own unless `plan.same_context`.
    targets: sensors that are asked for.
    seen: sensor -> (B, N) bool, the tokens of which it saw anything; None is all.

  Returns:
    Places. No target of a sensor is in its own context unless `plan.overlap`, and none that is
    drawn for all sensors in anybody's; tokens of a larger block that are not among its m targets
    may be.
  """
  keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(batch))

  def stacked(sensors: Sequence[str]) -> jax.Array:
    if seen is None:
      return jnp.ones((batch, len(sensors), plan.tokens), bool)
    return jnp.stack([seen[name] for name in sensors], axis=1)

  def one(key: jax.Array, of_contexts: jax.Array, of_targets: jax.Array) -> Masks:
    context_key, target_key = jax.random.split(key)
    drawn, shared = _draw_all_targets(target_key, plan, of_targets)
    target = dict(zip(targets, drawn, strict=True))
    hidden = jnp.stack([target.get(name, shared) for name in contexts])
    context = _draw_contexts(context_key, plan, hidden, of_contexts)
    return Masks(dict(zip(contexts, context, strict=True)), target)

  return jax.vmap(one)(keys, stacked(contexts), stacked(targets))


def _draw_all_targets(
  key: jax.Array, plan: MaskPlan, seen: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Places of every target sensor, and those that were drawn for all of them.

  Args:
    key: for all that is drawn.
    plan: from `plan_masks`.
    seen: (S, N) bool, of each target sensor.

  Returns:
    (S, J, m) int32, and (J, m) int32, N instead of a place in blocks that are sensors' own.
  """
  which_key, block_key, token_key = jax.random.split(key, 3)
  # A draw for each sensor, and a last one for all: as many as are needed.
  by_all = seen.all(axis=0, keepdims=True)
  of_draws = seen if plan.visible == 1 else jnp.concatenate([seen, by_all])
  of_draws = of_draws if plan.visible else by_all
  blocks = jax.random.uniform(block_key, (len(of_draws), 2, plan.blocks))
  tokens = jax.random.uniform(token_key, (len(of_draws), plan.blocks, plan.largest))
  drawn = jax.vmap(lambda *draws: _draw_targets(plan, *draws))(blocks, tokens, of_draws)
  if plan.visible == 1:
    return drawn, jnp.full(drawn.shape[1:], plan.tokens, jnp.int32)
  if plan.visible == 0:
    return jnp.broadcast_to(drawn, (len(seen), *drawn.shape[1:])), drawn[0]
  own = jax.random.uniform(which_key, (plan.blocks, 1)) < plan.visible
  return jnp.where(own, drawn[:-1], drawn[-1]), jnp.where(own, plan.tokens, drawn[-1])


def _draw_contexts(key: jax.Array, plan: MaskPlan, hidden: jax.Array, seen: jax.Array) -> jax.Array:
  """(S, n) int32 places of every context.

  Args:
    key: for all that is drawn.
    plan: from `plan_masks`.
    hidden: (S, J, m) places that a context may not have; N is none.
    seen: (S, N) bool.
  """
  free = jnp.ones(seen.shape, bool)
  if not plan.overlap:
    rows = jnp.arange(len(seen))[:, None]
    free = free.at[rows, hidden.reshape(len(seen), -1)].set(False, mode="drop")
  if plan.same_context:  # what is free is alike then
    free, wanted = free[:1], seen.all(axis=0, keepdims=True)
    one = _choose(jax.random.uniform(key, free.shape), free, wanted, plan.context_tokens)
    return jnp.broadcast_to(one, (len(seen), plan.context_tokens))
  return _choose(jax.random.uniform(key, free.shape), free, seen, plan.context_tokens)


def _draw_targets(
  plan: MaskPlan, blocks: jax.Array, tokens: jax.Array, seen: jax.Array
) -> jax.Array:
  """(J, m) int32: shapes, then places, then which m tokens of each block.

  Args:
    plan: from `plan_masks`.
    blocks: (2, J) uniform draws from [0, 1).
    tokens: (J, largest) the same.
    seen: (N,) bool.
  """
  rows, columns = plan.grid
  # Below 1, so that `draw * count` rounds down to one of 0 .. count - 1, the last included.
  ticket = (blocks[0] * sum(plan.odds)).astype(int)
  number = (np.cumsum(plan.odds) <= ticket[:, None]).sum(axis=1)
  height, width = (side[:, None] for side in jnp.array(plan.shapes)[number].T)
  covered = _covered(seen.reshape(rows, columns), height, width)
  covered = jnp.minimum(covered, plan.block_tokens)  # -1 where a block does not fit
  best = covered == covered.max(axis=(1, 2), keepdims=True)
  top, left = (at[:, None] for at in jax.vmap(_place)(best, blocks[1]))
  within = jnp.arange(plan.largest)
  place = (top + within // width) * columns + left + within % width
  wanted = seen.at[place].get(mode="clip")  # beyond the grid only where it is not inside
  chosen = _choose(tokens, within < height * width, wanted, plan.block_tokens)
  return jnp.take_along_axis(place, chosen, axis=1).astype(jnp.int32)


def _covered(seen: jax.Array, height: jax.Array, width: jax.Array) -> jax.Array:
  """How many seen tokens a block has whose upper left corner is at each place.

  Args:
    seen: (rows, columns) bool.
    height, width: (J, 1) of the blocks.

  Returns:
    (J, rows, columns) float32, -1 where the block does not fit.
  """
  rows, columns = (jnp.arange(side) for side in seen.shape)
  # Which rows and columns a block has, by its first one.
  down, right = (
    (side >= side[:, None]) & (side < side[:, None] + length[..., None])
    for side, length in ((rows, height), (columns, width))
  )
  count = jnp.einsum(
    "jtr,rc,jlc->jtl", *(x.astype(jnp.float32) for x in (down, seen, right)), precision="highest"
  )
  fits = (rows[:, None] <= len(rows) - height[..., None]) & (
    columns <= len(columns) - width[..., None]
  )
  return jnp.where(fits, count, -1.0)


def _place(allowed: jax.Array, draw: jax.Array) -> tuple[jax.Array, jax.Array]:
  """() row and column of one of the places allowed, (rows, columns) bool; draw () is in [0, 1)."""
  numbers = _running(allowed.sum(axis=1))
  rank = (draw * numbers[-1]).astype(int)
  row = (numbers <= rank).sum()
  left = rank - (numbers[row] - allowed[row].sum())
  return row, (_running(allowed[row]) <= left).sum()


def _running(values: jax.Array) -> jax.Array:
  """Running sums (n,) int32 of a few numbers: by comparison, which compiles in no time."""
  upto = np.tri(len(values), dtype=bool)
  return jnp.where(upto, values.astype(jnp.int32), 0).sum(axis=1)


def _choose(draws: jax.Array, allowed: jax.Array, wanted: jax.Array, count: int) -> jax.Array:
  """`count` places along the last axis, rising: uniformly among allowed ones, wanted ones first.

  Args:
    draws: uniform, from [0, 1).
    allowed: which places may be chosen; enough must be.
    wanted: which are chosen before all others.
    count: of places.
  """
  scores = jnp.where(allowed, draws - jnp.where(wanted, 0.0, 1.0), -2.0)
  return jnp.sort(jax.lax.top_k(scores, count)[1].astype(jnp.int32), axis=-1)
