"""Descriptors of where things lie, from the local structure of the image itself.

A scene is divided into cells, each described by its oriented gradients. `GradientLayout` uses
these unchanged. `CanonicalLayout` keeps the few numbers per cell that sensors have in common, as a
spectrum in which each frequency is weighted by what sensors share of it. Its map is fitted in
closed form (`training.canonical`), so that it retrieves scenes before any training; a network's
features of a place are added to its cells' numbers, starting from zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from xjepa_jax.config import HeadConfig
from xjepa_jax.errors import ConfigError
from xjepa_jax.model import spectrum
from xjepa_jax.model.cells import cell_weights
from xjepa_jax.model.fill import shown
from xjepa_jax.model.gradients import DIRECTIONS, oriented_gradients
from xjepa_jax.model.layers import Linear, exact
from xjepa_jax.model.statistics import count_statistics, statistics


class GradientLayout(nnx.Module):
  """Oriented gradients of the cells as a descriptor, (B, P * DIRECTIONS), cell by cell."""

  def __init__(self, settings: HeadConfig):
    self.cells, self.size = settings.cells, settings.size

  def __call__(
    self,
    sensor: str,
    values: Array,
    tokens: Array | None,
    indices: Array | None,
    parts: Array | None = None,
  ) -> Array:
    """Descriptors (B, K), not normalised; see `CanonicalLayout`."""
    del sensor, tokens, indices, parts
    return oriented_gradients(values, self.cells)[0].reshape(len(values), -1)

  def patches(
    self,
    sensor: str,
    values: Array,
    tokens: Array | None,
    parts: Array | None,
    centre: Array,
  ) -> Array:
    """(B, P, DIRECTIONS): each cell's own contribution, centred."""
    del sensor, tokens, parts
    return oriented_gradients(values, self.cells)[0] - centre.reshape(self.cells**2, -1)


@dataclasses.dataclass(frozen=True)
class Reading:
  """A head's features of the image: gradients of cells, or statistics of the whole.

  Attributes:
    cells: cells along a side; 1 for the whole image.
    whole: whether the features are statistics.
  """

  cells: int
  whole: bool = False

  @classmethod
  def of(cls, head: HeadConfig) -> Reading:
    """The features of a head's pooling."""
    whole = head.pooling == "statistics"
    return cls(1 if whole else head.cells, whole)

  def count(self, bands: int) -> int:
    """F, the number of features per cell of an image with this many bands."""
    return count_statistics(bands) if self.whole else DIRECTIONS

  def __call__(self, values: Array) -> tuple[Array, Array]:
    """(B, P, F) features of images (B, H, W, C), and (B, P) bool, whether the cell was observed."""
    if not self.whole:
      return oriented_gradients(values, self.cells)
    found, seen = statistics(values)
    return found[:, None], seen[:, None]


class SensorMap(nnx.Module):
  """A sensor's linear map from features to numbers of cells. Fitted: no gradient flows into it.

  Adam would move each of its few numbers as far as any weight of a network, and so away from the
  optimum before the network has anything to add.

  Attributes:
    kernel: (F, d) from the features of a cell to its numbers.
    bias: (d,) added to the numbers of each observed cell.
    scale: (R, d) weights of the frequencies in each ring, see `spectrum.rings`.
  """

  def __init__(self, told: int, cells: int, numbers: int, rngs: nnx.Rngs):
    drawn = nnx.initializers.orthogonal()(rngs.params(), (told, numbers), jnp.float32)
    self.kernel = nnx.Param(drawn)
    self.bias = nnx.Param(jnp.zeros(numbers, jnp.float32))
    self.scale = nnx.Param(jnp.ones((spectrum.count_rings(cells), numbers), jnp.float32))

  def __call__(self, told: Array, seen: Array) -> Array:
    """The numbers (B, P, d) of cells; an unobserved cell gets the mean, 0."""
    kernel, bias = jax.lax.stop_gradient((self.kernel[...], self.bias[...]))
    numbers = jnp.matmul(told, kernel, precision=exact(kernel)) + bias
    return jnp.where(seen[..., None], numbers, 0.0)


