"""Local structure before the trunk: a small convolutional network over parts of patches.

A single projection of a patch's pixels cannot form the size of a gradient under speckle, and knows
nothing relative to the rest of the image. Each patch is therefore cut into `PARTS` x `PARTS` parts,
each part is described without learning (`structure`), and a few residual layers of 3 x 3 parts,
shared by all places and sensors, turn the descriptions into features. These are added to the
trunk's tokens, and heads with a closed form read them beside the tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax import Array

from xjepa_jax.config.schema import DIRECTIONS
from xjepa_jax.model.activation import ACTIVATIONS
from xjepa_jax.model.gradients import along_both, areas, oriented_gradients
from xjepa_jax.model.inputs import SensorInput
from xjepa_jax.model.trunk import BlockSpec, Trunk

PARTS = 2  # parts of a patch along a side
LOCAL_MLP_RATIO = 1.0  # hidden width over width of a layer, whose input is nine times its width
PIECES = 2  # pieces of a part along a side, each described separately
_LEAST_SEEN = 0.25  # least share of a piece that must be observed for it to be described
# In standard units: the contrast of a band, and the texture of a piece, that count as none.
_CONTRAST, _TEXTURE = 0.1, 0.05
_STRETCH = 8.0  # gradients vary by an eighth; this brings them to the size of the other features


class LocalNetwork(nnx.Module):
  """Features of the parts of patches, and their contribution to tokens.

  Args:
    inputs: sensor -> its input; all on one grid of patches.
    spec: settings of the layers: width D, hidden width, activation and type.
    depth: number of residual layers.
    width: width of a token.
    rngs: random streams for the initial weights.
  """

  def __init__(
    self,
    inputs: Mapping[str, SensorInput],
    spec: BlockSpec,
    depth: int,
    width: int,
    rngs: nnx.Rngs,
  ):
    self.width = spec.width
    self.patches = next(iter(inputs.values())).grid
    self.grid = (PARTS * self.patches[0], PARTS * self.patches[1])
    self.enter = nnx.Dict(
      {
        key: spec.linear(PIECES**2 * features(given.bands), spec.width, rngs)
        for key, given in inputs.items()
      }
    )
    self.layers = Trunk(depth, spec, rngs, layer=lambda *given: LocalLayer(self.grid, *given))
    self.norm = spec.norm(rngs)
    self.leave = spec.linear(PARTS**2 * spec.width, width, rngs)

  def __call__(
    self, values: Mapping[str, Array], indices: Mapping[str, Array] | None = None
  ) -> dict[str, Array]:
    """Features of all parts.

    Args:
      values: sensor -> (B, H, W, C) scaled images.
      indices: sensor -> (B, n) visible patches, row-major; None means all. The other patches leak
        into the features only through blurs, which reach the pixels beside the border, and through
        the image's means, to which everything is relative.

    Returns:
      sensor -> (B, P, D), P parts in row-major order; null where nothing of a part was observed or
      the patch is not visible.
    """
    entered, there = [], []
    for key, each in values.items():
      found, seen = structure(each, (PIECES * self.grid[0], PIECES * self.grid[1]))
      x = self.enter[key](_blocks(found, self.grid, PIECES))
      shown = _blocks(seen[..., None], self.grid, PIECES).any(axis=-1, keepdims=True)
      shown = shown if indices is None else shown & self._of(indices[key], len(each))
      entered.append(jnp.where(shown, x, 0))
      there.append(shown)
    x = jnp.where(jnp.stack(there), self.norm(self.layers(jnp.stack(entered))), 0)
    return {key: x[number] for number, key in enumerate(values)}

  def tokens(self, parts: Array, indices: Array | None) -> Array:
    """(B, n, width): the tokens' share of parts (B, P, D) for patches `indices`; None means all."""
    taken = _blocks(parts, self.patches, PARTS)
    if indices is not None:
      taken = jnp.take_along_axis(taken, indices[..., None], axis=1)
    return self.leave(taken)

  def _of(self, indices: Array, batch: int) -> Array:
    """(B, P, 1) bool: whether a part belongs to one of the patches (B, n)."""
    rows, columns = self.patches
    nothing = jnp.zeros((batch, rows * columns), bool)
    chosen = jax.vmap(lambda one, places: one.at[places].set(True))(nothing, indices)
    chosen = chosen.reshape(batch, rows, columns).repeat(PARTS, axis=1).repeat(PARTS, axis=2)
    return chosen.reshape(batch, -1, 1)


