"""Cells of a grid head: the weights of tokens in each cell, and the cells' mean tokens.

Cells need not divide the grid of tokens: each token counts by the area that it shares with a cell.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from xjepa_jax.model.fill import shown
from xjepa_jax.model.layers import exact


def cell_weights(grid: tuple[int, int], cells: int) -> np.ndarray:
  """How much of each token lies in each cell.

  The scene is divided into rows x columns tokens, and independently into cells x cells cells;
  neither need divide the other. A cell's weights are the areas that it shares with the tokens.

  Args:
    grid: rows and columns of tokens.
    cells: number of cells along a side.

  Returns:
    (N, cells * cells) float32, both row-major: the share of the token's area that lies in the
    cell. A token's weights add up to 1; all weights are 0 or 1 where the cells divide the tokens.
  """
  down, right = (shares(tokens, cells) for tokens in grid)
  return np.einsum("rk,cl->rckl", down, right).reshape(grid[0] * grid[1], cells**2)


def shares(tokens: int, cells: int) -> np.ndarray:
  """(tokens, cells) along one side: the share of a token's length that lies in a cell."""
  # The unit is chosen so that tokens and cells start and end at integers, and 1 is exactly 1.
  token, cell = np.arange(tokens)[:, None] * cells, np.arange(cells) * tokens
  common = np.minimum(token + cells, cell + tokens) - np.maximum(token, cell)
  return (np.maximum(common, 0) / cells).astype(np.float32)


def pool_cells(tokens: Array, weights: np.ndarray, indices: Array | None) -> Array:
  """Mean token of each cell, weighted by the tokens' share in the cell.

  A cell without a token gets the mean of all tokens, which describes its surroundings.

  Args:
    tokens: (B, n, D), null where hidden.
    weights: (N, P), share of each token in each cell, see `cell_weights`.
    indices: (B, n) places of the tokens; None means all, in order.

  Returns:
    (B, P, D).
  """
  member = _members(tokens, weights, indices).astype(tokens.dtype)
  total = member.sum(axis=1)[..., None]
  sums = jnp.einsum("bnp,bnd->bpd", member, tokens, precision=exact(tokens))
  means = sums / jnp.where(total > 0, total, 1)
  return jnp.where(total > 0, means, mean_token(tokens)[:, None])


def mean_token(tokens: Array) -> Array:
  """(B, D) mean of the tokens (B, n, D) that are not hidden; 0 if all are."""
  return tokens.sum(axis=1) / jnp.maximum(shown(tokens).sum(axis=1), 1)[:, None]


def cells_seen(tokens: Array, weights: np.ndarray, indices: Array | None) -> Array:
  """(B, P) bool: which cells overlap a token that is not hidden; arguments as in `pool_cells`."""
  return (_members(tokens, weights, indices) > 0).any(axis=1)


def _members(tokens: Array, weights: np.ndarray, indices: Array | None) -> Array:
  """(B, n, P) weights of the tokens in each cell, 0 where hidden."""
  of_places = jnp.asarray(weights) if indices is None else jnp.asarray(weights)[indices]
  return jnp.where(shown(tokens)[..., None], of_places, 0.0)