@dataclasses.dataclass(frozen=True)
class Source:
  """A network's features of places: vectors of `width` numbers on a grid of (rows, columns)."""

  width: int
  grid: tuple[int, int]


class Addition(nnx.Module):
  """A network's addition to the numbers of cells: zero before training.

  Args:
    source: size and grid of the network's vectors.
    cells: cells along a side.
    numbers: numbers per cell.
    rngs: random streams for the initial weights.
  """

  def __init__(self, source: Source, cells: int, numbers: int, rngs: nnx.Rngs):
    self.grid, self.cells, self.numbers = source.grid, cells, numbers
    self.split = token_parts(cells, source.grid)
    outputs = self.split**2 * numbers
    # Zeros, so that the closed form is unchanged before training.
    self.project = Linear(
      source.width, outputs, kernel_init=nnx.initializers.zeros, dtype=jnp.float32, rngs=rngs
    )

  def __call__(self, vectors: Array, indices: Array | None) -> Array:
    """(B, P, d) of vectors (B, n, D), null where hidden, at (B, n) places; None means all."""
    found = jnp.where(shown(vectors)[..., None], self.project(vectors.astype(jnp.float32)), 0.0)
    rows, columns = self.grid
    if indices is not None:
      empty = jnp.zeros((rows * columns, found.shape[-1]), found.dtype)
      # Places without a token add nothing.
      found = jax.vmap(lambda one, places: empty.at[places].set(one))(found, indices)
    part = self.split
    found = found.reshape(len(found), rows, columns, part, part, self.numbers)
    found = found.transpose(0, 1, 3, 2, 4, 5).reshape(len(found), -1, self.numbers)
    weights = cell_weights((rows * part, columns * part), self.cells)
    # A cell is the mean of the parts that it overlaps, so its weights have to add up to 1.
    weights = weights / weights.sum(axis=0)
    return jnp.einsum("np,bnd->bpd", weights, found, precision=exact(found))


class CanonicalLayout(nnx.Module):
  """The few numbers per cell that sensors share, as the low frequencies of a spectrum; float32.

  For the pooling "statistics" the whole image is the only cell.

  Args:
    settings: features, numbers per cell, and how many numbers of the spectrum are kept.
    bands: sensor -> number of bands, for each sensor to be described.
    sources: "tokens" and "parts", a network's features of places; {} without a network.
    rngs: random streams for the initial weights.
  """

  def __init__(
    self,
    settings: HeadConfig,
    bands: Mapping[str, int],
    sources: Mapping[str, Source],
    rngs: nnx.Rngs,
  ):
    self.reading = Reading.of(settings)
    self.cells, self.numbers, self.size = self.reading.cells, settings.numbers, settings.size
    self.maps = nnx.Dict(
      {
        key: SensorMap(self.reading.count(count), self.cells, self.numbers, rngs)
        for key, count in bands.items()
      }
    )
    self.additions = nnx.Dict(
      {key: Addition(each, self.cells, self.numbers, rngs) for key, each in sources.items()}
    )

  def __call__(
    self,
    sensor: str,
    values: Array,
    tokens: Array | None,
    indices: Array | None,
    parts: Array | None = None,
  ) -> Array:
    """Descriptors, not normalised.

    Args:
      sensor: the images' sensor.
      values: (B, H, W, C) scaled images, whole.
      tokens: (B, n, D) tokens of the encoder; None for an encoder without a network.
      indices: (B, n) their places in the grid, row-major; None means all, in order.
      parts: (B, Q, E) features of the parts of these places, see `local`; None for an encoder
        without a local network.

    Returns:
      (B, K) float32.
    """
    weighted = self._spectrum(sensor, values, tokens, indices, parts)
    kept = spectrum.order(self.cells, self.numbers)[: self.size]
    return weighted.reshape(len(values), -1)[:, kept]

  def patches(
    self,
    sensor: str,
    values: Array,
    tokens: Array | None,
    parts: Array | None,
    centre: Array,
  ) -> Array:
    """Each cell's own contribution, less the mean over scenes.

    Args:
      sensor, values, tokens, parts: as in `__call__`.
      centre: (K,) mean descriptor, which is subtracted.

    Returns:
      (B, P, d) float32, P cells in row-major order.
    """
    kept = spectrum.order(self.cells, self.numbers)[: self.size]
    whole = jnp.zeros(self.cells**2 * self.numbers, centre.dtype).at[kept].set(centre)
    weighted = self._spectrum(sensor, values, tokens, None, parts)
    return spectrum.inverse(weighted - whole.reshape(1, self.cells**2, self.numbers))

  def _spectrum(
    self,
    sensor: str,
    values: Array,
    tokens: Array | None,
    indices: Array | None,
    parts: Array | None,
  ) -> Array:
    """(B, P, d): all frequencies, weighted."""
    own: SensorMap = self.maps[sensor]
    numbers = own(*self.reading(values))
    if tokens is not None and "tokens" in self.additions:
      numbers = numbers + self.additions["tokens"](tokens, indices)
    if parts is not None and "parts" in self.additions:
      # Parts always cover the whole grid, null where they are hidden, so they need no places.
      numbers = numbers + self.additions["parts"](parts, None)
    scale = jax.lax.stop_gradient(own.scale[...])
    return spectrum.transform(numbers) * scale[spectrum.rings(self.cells)]