class LocalLayer(nnx.Module):
  """x + MLP(norm(x) of 3 x 3 parts); at the border, the outermost parts are repeated."""

  def __init__(self, grid: tuple[int, int], spec: BlockSpec, rngs: nnx.Rngs):
    self.grid = grid
    self.norm = spec.norm(rngs)
    self.up = spec.linear(9 * spec.width, spec.hidden, rngs)
    self.down = spec.linear(spec.hidden, spec.width, rngs)
    self.activation = spec.activation

  def __call__(self, x: Array) -> Array:
    """Apply the layer to (..., P, D) parts."""
    rows, columns = self.grid
    # The sample axis stays separate: merged with another axis, it would lose its sharding.
    wide = self.norm(x).reshape(*x.shape[:-2], rows, columns, x.shape[-1])
    wide = jnp.pad(wide, ((0, 0),) * (x.ndim - 2) + ((1, 1), (1, 1), (0, 0)), mode="edge")
    # The convolution is one matrix product, because XLA has no fast path for the gradients of
    # convolutions on a CPU.
    near = [wide[..., i : i + rows, j : j + columns, :] for i in range(3) for j in range(3)]
    joint = jnp.concatenate(near, axis=-1).reshape(*x.shape[:-1], -1)
    return x + self.down(ACTIVATIONS[self.activation](self.up(joint)))


def features(bands: int) -> int:
  """F, the number of features in `structure` for an image with this many bands."""
  return DIRECTIONS + 3 * bands


def structure(values: Array, grid: tuple[int, int]) -> tuple[Array, Array]:
  """Describe the pieces of an image without learning.

  Args:
    values: (B, H, W, C) scaled images; a pixel that is 0 in every band is unobserved.
    grid: pieces down and across; they need not divide H or W.

  Returns:
    (B, Q, F) float32, Q row-major: oriented gradients; then, per band, the mean, the mean relative
    to the image (less the image's mean, divided by its deviation), and the logarithm of the
    deviation within the piece, less its mean over the image. Also (B, Q) bool, whether enough of
    the piece was observed; other pieces are 0.
  """
  gradients, known = oriented_gradients(values, grid)
  x = jnp.moveaxis(values.astype(jnp.float32), -1, 1)
  there = (x != 0).any(axis=1, keepdims=True).astype(jnp.float32)
  rows, columns = areas(x.shape[2], grid[0]), areas(x.shape[3], grid[1])
  share = along_both(rows, there, columns)
  seen = share >= _LEAST_SEEN

  def mean(of: Array) -> Array:
    return jnp.where(seen, along_both(rows, of, columns) / jnp.maximum(share, _LEAST_SEEN), 0)

  weight = share * seen

  def whole(of: Array) -> Array:
    total = jnp.maximum(weight.sum((2, 3), keepdims=True), _LEAST_SEEN)
    return (of * weight).sum((2, 3), keepdims=True) / total

  means, squares = mean(x), mean(jnp.square(x))
  spread = jnp.log(jnp.sqrt(jnp.maximum(squares - jnp.square(means), 0)) + _TEXTURE)
  centre = whole(means)
  deviation = jnp.sqrt(jnp.maximum(whole(squares) - jnp.square(centre), 0))
  of_bands = [means, (means - centre) / (deviation + _CONTRAST), spread - whole(spread)]
  flat = jnp.moveaxis(jnp.where(seen, jnp.concatenate(of_bands, axis=1), 0), 1, -1)
  directions = jnp.where(known[..., None], _STRETCH * (gradients - 1 / DIRECTIONS**0.5), 0)
  found = jnp.concatenate([directions, flat.reshape(len(x), grid[0] * grid[1], -1)], axis=-1)
  return jax.lax.stop_gradient(found), seen.reshape(len(x), -1)


def _blocks(x: Array, grid: tuple[int, int], side: int) -> Array:
  """Merge side x side blocks: (B, rows * columns, side * side * F) of row-major (B, ..., F)."""
  return rearrange(x, "b (r p c q) f -> b (r c) (p q f)", r=grid[0], c=grid[1], p=side, q=side)
