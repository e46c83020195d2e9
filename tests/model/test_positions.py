"""Positions: against their definitions, and what makes rotations worth having."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from tests.compiling import compiled
from tests.model import reference
from xjepa_jax.model.positions import coordinates, rotate, sincos, spacing


def test_coordinates_are_rows_and_columns_in_row_major_order() -> None:
  found = coordinates((2, 3), 0.5)
  expected = [(0.5 * row, 0.5 * column) for row in range(2) for column in range(3)]
  np.testing.assert_array_equal(found, np.array(expected, np.float32))
  assert found.dtype == np.float32


def test_metres_and_patches_agree_on_patches_of_80_metres() -> None:
  assert spacing("patches", 999.0) == 1.0
  assert spacing("metres", 80.0) == 1.0
  assert spacing("metres", 120.0) == 1.5


def test_sines_and_cosines_are_those_of_the_definition_and_tell_places_apart() -> None:
  places = coordinates((5, 7), 0.75)
  table = sincos(places, 24)
  np.testing.assert_allclose(table, reference.sincos(places, 24), atol=1e-7)
  assert table.dtype == np.float32
  distances = np.linalg.norm(table[:, None] - table[None], axis=-1)
  assert distances[~np.eye(35, dtype=bool)].min() > 0.1


def test_rotations_are_those_of_complex_numbers_and_keep_lengths() -> None:
  rng = np.random.default_rng(0)
  heads = rng.standard_normal((2, 6, 3, 16)).astype(np.float32)
  places = rng.uniform(-9, 9, (2, 6, 2)).astype(np.float32)
  found = compiled(rotate, heads, places)
  for sample in range(2):
    for head in range(3):
      expected = reference.rotated(heads[sample, :, head], places[sample].astype(np.float64))
      np.testing.assert_allclose(found[sample, :, head], expected, atol=2e-6)
  np.testing.assert_allclose(
    np.linalg.norm(found, axis=-1), np.linalg.norm(heads, axis=-1), rtol=1e-6
  )
  assert compiled(rotate, heads.astype(jnp.bfloat16), places).dtype == jnp.bfloat16


def test_scores_depend_on_the_difference_of_places_and_on_nothing_else() -> None:
  rng = np.random.default_rng(1)
  query, key = rng.standard_normal((2, 16)).astype(np.float32)
  differences = np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [2, 3], [1.5, -4]], np.float32)
  origins = rng.uniform(0, 40, (30, 1, 2)).astype(np.float32)

  def scores(origins: np.ndarray, differences: np.ndarray) -> jnp.ndarray:
    shape = (30, 6, 1, 16)  # 6 tokens of one head
    at = jnp.broadcast_to(origins, (30, 6, 2))
    queries = rotate(jnp.broadcast_to(query, shape), at)
    keys = rotate(jnp.broadcast_to(key, shape), at + differences)
    return (queries * keys).sum(axis=(-2, -1))

  found = compiled(scores, origins, differences)
  np.testing.assert_allclose(found, np.broadcast_to(found[:1], found.shape), atol=1e-4)
  np.testing.assert_allclose(found[:, 0], query @ key, atol=1e-4)
  assert np.abs(np.diff(np.sort(found[0]))).min() > 0.01  # six differences, six scores
