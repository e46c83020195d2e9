"""Cells of a grid against brute force: areas counted pixel by pixel, means token by token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.compiling import compiled
from xjepa_jax.model.cells import cell_weights, cells_seen, pool_cells

GRIDS = [(4, 4), (5, 7), (8, 2), (3, 3), (1, 6), (12, 12)]
RNG = np.random.default_rng(0)
GRID = (4, 6)
TOKENS = RNG.standard_normal((3, 24, 8)).astype(np.float32)
INDICES: Any = np.stack([RNG.permutation(24)[:9] for _ in range(3)]).astype(np.int32)
SOME = np.take_along_axis(TOKENS, INDICES[:, :, None], axis=1)


def counted(grid: tuple[int, int], cells: int) -> np.ndarray:
  """Share of each token in each cell, by painting both on a fine raster and counting pixels."""
  height, width = grid[0] * cells, grid[1] * cells
  row, column = np.indices((height, width))
  token = row // cells * grid[1] + column // cells
  cell = row // grid[0] * cells + column // grid[1]
  found = np.zeros((grid[0] * grid[1], cells**2))
  np.add.at(found, (token.ravel(), cell.ravel()), 1)
  return found / cells**2


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("cells", [1, 2, 3, 8])
def test_a_weight_is_the_share_of_the_token_s_area_in_the_cell(
  grid: tuple[int, int], cells: int
) -> None:
  found = cell_weights(grid, cells)
  np.testing.assert_allclose(found, counted(grid, cells), atol=1e-7)
  np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
  # Every cell is as large as every other, in tokens.
  np.testing.assert_allclose(found.sum(axis=0), len(found) / cells**2, rtol=1e-5)


@pytest.mark.parametrize(("side", "cells"), [(12, 4), (16, 8), (8, 8), (6, 1)])
def test_a_token_lies_in_one_cell_where_cells_divide_the_tokens(side: int, cells: int) -> None:
  found = cell_weights((side, side), cells)
  row, column = np.divmod(np.arange(side * side), side)
  expected = np.zeros((side * side, cells**2), np.float32)
  expected[np.arange(side * side), row // (side // cells) * cells + column // (side // cells)] = 1
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("cells", [2, 3, 8])
@pytest.mark.parametrize("indices", [None, INDICES])
def test_a_cell_is_the_weighted_mean_of_its_tokens_and_an_empty_one_the_mean_of_all(
  indices: Any, cells: int
) -> None:
  tokens = TOKENS if indices is None else SOME
  found = compiled(lambda x: pool_cells(x, cell_weights(GRID, cells), indices), tokens)
  area = counted(GRID, cells)
  empty = 0
  for sample in range(3):
    places = np.arange(24) if indices is None else indices[sample]
    for number in range(cells**2):
      weights = area[places, number]
      empty += not weights.any()
      weights = weights if weights.any() else np.ones(len(places))
      expected = np.average(tokens[sample].astype(np.float64), axis=0, weights=weights)
      np.testing.assert_allclose(found[sample, number], expected, atol=1e-5)
  assert (empty > 0) == (indices is not None and cells > 2)


def test_a_field_that_rises_evenly_is_pooled_without_jumps() -> None:
  """12 x 12 tokens on 8 x 8 cells: cells of 1, 2 or 4 whole tokens would make steps of it."""
  row, column = np.divmod(np.arange(144), 12)
  field = 1 + np.stack([row, column], axis=-1).astype(np.float32)[None]  # no token is null
  found = compiled(lambda x: pool_cells(x, cell_weights((12, 12), 8), None), field)
  found = found.reshape(8, 8, 2)
  steps = np.diff(found[:, 0, 0])
  # A cell of 1.5 tokens holds 2/3 of one and 1/3 of the next, then 1/3 and 2/3.
  np.testing.assert_allclose(steps, np.where(np.arange(7) % 2, 5 / 3, 4 / 3), rtol=1e-5)
  np.testing.assert_allclose(found.mean(axis=(0, 1)), 6.5, rtol=1e-6)


@pytest.mark.parametrize("cells", [2, 3, 8])
def test_a_cell_is_seen_if_a_token_lies_in_it_that_is_not_hidden(cells: int) -> None:
  hidden = np.where(np.arange(9)[:, None] % 3 == 1, 0, SOME)
  for tokens, every in ((SOME, 1), (hidden, 3)):
    found = compiled(lambda x: cells_seen(x, cell_weights(GRID, cells), INDICES), tokens)
    area = counted(GRID, cells)
    for sample in range(3):
      places = [p for i, p in enumerate(INDICES[sample]) if every == 1 or i % every != 1]
      np.testing.assert_array_equal(found[sample], (area[places] > 0).any(axis=0))
