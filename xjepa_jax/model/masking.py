"""Which tokens of a sample are context and which are targets, drawn on the device.

  plan = plan_masks((14, 14), blocks=4, context=0.4)  # on the host: every size is known
  masks = sample_masks(key, plan, batch=256, contexts=2)  # inside the jitted step

Multi-block sampling after I-JEPA (Assran et al., CVPR 2023, section 3), with each sample and
block on its own, every place of the grid reached, and no loop. All shapes follow from the plan:

- A block's scale and aspect are drawn uniformly and independently, its place uniformly among all
  where it fits. Blocks of a sample may overlap one another.
- Every block yields the same number of tokens m, which is what the smallest scale asks for:
  floor(scale[0] * N). A larger block yields m of its tokens at random. The few shapes that
  rounding to whole tokens makes smaller than m are never drawn, because they would lower m for
  all. Blocks that share no token leave at least a share of 1 - blocks * scale[0] to the context.
- The context is n tokens at random among all that are not targets, for each sensor anew.

Mode "random" is the same with one block, which is the whole grid.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from xjepa_jax.errors import ConfigError

MODES = ("multiblock", "random")
# Scales and aspects are the middles of this many equal parts of their range: exact odds of every
# shape, in whole numbers, and none so rare that it is drawn less than once in 65,536.
_PARTS = 256


@dataclasses.dataclass(frozen=True)
class MaskPlan:
  """What is known of masks before any is drawn. Hashable, so it can be a static argument.

  Attributes:
    mode: "multiblock" or "random".
    grid: rows and columns of tokens.
    blocks: J, target blocks a sample.
    block_tokens: m, tokens that each block yields.
    context_tokens: n, tokens that each sensor's context has.
    shapes: (height, width) in tokens of every block that can be drawn; each has m or more.
    odds: how often each shape is drawn, relative to the sum of all.
    overlap: whether the context may include targets.
    same_context: whether all sensors of a sample show the same tokens.
  """

  mode: str
  grid: tuple[int, int]
  blocks: int
  block_tokens: int
  context_tokens: int
  shapes: tuple[tuple[int, int], ...]
  odds: tuple[int, ...]
  overlap: bool = False
  same_context: bool = False

  @property
  def tokens(self) -> int:
    """N, tokens of the grid."""
    return self.grid[0] * self.grid[1]


class Masks(NamedTuple):
  """Chosen tokens, as places in the row-major grid: row * columns + column.

  Attributes:
    context: an array (B, n) int32 a sensor, distinct and rising along n.
    target: (B, J, m) int32, the same for all sensors; distinct and rising along m.
  """

  context: tuple[jax.Array, ...]
  target: jax.Array


def plan_masks(
  grid: tuple[int, int],
  mode: str = "multiblock",
  blocks: int = 4,
  scale: Sequence[float] = (0.15, 0.2),
  aspect: Sequence[float] = (0.75, 1.5),
  context: float = 0.4,
  overlap: bool = False,
  target: float = 0.5,
  same_context: bool = False,
) -> MaskPlan:
  """Works out every size from the settings, the keys of `mask` in a config.

  Args:
    grid: rows and columns of tokens.
    mode: "multiblock", or "random" for single tokens anywhere.
    blocks: target blocks a sample. This and the next two are for "multiblock".
    scale: smallest and largest share of the grid's tokens in a block.
    aspect: smallest and largest height over width, both in tokens. A side that would be longer
      than the grid is cut, and the other lengthened to keep the scale.
    context: share of the tokens in a sensor's context.
    overlap: whether the context may include targets.
    target: share of the tokens that are targets, for "random".
    same_context: whether all sensors of a sample show the same tokens.

  Raises:
    ConfigError: a value is out of range, or leaves no target or too little for the context;
      names the key, the value and what is allowed.
  """
  rows, columns = grid
  if rows < 1 or columns < 1:
    raise ConfigError(
      f"a grid of {rows} x {columns} tokens has nothing to mask; it follows from the image's size "
      "and config key 'model.patch'."
    )
  tokens = rows * columns
  if mode == "multiblock":
    if blocks < 1:
      _refuse("blocks", blocks, "give at least 1")
    low, high = _range("scale", scale, 1.0)
    shapes, odds, block_tokens = _shapes(rows, columns, (low, high), _range("aspect", aspect))
  elif mode == "random":
    blocks, shapes, odds = 1, ((rows, columns),), (1,)
    block_tokens = _count("target", target, tokens)
  else:
    _refuse("mode", mode, f"give one of {', '.join(MODES)}")
  left = tokens if overlap else tokens - blocks * block_tokens
  targets = f"{blocks} x {block_tokens} targets can leave {max(left, 0)} of {tokens} tokens"
  if left < 1 and mode == "random":
    _refuse("target", target, f"{targets}; give at most {_share(tokens - 1, tokens)}")
  if left < 1 and block_tokens == tokens:
    _refuse("scale", scale, f"{targets}; give a smaller first one, or set mask.overlap")
  if left < 1:
    most = (tokens - 1) // block_tokens
    _refuse("blocks", blocks, f"{targets}; give at most {most}, or lower mask.scale")
  context_tokens = _count("context", context, tokens)
  if context_tokens > left:
    advice = f"give at most {_share(left, tokens)}, or set mask.overlap"
    _refuse("context", context, f"asks for {context_tokens}, and {targets}; {advice}")
  return MaskPlan(
    mode=mode,
    grid=(rows, columns),
    blocks=blocks,
    block_tokens=block_tokens,
    context_tokens=context_tokens,
    shapes=shapes,
    odds=odds,
    overlap=overlap,
    same_context=same_context,
  )


def sample_masks(key: jax.Array, plan: MaskPlan, batch: int, contexts: int = 1) -> Masks:
  """Draws context and targets of every sample; a pure function of the key, for use under jit.

  A sample's masks depend on the key, the plan and its row in the batch only: not on the batch's
  size, nor, with JAX's default generator, on how it is sharded.

  Args:
    key: for all that is drawn.
    plan: from `plan_masks`.
    batch: B, samples.
    contexts: sensors, each with a context of its own unless `plan.same_context`.

  Returns:
    `contexts` arrays (B, n) and one (B, J, m), int32. No target is in a context unless
    `plan.overlap`; tokens of a larger block that are not among its m targets may be.
  """
  keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(batch))
  return jax.vmap(lambda key: _sample(key, plan, contexts))(keys)


def _sample(key: jax.Array, plan: MaskPlan, contexts: int) -> Masks:
  number_key, token_key, context_key = jax.random.split(key, 3)
  target = _draw_targets(number_key, token_key, plan)
  free = jnp.ones(plan.tokens, bool)
  if not plan.overlap:
    free = free.at[target.ravel()].set(False)
  drawn = 1 if plan.same_context else contexts
  chosen = _choose(context_key, jnp.broadcast_to(free, (drawn, plan.tokens)), plan.context_tokens)
  return Masks(tuple(chosen[i % drawn] for i in range(contexts)), target)


def _draw_targets(number_key: jax.Array, token_key: jax.Array, plan: MaskPlan) -> jax.Array:
  """(J, m) int32: shapes, then places, then which m tokens of each block."""
  rows, columns = plan.grid
  # In [0, 1), so that `draw * count` rounds down to one of 0 .. count - 1, the last included.
  draw = jax.random.uniform(number_key, (3, plan.blocks))
  ticket = (draw[0] * sum(plan.odds)).astype(int)
  number = jnp.searchsorted(jnp.cumsum(jnp.array(plan.odds)), ticket, side="right")
  height, width = jnp.array(plan.shapes)[number].T
  top = (draw[1] * (rows - height + 1)).astype(int)
  left = (draw[2] * (columns - width + 1)).astype(int)
  largest = max(height * width for height, width in plan.shapes)
  inside = jnp.arange(largest) < (height * width)[:, None]
  within = _choose(token_key, inside, plan.block_tokens)
  row = top[:, None] + within // width[:, None]
  column = left[:, None] + within % width[:, None]
  return (row * columns + column).astype(jnp.int32)


def _choose(key: jax.Array, allowed: jax.Array, count: int) -> jax.Array:
  """`count` places along the last axis, uniformly among allowed ones (enough must be), rising."""
  scores = jnp.where(allowed, jax.random.uniform(key, allowed.shape), -1.0)
  return jnp.sort(jax.lax.top_k(scores, count)[1].astype(jnp.int32), axis=-1)


def _shapes(
  rows: int, columns: int, scale: tuple[float, float], aspect: tuple[float, float]
) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...], int]:
  """Shapes of blocks, their odds, and the tokens that each has at least."""
  middles = (np.arange(_PARTS) + 0.5) / _PARTS
  area = np.maximum((scale[0] + (scale[1] - scale[0]) * middles) * rows * columns, 1)[:, None]
  ratio = aspect[0] + (aspect[1] - aspect[0]) * middles
  height = np.clip(np.sqrt(area * ratio), np.maximum(area / columns, 1), np.minimum(area, rows))
  width = area / height
  pairs = np.rint(height).astype(int) * (columns + 1) + np.rint(width).astype(int)
  distinct, odds = np.unique(pairs, return_counts=True)
  shapes = [divmod(int(pair), columns + 1) for pair in distinct]
  # The small number keeps 0.29 * 100 at 29.
  asked = max(math.floor(scale[0] * rows * columns + 1e-9), 1)
  least = min(asked, max(height * width for height, width in shapes))
  kept = [i for i, (height, width) in enumerate(shapes) if height * width >= least]
  return tuple(shapes[i] for i in kept), tuple(int(odds[i]) for i in kept), least


def _count(key: str, share: float, tokens: int) -> int:
  if not 0 < share <= 1:
    _refuse(key, share, "give a share of the tokens, above 0 and at most 1")
  count = round(share * tokens)
  if count < 1:
    _refuse(key, share, f"not one token of {tokens}; give at least {math.ceil(1e4 / tokens) / 1e4}")
  return count


def _range(key: str, values: Sequence[float], most: float = math.inf) -> tuple[float, float]:
  if len(values) != 2 or not 0 < values[0] <= values[1] <= most or math.isinf(values[1]):
    limit = "" if math.isinf(most) else f" and at most {most:g}"
    _refuse(key, values, f"give two finite numbers above 0{limit}, the smaller first")
  return values[0], values[1]


def _share(count: int, tokens: int) -> float:
  """`count` of `tokens` in four digits, rounded down so that it can be given as a setting."""
  return math.floor(1e4 * count / tokens) / 1e4


def _refuse(key: str, value: Any, advice: str) -> NoReturn:
  raise ConfigError(f"config key 'mask.{key}' is {value!r}: {advice}.")
