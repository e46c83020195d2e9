"""Predict, then pool: every place asked once, in order, and pooled as the encoder's own tokens."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiling import compiled
from tests.model import reference
from tests.model.test_xjepa import AVERAGE, MODEL, PARAMETERS, SEEN, VALUES
from xjepa_jax.model.cells import cell_weights
from xjepa_jax.model.predicted_descriptors import (
  predicted_descriptors,
  predicted_tokens,
  prediction_blocks,
  trained_share,
)
from xjepa_jax.model.xjepa import merge


@pytest.mark.parametrize("grid", [(4, 4), (8, 8), (6, 9), (5, 7), (1, 4)])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 1.0])
def test_blocks_are_rectangles_that_tile_the_grid(grid: tuple[int, int], share: float) -> None:
  blocks = prediction_blocks(grid, share)
  assert sorted(blocks.ravel()) == list(range(grid[0] * grid[1]))
  for block in blocks:
    rows, columns = np.unique(block // grid[1]), np.unique(block % grid[1])
    assert len(rows) * len(columns) == len(block)
    assert np.ptp(rows) == len(rows) - 1 and np.ptp(columns) == len(columns) - 1


def test_a_block_is_as_large_as_the_share_where_that_divides_the_grid() -> None:
  assert prediction_blocks((8, 8), 0.25).shape == (4, 16)
  assert prediction_blocks((8, 8), 1.0).shape == (1, 64)
  assert prediction_blocks((8, 8), 0.0).shape == (64, 1)
  np.testing.assert_array_equal(prediction_blocks((4, 4), 0.25)[1], [2, 3, 6, 7])


@pytest.mark.parametrize(
  ("mask", "share"), [({"mode": "random", "target": 0.5}, 8 / 16), ({"scale": (0.25, 0.3)}, 4 / 16)]
)
def test_it_is_asked_for_as_much_at_once_as_it_was_trained_on(
  mask: dict[str, Any], share: float
) -> None:
  config = dataclasses.replace(
    MODEL.config, mask=dataclasses.replace(MODEL.config.mask, blocks=1, context=0.4, **mask)
  )
  assert trained_share(dataclasses.replace(MODEL, config=config)) == share


def test_tokens_come_back_in_the_order_of_the_grid_whatever_the_blocks() -> None:
  """A predictor that answers with the context's token at the place asked for changes nothing."""

  def echo(tokens: Any, indices: Any, contexts: Any, blocks: Any) -> dict[str, Any]:
    assert contexts == ("c",)
    return {
      key: jnp.take_along_axis(tokens, places.reshape(1, len(places), -1, 1), axis=2) * factor
      for factor, (key, places) in enumerate(blocks.items(), 1)
    }

  tokens: Any = np.random.default_rng(0).standard_normal((3, 24, 5)).astype(np.float32)
  for share in (0.0, 0.2, 1.0):
    found = predicted_tokens(echo, tokens, "c", ("a", "b"), prediction_blocks((4, 6), share))
    np.testing.assert_array_equal(found["a"], tokens)
    np.testing.assert_array_equal(found["b"], 2 * tokens)


@pytest.fixture(scope="module")
def found() -> tuple[Any, Any]:
  """Predicted descriptors, and route -> (B, N, D) predicted block by block, by the modules."""

  def both(parameters: Any, average: Any) -> Any:
    encoder, predictor = (
      merge(MODEL.encoder, average),
      merge(MODEL.predictor, parameters["predictor"]),
    )
    tokens = encoder.tokens(VALUES, SEEN)
    together = predicted_descriptors(MODEL, average, parameters["predictor"], tokens)
    everywhere = jnp.broadcast_to(jnp.arange(16), (1, 3, 16))
    blocks = jnp.asarray(prediction_blocks((4, 4), trained_share(MODEL)))

    def alone(way: tuple[str, str]) -> Any:
      def predicted(block: Any) -> Any:
        asked = jnp.broadcast_to(block, (3, 1, len(block)))
        found = predictor(tokens[way[0]][None], everywhere, way[:1], {way[1]: asked})
        return found[way[1]][0]

      return jax.lax.map(predicted, blocks)

    apart = {f"{way[0]}->{way[1]}": alone(way) for way in MODEL.routes if way[0] != way[1]}
    return together, apart

  return compiled(both, PARAMETERS, AVERAGE)


def test_descriptors_are_pooled_of_what_the_predictor_says_block_by_block(found: Any) -> None:
  together, apart = found
  blocks = prediction_blocks((4, 4), trained_share(MODEL))
  heads = reference.wide(AVERAGE["heads"])
  cell = cell_weights((4, 4), 2).argmax(axis=1)
  for way in ("optical->radar", "radar->optical", "radar->thermal"):
    tokens = np.zeros((3, 16, 16))
    for block, part in zip(blocks, apart[way], strict=True):
      tokens[:, block] = part
    mean = reference.linear(heads["semantic"]["project"], tokens.mean(axis=1))
    np.testing.assert_allclose(together["semantic"][way], mean, atol=1e-4)
    cells = np.stack([tokens[:, cell == number].mean(axis=1) for number in range(4)], axis=1)
    grid = reference.linear(heads["layout"]["project"], cells)
    for number in range(4):
      np.testing.assert_allclose(together["layout"][way][:, number::4], grid[:, number], atol=1e-4)


def test_only_routes_across_sensors_that_were_trained_are_predicted(found: Any) -> None:
  ways = {"optical->radar", "radar->optical", "radar->thermal"}
  assert {head: set(each) for head, each in found[0].items()} == {"layout": ways, "semantic": ways}


def test_one_head_and_one_sensor_can_be_asked_for() -> None:
  shapes = jax.eval_shape(
    lambda p, a, x: predicted_descriptors(MODEL, a, p["predictor"], {"radar": x}, ("semantic",)),
    PARAMETERS,
    AVERAGE,
    jax.ShapeDtypeStruct((3, 16, 16), np.float32),
  )
  assert {way: each.shape for way, each in shapes["semantic"].items()} == {
    "radar->optical": (3, 6),
    "radar->thermal": (3, 6),
  }
