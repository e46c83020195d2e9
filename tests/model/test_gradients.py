"""Oriented gradients against SciPy's filters, and what fill, borders, turns and scalings do."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from xjepa_jax.model.gradients import DIRECTIONS, oriented_gradients

pytestmark = pytest.mark.usefixtures("compiled", "compiled_quickly")
measure = jax.jit(oriented_gradients, static_argnums=1)


def reference(image: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
  """(P, 9) and (P,) of an image (H, W, C) in float64, a pixel and a cell after the other."""
  image = image.astype(float)
  height, width, bands = image.shape
  seen = (image != 0).any(axis=-1).astype(float)
  known = np.maximum(_gaussian(seen, 1.25), 1e-3)
  whole = (_gaussian(seen, 1.0) > 0.99).astype(float)
  sizes = np.zeros((DIRECTIONS, height, width))
  smooth = [_gaussian(image[..., band], 1.25) / known for band in range(bands)]
  for direction in range(DIRECTIONS):
    angle = math.radians(180 / DIRECTIONS * direction)
    squares = np.full((height, width), 1e-6)
    for each in smooth:
      right = ndimage.correlate1d(each, [-0.5, 0, 0.5], axis=1, mode="nearest")
      down = ndimage.correlate1d(each, [-0.5, 0, 0.5], axis=0, mode="nearest")
      squares += (math.cos(angle) * right + math.sin(angle) * down) ** 2
    reach = (0.25 * height / cells, 0.25 * width / cells)
    sizes[direction] = _gaussian(np.sqrt(squares) * whole, reach)
  found, there = np.zeros((cells**2, DIRECTIONS)), np.zeros(cells**2, bool)
  for cell in range(cells**2):
    place = divmod(cell, cells)
    there[cell] = _mean(whole, place, cells) >= 0.25
    means = np.array([_mean(each, place, cells) for each in sizes])
    wide = [means[d - 1] / 4 + means[d] / 2 + means[(d + 1) % 9] / 4 for d in range(DIRECTIONS)]
    root = np.sqrt(np.maximum(wide, 1e-12))
    found[cell] = root / np.linalg.norm(root) if there[cell] else 0
  return found, there


def _gaussian(values: np.ndarray, sigma: float | tuple[float, float]) -> np.ndarray:
  return np.asarray(ndimage.gaussian_filter(values, sigma, mode="reflect", truncate=3))


def _mean(values: np.ndarray, place: tuple[int, int], cells: int) -> float:
  """Of a cell: every pixel is cut into cells x cells parts, of which each lies in one cell."""
  fine = values.repeat(cells, axis=0).repeat(cells, axis=1)
  rows, columns = (np.array_split(np.arange(size), cells) for size in fine.shape)
  return float(fine[np.ix_(rows[place[0]], columns[place[1]])].mean())


def textured(height: int, width: int, bands: int, seed: int = 0) -> np.ndarray:
  """(1, H, W, C) of fields with edges between them, and noise."""
  chance = np.random.default_rng(seed)
  fields = ndimage.gaussian_filter(chance.normal(size=(height, width)), 3) > 0
  image = fields[..., None] * chance.normal(size=bands) + 0.2 * chance.normal(
    size=(height, width, bands)
  )
  return (image + 0.01)[None].astype(np.float32)


def gradients(image: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
  """(P, 9) and (P,) of one image."""
  found, there = measure(image, cells)
  assert found.dtype == np.float32 and found.shape == (1, cells**2, DIRECTIONS)
  assert there.dtype == bool and there.shape == (1, cells**2)
  return np.asarray(found[0]), np.asarray(there[0])


@pytest.mark.parametrize(
  ("height", "width", "bands", "cells"),
  [(32, 32, 2, 4), (50, 60, 3, 8), (24, 40, 1, 5), (5, 3, 1, 8)],
)
def test_gradients_are_those_of_scipys_filters(
  height: int, width: int, bands: int, cells: int
) -> None:
  image = textured(height, width, bands)
  found, there = gradients(image, cells)
  expected, seen = reference(image[0], cells)
  np.testing.assert_allclose(found, expected, atol=2e-5)
  np.testing.assert_array_equal(there, seen)


def test_fill_and_a_missing_band_are_those_of_scipys_filters() -> None:
  image = textured(50, 60, 3)
  image[:, :17, :30] = 0
  image[:, 25:29, 40:] = 0
  image[..., 1] = 0
  found, there = gradients(image, 8)
  expected, seen = reference(image[0], 8)
  np.testing.assert_allclose(found, expected, atol=2e-5)
  np.testing.assert_array_equal(there, seen)
  assert 0 < there.sum() < there.size


@pytest.mark.parametrize("direction", range(DIRECTIONS))
def test_a_ramp_is_largest_in_its_own_direction(direction: int) -> None:
  angle = math.radians(20 * direction)
  rows, columns = np.indices((32, 32))
  ramp = (1 + math.cos(angle) * columns + math.sin(angle) * rows)[None, ..., None] / [10, 20]
  found, there = gradients(ramp.astype(np.float32), 4)
  assert there.all()
  inner = found.reshape(4, 4, DIRECTIONS)[1:3, 1:3].reshape(-1, DIRECTIONS)
  np.testing.assert_array_equal(inner.argmax(axis=-1), direction)


def test_fill_changes_no_cell_that_it_does_not_reach() -> None:
  image = textured(64, 64, 2)
  painted = image.copy()
  painted[:, :20, :20] = 0
  (before, _), (after, there) = gradients(image, 8), gradients(painted, 8)
  # A cell reaches 6 pixels beyond its border, and what lies there 5 more.
  far = [cell for cell in range(64) if max(divmod(cell, 8)) * 8 >= 20 + 11]
  assert len(far) >= 48
  np.testing.assert_allclose(after[far], before[far], atol=1e-6)
  covered = [8 * row + column for row in range(2) for column in range(2)]
  assert not there[covered].any() and there[far].all()
  np.testing.assert_array_equal(after[covered], 0)


@pytest.mark.parametrize("size", [(50, 60, 3), (5, 3, 1), (1, 1, 2)])
@pytest.mark.parametrize("content", ["fill", "constant", "one band missing", "one pixel seen"])
def test_whatever_an_image_shows_a_cell_has_length_one_or_is_marked_and_0(
  size: tuple[int, int, int], content: str
) -> None:
  image = textured(*size)
  if content in ("fill", "one pixel seen"):
    image[:] = 0
  if content == "constant":
    image[:] = 3
  if content == "one band missing":
    image[..., 0] = 0
  if content == "one pixel seen":
    image[:, size[0] // 2, size[1] // 2] = 5
  found, there = gradients(image, 8)
  assert np.isfinite(found).all() and (found >= 0).all()
  np.testing.assert_allclose(np.linalg.norm(found, axis=-1), there.astype(float), atol=1e-5)
  nothing = content == "fill" or (content == "one band missing" and size[2] == 1)
  assert there.any() != nothing or (content == "one pixel seen" and size[0] > 1)
  if content == "constant":
    np.testing.assert_allclose(found, 1 / 3, atol=1e-5)


@pytest.mark.parametrize("factor", [0.2, 50.0, -1.0])
def test_contrast_changes_hardly_anything(factor: float) -> None:
  image = textured(32, 32, 2)
  (before, _), (after, _) = gradients(image, 4), gradients(factor * image, 4)
  np.testing.assert_allclose(after, before, atol=2e-3)


@settings(max_examples=10, deadline=None)
@given(
  st.sampled_from([(32, 32, 4), (24, 40, 5)]),
  st.booleans(),
  st.booleans(),
  st.integers(0, 2**16),
)
def test_a_mirrored_or_turned_image_has_the_mirrored_or_turned_cells(
  size: tuple[int, int, int], down: bool, right: bool, seed: int
) -> None:
  height, width, cells = size
  image = textured(height, width, 2 if height == width else 1, seed)
  image[:, : seed % 7] = 0
  axes = tuple(axis for axis, flipped in enumerate((down, right)) if flipped)
  mirrored = np.flip(image, tuple(axis + 1 for axis in axes))
  before, seen = gradients(image, cells)
  expected = np.flip(before.reshape(cells, cells, DIRECTIONS), axes)
  if down != right:  # a direction at an angle is then at its negative
    expected = expected[..., -np.arange(DIRECTIONS) % DIRECTIONS]
  after, there = gradients(mirrored, cells)
  np.testing.assert_allclose(after, expected.reshape(-1, DIRECTIONS), atol=1e-4)
  np.testing.assert_array_equal(there.reshape(cells, cells), np.flip(seen.reshape(cells, -1), axes))


def test_a_quarter_turn_puts_each_direction_between_two_of_the_others() -> None:
  image = textured(32, 32, 2)
  before, _ = gradients(image, 4)
  after, _ = gradients(np.rot90(image, axes=(1, 2)).copy(), 4)
  turned = np.rot90(before.reshape(4, 4, DIRECTIONS)) ** 2
  # Nine directions are 20 degrees apart, so that 90 degrees are four and a half of them.
  between = (np.roll(turned, -4, axis=-1) + np.roll(turned, -5, axis=-1)) / 2
  np.testing.assert_allclose(after.reshape(4, 4, DIRECTIONS) ** 2, between, atol=0.015)
