"""Heads: from tokens to one descriptor, by pooling and a projection.

Computed in float32 even in a bfloat16 run: rounding moved centred descriptors by up to 18 %
(docs/architecture.md, decision 30).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from xjepa_jax.config import HeadConfig
from xjepa_jax.model.cells import cell_weights, cells_seen, mean_token, pool_cells
from xjepa_jax.model.fill import HIDDEN, shown
from xjepa_jax.model.layers import exact
from xjepa_jax.model.trunk import BlockSpec


class Head(nnx.Module):
  """A descriptor of K numbers, in float32 because the differences between scenes are small.

  "mean" and "attention" describe what a scene contains; "grid" also describes where. It divides the
  scene into cells and describes each by K / cells numbers, which are interleaved: the first number
  of every cell, then the second of every cell, and so on. The first j * cells numbers therefore
  hold j numbers per cell, so that a descriptor cut there still covers the whole layout.

  Args:
    settings: pooling and sizes.
    spec: settings of the encoder's layers.
    grid: rows and columns of the encoder's tokens.
    rngs: random streams for the initial weights.
  """

  def __init__(self, settings: HeadConfig, spec: BlockSpec, grid: tuple[int, int], rngs: nnx.Rngs):
    spec = dataclasses.replace(spec, dtype=jnp.float32)
    self.pooling = settings.pooling
    self.cells = settings.cells
    self.grid = grid
    if settings.pooling == "attention":
      self.query = nnx.Param(0.02 * jax.random.normal(rngs.params(), (spec.width,), jnp.float32))
    parts = settings.cells**2 if settings.pooling == "grid" else 1
    if settings.hidden:
      self.hidden = spec.linear(spec.width, settings.hidden, rngs)
    self.has_hidden = bool(settings.hidden)
    self.project = spec.linear(settings.hidden or spec.width, settings.size // parts, rngs)

  def __call__(self, tokens: Array, indices: Array | None) -> Array:
    """Descriptors, not normalised.

    Args:
      tokens: (B, n, D), null where hidden.
      indices: (B, n) their places in the grid, row-major; None means all, in order.

    Returns:
      (B, K) float32.
    """
    pooled = self._pool(tokens, indices)
    if self.has_hidden:
      pooled = jax.nn.gelu(self.hidden(pooled))
    projected = self.project(pooled)
    if self.pooling == "grid":
      projected = projected.swapaxes(1, 2)
    return projected.reshape(tokens.shape[0], -1)

  def seen(self, tokens: Array, indices: Array | None) -> Array:
    """(B, P) bool: which cells have a token that is not hidden; P is 1 for a head without cells."""
    if self.pooling == "grid":
      return cells_seen(tokens, cell_weights(self.grid, self.cells), indices)
    return shown(tokens).any(axis=1, keepdims=True)

  def patches(self, tokens: Array, centre: Array) -> Array:
    """Each token's own contribution, centred like the cells that it lies in.

    Args:
      tokens: (B, N, D) tokens of a whole grid, in order.
      centre: (K,) mean descriptor, which is subtracted.

    Returns:
      (B, N, d) float32; d is K, or K divided by the number of cells for the pooling "grid".
    """
    if self.has_hidden:
      tokens = jax.nn.gelu(self.hidden(tokens))
    projected = self.project(tokens)
    if self.pooling != "grid":
      return projected - centre
    weights = jnp.asarray(cell_weights(self.grid, self.cells))
    centres = centre.reshape(-1, self.cells**2).T
    return projected - jnp.matmul(weights, centres, precision=exact(centres))

  def _pool(self, tokens: Array, indices: Array | None) -> Array:
    tokens = tokens.astype(jnp.float32)
    if self.pooling == "mean":
      return mean_token(tokens)
    if self.pooling == "attention":
      precision = exact(tokens)
      scores = jnp.einsum("bnd,d->bn", tokens, self.query[...], precision=precision)
      scores = jnp.where(shown(tokens), scores, HIDDEN)
      return jnp.einsum("bn,bnd->bd", jax.nn.softmax(scores, axis=-1), tokens, precision=precision)
    return pool_cells(tokens, cell_weights(self.grid, self.cells), indices)
