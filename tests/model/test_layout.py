"""Layouts against NumPy: the closed form alone, what tokens add to it, and cells of their own."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import fft

from xjepa_jax.config import HeadConfig
from xjepa_jax.model import spectrum
from xjepa_jax.model.gradients import DIRECTIONS, oriented_gradients
from xjepa_jax.model.layout import CanonicalLayout, GradientLayout, Source
from xjepa_jax.model.statistics import statistics

pytestmark = pytest.mark.usefixtures("compiled", "compiled_quickly")
CELLS, NUMBERS, SIZE, WIDTH = 8, 3, 100, 16
HEAD = HeadConfig(pooling="canonical", cells=CELLS, numbers=NUMBERS, size=SIZE)
chance = np.random.default_rng(0)
IMAGES = chance.normal(size=(2, 32, 32, 2)).astype(np.float32)
measure = jax.jit(oriented_gradients, static_argnums=1)
IMAGES[:, :10, :10] = 0  # its first cells have no pixel
TOKENS = chance.normal(size=(2, 16, WIDTH)).astype(np.float32)


def descriptors(layout: CanonicalLayout, sensor: str = "a", *given: Any) -> np.ndarray:
  """(B, K) of the images, by a compiled program."""
  tokens, indices, parts = (*given, None, None, None)[:3]
  return np.asarray(jax.jit(functools.partial(layout, sensor))(IMAGES, tokens, indices, parts))


def drawn(sources: Mapping[str, Source]) -> CanonicalLayout:
  """A layout with maps that are not those drawn."""
  layout = CanonicalLayout(HEAD, {"a": 2, "b": 2}, sources, nnx.Rngs(0))
  own = layout.maps["a"]
  own.kernel[...] = chance.normal(size=(DIRECTIONS, NUMBERS)).astype(np.float32)
  own.bias[...] = chance.normal(size=NUMBERS).astype(np.float32)
  own.scale[...] = chance.uniform(size=own.scale.shape).astype(np.float32)
  return layout


def of_images(layout: CanonicalLayout) -> np.ndarray:
  """(B, 8, 8, d) numbers of the images' own cells."""
  own = layout.maps["a"]
  gradients, seen = map(np.asarray, measure(IMAGES, CELLS))
  numbers = gradients @ np.asarray(own.kernel[...]) + np.asarray(own.bias[...])
  numbers[~seen] = 0
  return numbers.reshape(2, CELLS, CELLS, NUMBERS)


def described(layout: CanonicalLayout, numbers: np.ndarray) -> np.ndarray:
  """(B, K) of (B, 8, 8, d) numbers of cells."""
  found = fft.dctn(numbers, norm="ortho", axes=(1, 2)).reshape(2, -1, NUMBERS)
  found = found * np.asarray(layout.maps["a"].scale[...])[spectrum.rings(CELLS)]
  return found.reshape(2, -1)[:, spectrum.order(CELLS, NUMBERS)[:SIZE]]


def test_without_tokens_it_is_the_closed_form() -> None:
  layout = drawn({})
  found = descriptors(layout)
  assert found.shape == (2, SIZE) and found.dtype == np.float32
  np.testing.assert_allclose(found, described(layout, of_images(layout)), atol=1e-4)
  assert not np.allclose(found, descriptors(layout, "b"), atol=0.1)


def test_a_network_adds_nothing_before_training() -> None:
  layout = drawn({"tokens": Source(WIDTH, (4, 4)), "parts": Source(6, (8, 8))})
  parts = chance.normal(size=(2, 64, 6)).astype(np.float32)
  found = descriptors(layout, "a", TOKENS, None, parts)
  np.testing.assert_allclose(found, described(layout, of_images(layout)), atol=1e-4)


def trained(grid: tuple[int, int]) -> tuple[CanonicalLayout, np.ndarray, np.ndarray]:
  """A layout whose tokens say something, with the kernel and the bias of what they say."""
  layout = drawn({"tokens": Source(WIDTH, grid)})
  addition = layout.additions["tokens"]
  kernel, bias = addition.project.kernel, addition.project.bias
  assert bias is not None
  kernel[...] = chance.normal(size=kernel.shape).astype(np.float32)
  bias[...] = chance.normal(size=bias.shape).astype(np.float32)
  return layout, np.asarray(kernel[...]), np.asarray(bias[...])


