"""Descriptors of where things lie, by local structure: fitted in closed form, trained, or neither.

A scene is cut into cells; oriented gradients describe each. `GradientLayout` is these as they are.
`CanonicalLayout` keeps, of each cell, the few numbers that sensors have in common, as a spectrum in
which every frequency weighs what sensors share of it. Its map is fitted in closed form
(`training.canonical`), so that it finds scenes before any training; a network's tokens add to a
cell's numbers, from nothing at first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from xjepa_jax.config import HeadConfig
from xjepa_jax.model import spectrum
from xjepa_jax.model.cells import cell_weights
from xjepa_jax.model.fill import shown
from xjepa_jax.model.gradients import DIRECTIONS, oriented_gradients
from xjepa_jax.model.layers import exact
from xjepa_jax.model.trunk import BlockSpec


class GradientLayout(nnx.Module):
  """Oriented gradients of cells as a descriptor: (B, P * DIRECTIONS), a cell after the other."""

  def __init__(self, settings: HeadConfig):
    self.cells = settings.cells

  def __call__(
    self, sensor: str, values: Array, tokens: Array | None, indices: Array | None
  ) -> Array:
    """Descriptors (B, K), not normalised; see `CanonicalLayout`."""
    del sensor, tokens, indices
    return oriented_gradients(values, self.cells)[0].reshape(len(values), -1)

  def patches(self, sensor: str, values: Array, tokens: Array | None, centre: Array) -> Array:
    """(B, P, DIRECTIONS) what each cell says for itself, centred."""
    del sensor, tokens
    return oriented_gradients(values, self.cells)[0] - centre.reshape(self.cells**2, -1)


class SensorMap(nnx.Module):
  """What a sensor's cells are multiplied by. Fitted, not trained: no gradient flows into it.

  Adam would move each of its few numbers as far as any of a network's weights, and so away from the
  best there is, before the network has anything to add.

  Attributes:
    kernel: (DIRECTIONS, d) from a cell's gradients to its numbers.
    bias: (d,) added to the numbers of a cell of which something was seen.
    scale: (R, d) of the frequencies of each ring, see `spectrum.rings`.
  """

  def __init__(self, cells: int, numbers: int, rngs: nnx.Rngs):
    drawn = nnx.initializers.orthogonal()(rngs.params(), (DIRECTIONS, numbers), jnp.float32)
    self.kernel = nnx.Param(drawn)
    self.bias = nnx.Param(jnp.zeros(numbers, jnp.float32))
    self.scale = nnx.Param(jnp.ones((spectrum.count_rings(cells), numbers), jnp.float32))

  def __call__(self, gradients: Array, seen: Array) -> Array:
    """The numbers (B, P, d) of cells; a cell of which nothing was seen is the mean, 0."""
    kernel, bias = jax.lax.stop_gradient((self.kernel[...], self.bias[...]))
    numbers = jnp.matmul(gradients, kernel, precision=exact(kernel)) + bias
    return jnp.where(seen[..., None], numbers, 0.0)


class CanonicalLayout(nnx.Module):
  """A few numbers a cell that sensors share, as the slow part of a spectrum; float32.

  Args:
    settings: cells along a side, numbers a cell, and how many numbers of the spectrum are kept.
    sensors: that are described.
    spec: of the encoder's layers; None for an encoder that has none.
    grid: rows and columns of the encoder's tokens.
    rngs: what the weights are drawn from.
  """

  def __init__(
    self,
    settings: HeadConfig,
    sensors: tuple[str, ...],
    spec: BlockSpec | None,
    grid: tuple[int, int],
    rngs: nnx.Rngs,
  ):
    self.cells, self.numbers, self.size = settings.cells, settings.numbers, settings.size
    self.maps = nnx.Dict({key: SensorMap(self.cells, self.numbers, rngs) for key in sensors})
    self.grid = grid
    self.split = token_parts(self.cells, grid)
    self.has_tokens = spec is not None
    if spec is not None:
      self.project = dataclasses.replace(spec, dtype=jnp.float32).linear(
        spec.width, self.split**2 * self.numbers, rngs
      )
      self.project.kernel[...] = jnp.zeros_like(self.project.kernel[...])

  def __call__(
    self, sensor: str, values: Array, tokens: Array | None, indices: Array | None
  ) -> Array:
    """Descriptors, not normalised.

    Args:
      sensor: whose images these are.
      values: (B, H, W, C) scaled images, whole.
      tokens: (B, n, D) of the encoder; None for one that has none.
      indices: (B, n) their places in the grid, row-major; None is all in order.

    Returns:
      (B, K) float32.
    """
    weighted = self._spectrum(sensor, values, tokens, indices)
    kept = spectrum.order(self.cells, self.numbers)[: self.size]
    return weighted.reshape(len(values), -1)[:, kept]

  def patches(self, sensor: str, values: Array, tokens: Array | None, centre: Array) -> Array:
    """What each cell says for itself, less what it says of any scene.

    Args:
      sensor, values, tokens: as in a call.
      centre: (K,) taken from descriptors.

    Returns:
      (B, P, d) float32, P cells in row-major order.
    """
    kept = spectrum.order(self.cells, self.numbers)[: self.size]
    whole = jnp.zeros(self.cells**2 * self.numbers, centre.dtype).at[kept].set(centre)
    weighted = self._spectrum(sensor, values, tokens, None)
    return spectrum.inverse(weighted - whole.reshape(1, self.cells**2, self.numbers))

  def _spectrum(
    self, sensor: str, values: Array, tokens: Array | None, indices: Array | None
  ) -> Array:
    """(B, P, d) of all frequencies, weighted."""
    own: SensorMap = self.maps[sensor]
    numbers = own(*oriented_gradients(values, self.cells))
    if self.has_tokens and tokens is not None:
      numbers = numbers + self._of_tokens(tokens, indices)
    scale = jax.lax.stop_gradient(own.scale[...])
    return spectrum.transform(numbers) * scale[spectrum.rings(self.cells)]

  def _of_tokens(self, tokens: Array, indices: Array | None) -> Array:
    """(B, P, d) what tokens add to their cells; nothing where there is no token."""
    found = jnp.where(shown(tokens)[..., None], self.project(tokens.astype(jnp.float32)), 0.0)
    rows, columns = self.grid
    if indices is not None:
      empty = jnp.zeros((rows * columns, found.shape[-1]), found.dtype)
      found = jax.vmap(lambda one, places: empty.at[places].set(one))(found, indices)
    part = self.split
    found = found.reshape(len(found), rows, columns, part, part, self.numbers)
    found = found.transpose(0, 1, 3, 2, 4, 5).reshape(len(found), -1, self.numbers)
    weights = cell_weights((rows * part, columns * part), self.cells)
    weights = weights / weights.sum(axis=0)
    return jnp.einsum("np,bnd->bpd", weights, found, precision=exact(found))


Layout = GradientLayout | CanonicalLayout


def token_parts(cells: int, grid: tuple[int, int]) -> int:
  """Parts of a token along a side: one larger than a cell says something of each that it covers."""
  return max(1, -(-cells // min(grid)))


def reads_images(head: HeadConfig) -> bool:
  """Whether a head describes cells of the image itself, with or without a network."""
  return head.pooling in ("canonical", "gradients")


def layouts(
  heads: Mapping[str, HeadConfig],
  sensors: tuple[str, ...],
  spec: BlockSpec | None,
  grid: tuple[int, int],
  rngs: nnx.Rngs,
) -> dict[str, Layout]:
  """The heads that read images, by name."""
  found: dict[str, Layout] = {}
  for name, head in heads.items():
    if head.pooling == "gradients":
      found[name] = GradientLayout(head)
    elif head.pooling == "canonical":
      found[name] = CanonicalLayout(head, sensors, spec, grid, rngs)
  return found
