"""Sizes of the train step that is timed, alike for all competitors; needs no JAX and no PyTorch."""

from __future__ import annotations

import dataclasses

from benchmarks.peers.pair_format import SENSORS


@dataclasses.dataclass(frozen=True)
class StepShape:
  """One size.

  Attributes:
    width, depth, heads: of the encoder, whose MLPs are four times as wide.
    pixels, patch: of an image and of a patch along a side.
    batch: pairs of a step.
    predictor_width, predictor_depth: of the predictor, which has the encoder's heads.
    blocks, block_tokens: target blocks of an image and tokens of each.
    context_tokens: that the context encoder sees of each sensor's image.
  """

  width: int
  depth: int
  heads: int
  pixels: int
  patch: int
  batch: int
  predictor_width: int
  predictor_depth: int
  block_tokens: int
  context_tokens: int
  blocks: int = 4

  @property
  def side(self) -> int:
    """Tokens along a side."""
    return self.pixels // self.patch

  @property
  def tokens(self) -> int:
    """Of an image."""
    return self.side**2


# The predictor is 384 wide (I-JEPA, Assran et al., section 4), but not wider than the encoder.
# Blocks are 15 % of the tokens; the context is 40 %, about what four blocks leave.
SHAPES = {
  "debug": StepShape(32, 2, 2, 120, 10, 4, 16, 2, block_tokens=21, context_tokens=58),
  "tiny": StepShape(192, 12, 3, 120, 10, 32, 192, 6, block_tokens=21, context_tokens=58),
  "small": StepShape(384, 12, 6, 224, 16, 8, 384, 6, block_tokens=29, context_tokens=78),
}
SCALE = (0.15, 0.2)  # share of the tokens in a block
CONTEXT = 0.4  # share of the tokens in the context
LEARNING_RATE, BETAS, WEIGHT_DECAY, MOMENTUM = 1e-4, (0.9, 0.95), 0.04, 0.996
ROUTES = tuple((a, b) for a in SENSORS for b in SENSORS)


def shape_of(name: str, **changes: int) -> StepShape:
  """A size by name, with numbers of its own, such as `depth=24`."""
  return dataclasses.replace(SHAPES[name], **changes)


def pairs_path(directory: str) -> str:
  """Of the data set that ours reads its description from."""
  return f"{directory}/pairs"


def values_path(directory: str, key: str) -> str:
  """Of a sensor's stored values, (B, H, W, C)."""
  return f"{directory}/values-{key}.npy"


def statistics_path(directory: str, key: str) -> str:
  """Of the mean and the deviation of a sensor's bands, (2, C)."""
  return f"{directory}/statistics-{key}.npy"


def context_path(directory: str, key: str) -> str:
  """Of the places of a sensor's context tokens, (steps, B, n)."""
  return f"{directory}/context-{key}.npy"


def blocks_path(directory: str, key: str) -> str:
  """Of the places of a sensor's target tokens, (steps, B, J, m)."""
  return f"{directory}/blocks-{key}.npy"