@pytest.mark.parametrize("chosen", [None, [[3, 0, 14], [5, 6, 9]]])
def test_a_token_of_two_by_two_cells_adds_to_each_of_them(chosen: list[list[int]] | None) -> None:
  layout, kernel, bias = trained((4, 4))
  indices = None if chosen is None else np.array(chosen)
  tokens = TOKENS if chosen is None else TOKENS[:, :3]
  assert kernel.shape == (WIDTH, 2 * 2 * NUMBERS)
  numbers = of_images(layout)
  for sample in range(2):
    for number, place in enumerate(range(16) if chosen is None else chosen[sample]):
      row, column = divmod(place, 4)
      parts = (tokens[sample, number] @ kernel + bias).reshape(2, 2, NUMBERS)
      numbers[sample, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += parts
  found = descriptors(layout, "a", tokens, indices)
  np.testing.assert_allclose(found, described(layout, numbers), atol=1e-3)


def test_a_token_of_one_cell_adds_to_that_one() -> None:
  layout, kernel, bias = trained((8, 8))
  tokens = chance.normal(size=(2, 64, WIDTH)).astype(np.float32)
  numbers = of_images(layout) + (tokens @ kernel + bias).reshape(2, 8, 8, NUMBERS)
  found = descriptors(layout, "a", tokens)
  np.testing.assert_allclose(found, described(layout, numbers), atol=1e-3)


def test_several_tokens_of_a_cell_add_their_mean() -> None:
  layout, kernel, bias = trained((16, 24))
  tokens = chance.normal(size=(2, 16 * 24, WIDTH)).astype(np.float32)
  added = (tokens @ kernel + bias).reshape(2, 8, 2, 8, 3, NUMBERS).mean(axis=(2, 4))
  found = descriptors(layout, "a", tokens)
  np.testing.assert_allclose(found, described(layout, of_images(layout) + added), atol=1e-3)


def test_parts_add_to_their_cells_what_tokens_do_and_null_parts_nothing() -> None:
  layout = drawn({"tokens": Source(WIDTH, (4, 4)), "parts": Source(6, (8, 8))})
  kernel = layout.additions["parts"].project.kernel
  kernel[...] = chance.normal(size=kernel.shape).astype(np.float32)
  parts = chance.normal(size=(2, 64, 6)).astype(np.float32)
  parts[:, 10:20] = 0
  numbers = of_images(layout) + (parts @ np.asarray(kernel[...])).reshape(2, 8, 8, NUMBERS)
  found = descriptors(layout, "a", TOKENS, None, parts)
  np.testing.assert_allclose(found, described(layout, numbers), atol=1e-3)


def test_statistics_of_the_whole_image_are_mapped_as_one_cell_is() -> None:
  head = HeadConfig(pooling="statistics", numbers=5, size=5)
  layout = CanonicalLayout(head, {"a": 2}, {"tokens": Source(WIDTH, (4, 4))}, nnx.Rngs(0))
  own = layout.maps["a"]
  own.bias[...] = chance.normal(size=5).astype(np.float32)
  own.scale[...] = chance.uniform(size=(1, 5)).astype(np.float32)
  kernel = layout.additions["tokens"].project.kernel
  kernel[...] = chance.normal(size=(WIDTH, 5)).astype(np.float32)
  told = np.asarray(jax.jit(statistics)(IMAGES)[0])
  numbers = told @ np.asarray(own.kernel[...]) + np.asarray(own.bias[...])
  numbers += TOKENS.mean(axis=1) @ np.asarray(kernel[...])
  found = descriptors(layout, "a", TOKENS)
  np.testing.assert_allclose(found, numbers * np.asarray(own.scale[...]), atol=1e-3)


def test_patches_are_cells_whose_scalar_products_add_up_to_those_of_centred_descriptors() -> None:
  layout, _, _ = trained((4, 4))
  found = descriptors(layout, "a", TOKENS)
  centre = chance.normal(size=SIZE).astype(np.float32)
  patches = np.asarray(
    jax.jit(functools.partial(layout.patches, "a"))(IMAGES, TOKENS, None, centre)
  )
  assert patches.shape == (2, CELLS**2, NUMBERS)
  spectra = fft.dctn(patches.reshape(2, CELLS, CELLS, NUMBERS), norm="ortho", axes=(1, 2))
  kept = spectra.reshape(2, -1)[:, spectrum.order(CELLS, NUMBERS)[:SIZE]]
  np.testing.assert_allclose(kept, found - centre, atol=1e-3)


def test_gradients_are_a_cell_after_the_other_and_their_patches_centred() -> None:
  layout = GradientLayout(HeadConfig(pooling="gradients", cells=4, size=144))
  found = np.asarray(layout("a", jnp.asarray(IMAGES), None, None))
  expected = np.asarray(measure(IMAGES, 4)[0])
  np.testing.assert_allclose(found, expected.reshape(2, 144), atol=1e-6)
  centre = chance.normal(size=144).astype(np.float32)
  patches = layout.patches("a", jnp.asarray(IMAGES), None, None, jnp.asarray(centre))
  np.testing.assert_allclose(patches, expected - centre.reshape(16, 9), atol=1e-6)
