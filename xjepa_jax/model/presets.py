"""Named transformer sizes: width, depth and heads of the literature's vision transformers."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Size:
  """Size of a transformer: token width, number of layers, attention heads."""

  width: int
  depth: int
  heads: int


# Dosovitskiy et al. 2021 (base, large, huge), Touvron et al. 2021 (tiny, small), Zhai et al. 2022
# (giant, with a plain MLP ratio of 4). "debug" is for tests; "none" means no network.
SIZES = {
  "none": Size(0, 0, 0),
  "debug": Size(32, 2, 2),
  "tiny": Size(192, 12, 3),
  "small": Size(384, 12, 6),
  "base": Size(768, 12, 12),
  "large": Size(1024, 24, 16),
  "huge": Size(1280, 32, 16),
  "giant": Size(1408, 40, 16),
}


def size_of(preset: str, width: int = 0, depth: int = 0, heads: int = 0) -> Size:
  """The size of a preset; each argument that is not 0 replaces the preset's number."""
  size = SIZES[preset]
  return Size(width or size.width, depth or size.depth, heads or size.heads)
