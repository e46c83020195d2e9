"""Sampling, on the device, of each sample's context tokens and target tokens.

  plan = plan_masks((14, 14), config.mask)  # on the host: every size is known
  masks = sample_masks(key, plan, 256, ("s1", "s2"), ("s1", "s2"))  # inside the jitted step

Multi-block sampling after I-JEPA (Assran et al., CVPR 2023, section 3), but every sample and block
is drawn independently, every place of the grid can be chosen, and there is no loop. All shapes
follow from the plan:

- A block's scale and aspect are drawn uniformly and independently, and its place uniformly among
  all where it fits. Blocks of a sensor may overlap one another.
- Every block yields the same number of tokens m, the number that the smallest scale requires:
  floor(scale[0] * N). A larger block yields a random m of its tokens. The few shapes that rounding
  to whole tokens makes smaller than m are never drawn, because they would lower m for all. Blocks
  without a common token leave at least a share of 1 - blocks * scale[0] to the context.
- Each sensor has blocks of its own, which are hidden from its own context: the route a -> b then
  asks for b both where a was visible and where it was not (DX-JEPA, CR-JEPA). A share of
  1 - visible of the blocks is drawn once for all sensors and hidden from every context.
- The context is n tokens chosen at random among all that are not hidden, separately per sensor.

Mode "random" is the same with a single block, the whole grid.

Tokens without observed pixels are neither context nor target, as far as the sizes allow: a block is
placed where it covers the most observed tokens (m suffice), and tokens are chosen among the
observed ones first. The caller has to hide those that are chosen only to fill the shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from xjepa_jax.model.mask_plan import MaskPlan


class Masks(NamedTuple):
  """The chosen tokens, as places in the row-major grid: row * columns + column.

  Attributes:
    context: sensor -> (B, n) int32, distinct and ascending along n.
    target: sensor -> (B, J, m) int32, distinct and ascending along m.
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
  """Draw context and targets of every sample; a pure function of its arguments, for use under jit.

  A sample's masks depend only on the key, the plan, its row in the batch and its observed tokens:
  not on the batch size, nor, with JAX's default generator, on the sharding.

  Args:
    key: random key for all draws.
    plan: from `plan_masks`.
    batch: B, the number of samples.
    contexts: sensors with a context, each drawn separately unless `plan.same_context`.
    targets: sensors with targets.
    seen: sensor -> (B, N) bool, the tokens with observed pixels; None means all.

  Returns:
    Places. No target of a sensor is in its own context unless `plan.overlap`, and no target drawn
    for all sensors is in any context. Tokens of a larger block that are not among its m targets may
    be in the context.
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
  """Target places of every sensor, and those that were drawn once for all sensors.

  Args:
    key: random key for all draws.
    plan: from `plan_masks`.
    seen: (S, N) bool, observed tokens of each target sensor.

  Returns:
    (S, J, m) int32, and (J, m) int32 with N instead of a place in blocks that each sensor drew for
    itself.
  """
  which_key, block_key, token_key = jax.random.split(key, 3)
  # One draw per sensor and a last one for all of them; whichever of these `visible` needs.
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
  """Context places of every sensor, (S, n) int32.

  Args:
    key: random key for all draws.
    plan: from `plan_masks`.
    hidden: (S, J, m) places excluded from the context; N stands for none.
    seen: (S, N) bool, observed tokens.
  """
  free = jnp.ones(seen.shape, bool)
  if not plan.overlap:
    rows = jnp.arange(len(seen))[:, None]
    # N, one past the last place, is dropped rather than clipped to the last token.
    free = free.at[rows, hidden.reshape(len(seen), -1)].set(False, mode="drop")
  if plan.same_context:  # all rows of `free` are equal in this case
    free, wanted = free[:1], seen.all(axis=0, keepdims=True)
    one = _choose(jax.random.uniform(key, free.shape), free, wanted, plan.context_tokens)
    return jnp.broadcast_to(one, (len(seen), plan.context_tokens))
  return _choose(jax.random.uniform(key, free.shape), free, seen, plan.context_tokens)


def _draw_targets(
  plan: MaskPlan, blocks: jax.Array, tokens: jax.Array, seen: jax.Array
) -> jax.Array:
  """(J, m) int32 target places: draw shapes, then positions, then m tokens of each block.

  Args:
    plan: from `plan_masks`.
    blocks: (2, J) uniform draws from [0, 1).
    tokens: (J, largest) uniform draws from [0, 1).
    seen: (N,) bool, observed tokens.
  """
  rows, columns = plan.grid
  # The draw is below 1, so `draw * count` rounds down to one of 0 .. count - 1, the last included.
  ticket = (blocks[0] * sum(plan.odds)).astype(int)
  number = (np.cumsum(plan.odds) <= ticket[:, None]).sum(axis=1)
  height, width = (side[:, None] for side in jnp.array(plan.shapes)[number].T)
  covered = _covered(seen.reshape(rows, columns), height, width)
  covered = jnp.minimum(covered, plan.block_tokens)  # -1 where a block does not fit
  best = covered == covered.max(axis=(1, 2), keepdims=True)
  top, left = (at[:, None] for at in jax.vmap(_place)(best, blocks[1]))
  within = jnp.arange(plan.largest)
  place = (top + within // width) * columns + left + within % width
  # A token number beyond the block may lie beyond the grid, where "clip" reads an arbitrary value;
  # `_choose` excludes it.
  wanted = seen.at[place].get(mode="clip")
  chosen = _choose(tokens, within < height * width, wanted, plan.block_tokens)
  return jnp.take_along_axis(place, chosen, axis=1).astype(jnp.int32)


def _covered(seen: jax.Array, height: jax.Array, width: jax.Array) -> jax.Array:
  """How many observed tokens a block covers, for every place of its upper left corner.

  Args:
    seen: (rows, columns) bool, observed tokens.
    height, width: (J, 1) sizes of the blocks.

  Returns:
    (J, rows, columns) float32, -1 where the block does not fit.
  """
  rows, columns = (jnp.arange(side) for side in seen.shape)
  # Which rows and columns a block covers, given its first one.
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
  """Row and column () of a uniformly drawn True of `allowed` (rows, columns); `draw` in [0, 1)."""
  numbers = _running(allowed.sum(axis=1))
  rank = (draw * numbers[-1]).astype(int)
  row = (numbers <= rank).sum()
  left = rank - (numbers[row] - allowed[row].sum())
  return row, (_running(allowed[row]) <= left).sum()


def _running(values: jax.Array) -> jax.Array:
  """Cumulative sums (n,) int32 of a few numbers, by comparison, which compiles quickly."""
  upto = np.tri(len(values), dtype=bool)
  return jnp.where(upto, values.astype(jnp.int32), 0).sum(axis=1)


def _choose(draws: jax.Array, allowed: jax.Array, wanted: jax.Array, count: int) -> jax.Array:
  """Choose `count` places along the last axis, ascending: uniformly, but `wanted` ones first.

  Args:
    draws: uniform draws from [0, 1).
    allowed: the places that may be chosen; there must be at least `count`.
    wanted: the places that take precedence over all other allowed ones.
    count: number of places.
  """
  # Scores in disjoint ranges: allowed and wanted [0, 1), only allowed [-1, 0), not allowed -2.
  scores = jnp.where(allowed, draws - jnp.where(wanted, 0.0, 1.0), -2.0)
  return jnp.sort(jax.lax.top_k(scores, count)[1].astype(jnp.int32), axis=-1)
