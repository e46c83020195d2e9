"""Predicted descriptors: predict another sensor's tokens from an image, then pool them.

The predictor was trained to predict the target encoder's tokens for another sensor's image, at any
place. Queried at every place of an image, it yields a whole grid of tokens, which a head turns into
a descriptor like the encoder's own tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from xjepa_jax.model.mask_plan import plan_masks
from xjepa_jax.model.xjepa import Parameters, XJepa, merge


def prediction_blocks(grid: tuple[int, int], share: float) -> np.ndarray:
  """All places of a grid as equal rectangular blocks.

  The queries of a block attend to each other, so a block should be as large as those that the
  predictor was trained on.

  Args:
    grid: rows and columns of tokens.
    share: the desired share of the places per block.

  Returns:
    (J, m) int32 row-major places, each exactly once. Of all blocks that tile the grid, those with
    the size nearest to the desired one, and among these the squarest.
  """
  rows, columns = grid
  wanted = math.log(max(share * rows * columns, 1))

  def distance(sides: tuple[int, int]) -> tuple[float, float]:
    return abs(math.log(sides[0] * sides[1]) - wanted), abs(math.log(sides[0] / sides[1]))

  height, width = min(((h, w) for h in _divisors(rows) for w in _divisors(columns)), key=distance)
  places = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
  tiles = places.reshape(rows // height, height, columns // width, width).swapaxes(1, 2)
  return tiles.reshape(-1, height * width)


def trained_share(model: XJepa) -> float:
  """The share of the grid's places that a target block had in training."""
  plan = plan_masks(model.grid, model.config.mask)
  return plan.block_tokens / plan.tokens


def predicted_tokens(
  predictor: Any, tokens: Array, context: str, targets: Sequence[str], blocks: np.ndarray
) -> dict[str, Array]:
  """Predict the tokens of other sensors at every place.

  Args:
    predictor: the module.
    tokens: (B, N, D) tokens of whole images of one sensor.
    context: that sensor.
    targets: sensors to predict.
    blocks: (J, m) places that contain each of the N exactly once.

  Returns:
    target -> (B, N, D) in row-major order.
  """
  batch, count = tokens.shape[:2]
  indices = jnp.broadcast_to(jnp.arange(count), (1, batch, count))
  asked = jnp.broadcast_to(jnp.asarray(blocks), (batch, *blocks.shape))
  order = np.argsort(blocks.ravel())
  found = predictor(tokens[None], indices, (context,), dict.fromkeys(targets, asked))
  return {key: each[0][:, order] for key, each in found.items()}


def predicted_descriptors(
  model: XJepa,
  encoder: Parameters,
  predictor: Parameters,
  tokens: Mapping[str, Array],
  heads: Sequence[str] | None = None,
) -> dict[str, dict[str, Array]]:
  """Predict each sensor's descriptors from the others' images, along the routes trained.

  The predictor regresses its targets, tokens normalised without scale. A head without a hidden
  layer is linear after pooling by mean or grid, so the missing scale, one factor and one summand,
  cancels when descriptors are centred and normalised.

  Args:
    model: the architecture.
    encoder: parameters, trained or averaged.
    predictor: parameters.
    tokens: sensor -> (B, N, D) tokens of whole images; every route from one of these sensors to
      another is predicted.
    heads: names of heads; None means all.

  Returns:
    head -> "a->b" -> (B, K) float32, not normalised.
  """
  if not model.routes:
    return {}
  module, asking = merge(model.encoder, encoder), merge(model.predictor, predictor)
  blocks = prediction_blocks(model.grid, trained_share(model))
  found: dict[str, dict[str, Array]] = {}
  for key in tokens:
    targets = [b for a, b in model.routes if a == key and b != key]
    if not targets:
      continue
    described = module.pooled(
      predicted_tokens(asking, tokens[key], key, targets, blocks), heads=heads
    )
    for head, by_target in described.items():
      ways = found.setdefault(head, {})
      ways.update({f"{key}->{target}": each for target, each in by_target.items()})
  return found


def _divisors(number: int) -> list[int]:
  return [each for each in range(1, number + 1) if number % each == 0]
