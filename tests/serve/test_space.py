"""The plane is that of a singular value decomposition, and pairs stay together on it."""

from __future__ import annotations

import numpy as np

from xjepa_jax.serve.archive import Archive
from xjepa_jax.serve.space import plane, principal_components


def test_the_plane_is_that_of_a_singular_value_decomposition() -> None:
  generator = np.random.default_rng(0)
  vectors = generator.normal(size=(50, 8)) * np.arange(1, 9)
  points, share = principal_components(vectors)
  left, values, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
  expected = left[:, :2] * values[:2]
  np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-9)
  np.testing.assert_allclose(share, (values[:2] ** 2).sum() / (values**2).sum())


def test_one_vector_and_vectors_of_one_number_have_a_plane_too() -> None:
  points, share = principal_components(np.ones((1, 4)))
  assert points.shape == (1, 2) and share == 0
  points, share = principal_components(np.array([[1.0], [-1.0]]))
  assert points.shape == (2, 2) and share == 1


def test_a_sample_takes_places_whole(archive: Archive) -> None:
  places = archive.ground.places
  found = plane(archive.files, places, most=40)
  assert 36 <= len(found.rows) <= 44
  for number in range(len(places)):
    rows = places.rows_of(np.array([number]))
    assert len(np.intersect1d(rows, found.rows)) in (0, len(rows))
  assert np.abs(found.points).max() == 1
