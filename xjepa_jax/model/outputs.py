"""What the joint architecture hands to the terms of the objective."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import jax
from flax.core import FrozenDict


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=["predicted", "target", "tokens", "positions", "descriptors", "present"],
  meta_fields=["grid"],
)
@dataclasses.dataclass(frozen=True)
class Outputs:
  """Embeddings of one global batch; a pytree.

  Attributes:
    predicted: route -> (B, M, D) tokens regressed by the predictor. A route is "a->b": context
      sensor, target sensor.
    target: route -> (B, M, D) tokens of the EMA encoder, layer-normalised without affine
      parameters, no gradient.
    tokens: sensor -> (B, n, D) tokens of the online encoder's context.
    positions: sensor -> (B, n) int32, their places in the row-major grid of tokens, each at most
      once a sample.
    descriptors: head -> sensor -> (B, K) raw projections, not normalised.
    present: sensor -> (B,) bool, whether the sample has that sensor and is a real row.
    grid: sensor -> (rows, columns) of tokens. Static: a part of the pytree's structure.
  """

  predicted: dict[str, jax.Array]
  target: dict[str, jax.Array]
  tokens: dict[str, jax.Array]
  positions: dict[str, jax.Array]
  descriptors: dict[str, dict[str, jax.Array]]
  present: dict[str, jax.Array]
  grid: Mapping[str, tuple[int, int]]

  def __post_init__(self) -> None:
    # The structure of a pytree is a key of jit's cache, and a dict has no hash.
    object.__setattr__(self, "grid", FrozenDict(self.grid))
