"""Local structure before the trunk: a small convolutional network over parts of patches.

One projection of a patch's pixels cannot form the size of a gradient under speckle, and says
nothing relative to the image it is of. So each patch is cut into `PARTS` x `PARTS` parts, a part is
described by what needs no learning (`structure`), and a few residual layers of 3 x 3 parts, the
same for all places and all sensors, make features of it. They enter the trunk's tokens, and
heads with a closed form read them beside those.
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

PARTS = 2  # of a patch along a side
LOCAL_MLP_RATIO = 1.0  # hidden width over width of a layer, which reads nine times its width
PIECES = 2  # of a part along a side, which are described
_LEAST_SEEN = 0.25  # of a piece: what is less is not described
# In standard units: of a band without contrast, and of a piece without texture.
_CONTRAST, _TEXTURE = 0.1, 0.05
_STRETCH = 8.0  # of gradients, which vary by an eighth: to the size of what else is said of a piece


class LocalNetwork(nnx.Module):
  """Features of the parts of patches, and what tokens take of them.

  Args:
    inputs: sensor -> what is given of it; all on one grid of patches.
    spec: of the layers: width D, hidden width, activation and type.
    depth: residual layers.
    width: of a token.
    rngs: what the weights are drawn from.
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
      indices: sensor -> (B, n) patches that may be looked at, row-major; None is all. Of the
        others, features have the pixels beside the border, by blurs, and what they add to the
        image's means, to which all is relative.

    Returns:
      sensor -> (B, P, D), P parts in row-major order; null where nothing of a part was seen, and
      where it may not be looked at.
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
    """(B, n, width): what the patches at these places, of None all, take of parts (B, P, D)."""
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
  """x + MLP(norm(x) of 3 x 3 parts); beyond the border, the parts beside it are repeated."""

  def __init__(self, grid: tuple[int, int], spec: BlockSpec, rngs: nnx.Rngs):
    self.grid = grid
    self.norm = spec.norm(rngs)
    self.up = spec.linear(9 * spec.width, spec.hidden, rngs)
    self.down = spec.linear(spec.hidden, spec.width, rngs)
    self.activation = spec.activation

  def __call__(self, x: Array) -> Array:
    """(..., P, D) of the same."""
    rows, columns = self.grid
    # Samples keep an axis of their own: merged with another, they would lose their sharding.
    wide = self.norm(x).reshape(*x.shape[:-2], rows, columns, x.shape[-1])
    wide = jnp.pad(wide, ((0, 0),) * (x.ndim - 2) + ((1, 1), (1, 1), (0, 0)), mode="edge")
    # A convolution as one product of matrices: XLA has no fast path for the gradients of
    # convolutions on a CPU.
    near = [wide[..., i : i + rows, j : j + columns, :] for i in range(3) for j in range(3)]
    joint = jnp.concatenate(near, axis=-1).reshape(*x.shape[:-1], -1)
    return x + self.down(ACTIVATIONS[self.activation](self.up(joint)))


def features(bands: int) -> int:
  """F of `structure` for an image of so many bands."""
  return DIRECTIONS + 3 * bands


def structure(values: Array, grid: tuple[int, int]) -> tuple[Array, Array]:
  """What pieces of an image are like, without learning.

  Args:
    values: (B, H, W, C) scaled images; a pixel that is 0 in every band was not seen.
    grid: pieces down and across; they need not divide H or W.

  Returns:
    (B, Q, F) float32, Q row-major: oriented gradients; then of each band the mean, the mean
    relative to the image (less its mean, over its deviation), and the logarithm of the deviation
    within the piece, less its mean over the image. And (B, Q) bool, whether enough of the piece was
    seen: what is not is 0.
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
  """(B, rows * columns, side * side * F) of (B, rows * side * columns * side, F), row-major."""
  return rearrange(x, "b (r p c q) f -> b (r c) (p q f)", r=grid[0], c=grid[1], p=side, q=side)
