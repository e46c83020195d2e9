"""The model's outputs for a batch, which the terms of the objective take as input.

They are all that a term sees of the model, so a term needs to know neither encoders nor masks.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import jax
from flax.core import FrozenDict


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=[
    "predicted",
    "target",
    "tokens",
    "positions",
    "descriptors",
    "seen",
    "counted",
    "present",
  ],
  meta_fields=["grid", "prefixes"],
)
@dataclasses.dataclass(frozen=True)
class Outputs:
  """Embeddings of one global batch; a pytree.

  Attributes:
    predicted: route -> (B, M, D) tokens regressed by the predictor. A route "a->b" names the
      context sensor and the target sensor.
    target: route -> (B, M, D) tokens of the EMA encoder, layer-normalised without affine
      parameters, no gradient.
    tokens: sensor -> (B, n, D) context tokens of the online encoder; null where nothing was
      observed.
    positions: sensor -> (B, n) int32, places of these tokens in the row-major grid, each at most
      once per sample.
    descriptors: head -> sensor -> (B, K) raw projections, not normalised.
    seen: head -> sensor -> (B, P) bool, which cells of a descriptor have a context token; P is 1
      for a head without cells. Number j of cell c is number j * P + c of the descriptor.
    counted: route -> (B, M) bool, whether anything of the target token and of the context was
      observed.
    present: sensor -> (B,) bool, whether the sample has that sensor and is a real row.
    grid: sensor -> (rows, columns) of tokens. Static: part of the pytree's structure.
    prefixes: head -> (size, weight) of each prefix of its descriptor that is trained as a
      descriptor of its own; a head without prefixes may be absent. Static.
  """

  predicted: dict[str, jax.Array]
  target: dict[str, jax.Array]
  tokens: dict[str, jax.Array]
  positions: dict[str, jax.Array]
  descriptors: dict[str, dict[str, jax.Array]]
  seen: dict[str, dict[str, jax.Array]]
  counted: dict[str, jax.Array]
  present: dict[str, jax.Array]
  grid: Mapping[str, tuple[int, int]]
  prefixes: Mapping[str, tuple[tuple[int, float], ...]] = dataclasses.field(default_factory=dict)

  def __post_init__(self) -> None:
    # jit uses a pytree's structure as a cache key, so it must be hashable, which a dict is not.
    object.__setattr__(self, "grid", FrozenDict(self.grid))
    object.__setattr__(self, "prefixes", FrozenDict(self.prefixes))