Layout = GradientLayout | CanonicalLayout


def token_parts(cells: int, grid: tuple[int, int]) -> int:
  """Parts of a token along a side: a token contributes to each cell that it covers."""
  return max(1, -(-cells // min(grid)))


def by_token(cells: Array, side: int, grid: tuple[int, int]) -> Array:
  """Group (B, side^2, d) cells by token: (B, N, D), both row-major.

  D holds all numbers of the cells at a token's place.

  Args:
    cells: numbers of the cells of images.
    side: cells along a side, see `cells_width`.
    grid: rows and columns of tokens.
  """
  rows, columns = grid
  found = cells.reshape(len(cells), rows, side // rows, columns, side // columns, -1)
  return found.transpose(0, 1, 3, 2, 4, 5).reshape(len(cells), rows * columns, -1)


def cells_width(name: str, head: HeadConfig, grid: tuple[int, int]) -> int:
  """D, the size of a head's cells at a token's place.

  Raises:
    ConfigError: the head has no cells, or tokens do not divide them.
  """
  known = {"canonical": head.numbers, "gradients": DIRECTIONS}
  if head.pooling not in known or any(head.cells % count for count in grid):
    raise ConfigError(
      f"config key 'target.of' is {name!r}, a head of the pooling {head.pooling!r} with "
      f"{head.cells} x {head.cells} cells; expected the pooling {' or '.join(known)}, and a "
      f"multiple of the {grid[0]} x {grid[1]} tokens along each side."
    )
  return known[head.pooling] * (head.cells // grid[0]) * (head.cells // grid[1])


def reads_images(head: HeadConfig) -> bool:
  """Whether a head describes the image itself, with or without a network."""
  return head.pooling == "gradients" or is_fitted(head)


def is_fitted(head: HeadConfig) -> bool:
  """Whether a head is fitted in closed form, see `training.canonical`."""
  return head.pooling in ("canonical", "statistics")


def layouts(
  heads: Mapping[str, HeadConfig],
  bands: Mapping[str, int],
  sources: Mapping[str, Source],
  rngs: nnx.Rngs,
) -> dict[str, Layout]:
  """The heads that read images, by name; arguments as in `CanonicalLayout`."""
  found: dict[str, Layout] = {}
  for name, head in heads.items():
    if head.pooling == "gradients":
      found[name] = GradientLayout(head)
    elif is_fitted(head):
      found[name] = CanonicalLayout(head, bands, sources, rngs)
  return found
