"""The token similarity map."""

import numpy as np

from xjepa_jax.retrieval.searching.explain import SIDE, explanation, matches, similarities


def test_similarity_is_the_cosine_of_every_two_patches():
  rng = np.random.default_rng(0)
  query, hit = rng.normal(size=(6, 5)), rng.normal(size=(4, 5))
  expected = [
    [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in hit.astype(float)]
    for a in query.astype(float)
  ]
  np.testing.assert_allclose(similarities(query, hit), expected, rtol=1e-5)


def test_a_patch_without_content_matches_nothing():
  assert not similarities(np.zeros((2, 3)), np.ones((4, 3))).any()


def test_matches_are_mutual_and_best_first():
  similarity = np.array([[0.9, 0.8, 0.1], [0.95, 0.2, 0.3], [0.0, 0.1, 0.4]])
  # Patch 0 prefers 0, which prefers 1: no match. 1 and 0, 2 and 2 are each other's best.
  assert [(m.query, m.hit) for m in matches(similarity)] == [(1, 0), (2, 2)]


def test_a_scene_turned_by_a_half_is_matched_patch_by_patch():
  rng = np.random.default_rng(1)
  patches = rng.normal(size=(16, 8))
  found = matches(similarities(patches, patches[::-1]), most=16)
  assert {(match.query, match.hit) for match in found} == {(i, 15 - i) for i in range(16)}


def test_the_picture_has_both_images_and_a_red_map_where_they_agree():
  query = np.full((8, 8, 3), 10, np.uint8)
  hit = np.full((8, 8, 3), 240, np.uint8)
  image = np.asarray(explanation(query, hit, np.eye(4), ((2, 2), (2, 2)), "a and b"))
  middle = image.shape[0] // 2
  assert (image[middle, 16 + 30] == 10).all()
  assert (image[middle, 16 + SIDE + 48 + 30] == 240).all()
  red, green, blue = image[middle, -30].astype(int)
  assert red > 150 and green < 60 and blue < 80
