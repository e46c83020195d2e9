"""The static sizes of all masks, computed from the config's `mask` keys before any is drawn.

Everything that determines a shape is decided here on the host, so that the jitted step compiles
once and an impossible combination of settings is refused before training.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from xjepa_jax.config.schema import MaskConfig
from xjepa_jax.errors import ConfigError

MODES = ("multiblock", "random")
# Scales and aspects take the midpoints of this many equal parts of their ranges. That gives every
# shape exact odds in whole numbers, and no shape is rarer than one draw in 65,536.
_PARTS = 256


@dataclasses.dataclass(frozen=True)
class MaskPlan:
  """The static sizes of all masks. Hashable, so it can be a static argument.

  Attributes:
    mode: "multiblock" or "random".
    grid: rows and columns of tokens.
    blocks: J, target blocks per sample.
    block_tokens: m, tokens that each block yields.
    context_tokens: n, tokens of each sensor's context.
    shapes: (height, width) in tokens of every block that can be drawn; each has at least m tokens.
    odds: how often each shape is drawn, relative to the sum of all.
    visible: share of blocks that each sensor draws for itself.
    overlap: whether the context may include hidden tokens.
    same_context: whether all sensors of a sample have the same context places.
  """

  mode: str
  grid: tuple[int, int]
  blocks: int
  block_tokens: int
  context_tokens: int
  shapes: tuple[tuple[int, int], ...]
  odds: tuple[int, ...]
  visible: float = 1.0
  overlap: bool = False
  same_context: bool = False

  @property
  def tokens(self) -> int:
    """N, the number of tokens of the grid."""
    return self.grid[0] * self.grid[1]

  @property
  def largest(self) -> int:
    """Number of tokens of the largest block."""
    return max(height * width for height, width in self.shapes)


def plan_masks(grid: tuple[int, int], mask: MaskConfig) -> MaskPlan:
  """Compute every size from the settings.

  Args:
    grid: rows and columns of tokens.
    mask: settings; mode "multiblock" uses `blocks`, `scale` and `aspect`, mode "random" uses
      `target`. A block side that would be longer than the grid is cut, and the other side is
      lengthened to keep the scale. With `same_context` nothing may be hidden from one sensor alone.

  Raises:
    ConfigError: a value is out of range, or leaves no target or too small a context. The message
      names the key, the value and what is allowed.
  """
  rows, columns = grid
  if rows < 1 or columns < 1:
    raise ConfigError(
      f"a grid of {rows} x {columns} tokens has nothing to mask; it follows from the image's size "
      "and config key 'model.patch'."
    )
  tokens = rows * columns
  if mask.mode == "multiblock":
    blocks = mask.blocks
    if blocks < 1:
      _refuse("blocks", blocks, "give at least 1")
    scale, aspect = _range("scale", mask.scale, 1.0), _range("aspect", mask.aspect)
    shapes, odds, block_tokens = _shapes(rows, columns, scale, aspect)
  elif mask.mode == "random":
    blocks, shapes, odds = 1, ((rows, columns),), (1,)
    block_tokens = _count("target", mask.target, tokens)
  else:
    _refuse("mode", mask.mode, f"give one of {', '.join(MODES)}")
  if not 0 <= mask.visible <= 1:
    _refuse("visible", mask.visible, "give a share of the blocks, from 0 to 1")
  if mask.same_context and mask.visible and not mask.overlap:
    advice = "what one sensor hides others show; give mask.visible 0, or set mask.overlap"
    _refuse("same_context", mask.same_context, advice)
  left = tokens if mask.overlap else tokens - blocks * block_tokens
  targets = f"{blocks} x {block_tokens} targets can leave {max(left, 0)} of {tokens} tokens"
  if left < 1 and mask.mode == "random":
    _refuse("target", mask.target, f"{targets}; give at most {_share(tokens - 1, tokens)}")
  if left < 1 and block_tokens == tokens:
    _refuse("scale", mask.scale, f"{targets}; give a smaller first one, or set mask.overlap")
  if left < 1:
    most = (tokens - 1) // block_tokens
    _refuse("blocks", blocks, f"{targets}; give at most {most}, or lower mask.scale")
  context_tokens = _count("context", mask.context, tokens)
  if context_tokens > left:
    advice = f"give at most {_share(left, tokens)}, or set mask.overlap"
    _refuse("context", mask.context, f"asks for {context_tokens}, and {targets}; {advice}")
  return MaskPlan(
    mode=mask.mode,
    grid=(rows, columns),
    blocks=blocks,
    block_tokens=block_tokens,
    context_tokens=context_tokens,
    shapes=shapes,
    odds=odds,
    visible=mask.visible,
    overlap=mask.overlap,
    same_context=mask.same_context,
  )


def _shapes(
  rows: int, columns: int, scale: tuple[float, float], aspect: tuple[float, float]
) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...], int]:
  """The shapes of blocks, their odds, and the number of tokens that each has at least."""
  middles = (np.arange(_PARTS) + 0.5) / _PARTS
  area = np.maximum((scale[0] + (scale[1] - scale[0]) * middles) * rows * columns, 1)[:, None]
  ratio = aspect[0] + (aspect[1] - aspect[0]) * middles
  height = np.clip(np.sqrt(area * ratio), np.maximum(area / columns, 1), np.minimum(area, rows))
  width = area / height
  # One integer per shape, so that equal shapes can be counted.
  pairs = np.rint(height).astype(int) * (columns + 1) + np.rint(width).astype(int)
  distinct, odds = np.unique(pairs, return_counts=True)
  shapes = [divmod(int(pair), columns + 1) for pair in distinct]
  # The 1e-9 guards against rounding: 0.29 * 100 is 28.999... in floating point.
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
  """`count / tokens` with four digits, rounded down so that it can be used as a setting."""
  return math.floor(1e4 * count / tokens) / 1e4


def _refuse(key: str, value: Any, advice: str) -> NoReturn:
  raise ConfigError(f"config key 'mask.{key}' is {value!r}: {advice}.")
