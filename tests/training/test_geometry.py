"""The geometry of descriptors, against closed forms and loops over scenes and tokens."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cosine, pdist

from xjepa_jax.errors import EvaluationError
from xjepa_jax.training import geometry


def test_rankme_is_exp_of_the_entropy_of_the_singular_values() -> None:
  rng = np.random.default_rng(0)
  values = rng.normal(size=(50, 8)) * np.linspace(0.1, 3, 8)
  # Singular values by another way: roots of the Gram matrix's eigenvalues.
  singular = np.sqrt(np.linalg.eigvalsh(values.T @ values))
  expected = np.exp(stats.entropy(singular))
  assert geometry.rankme(values) == pytest.approx(expected, rel=1e-9)


def test_rankme_counts_the_directions_of_an_orthogonal_set() -> None:
  assert geometry.rankme(np.eye(20)[:7]) == pytest.approx(7)
  assert geometry.rankme(np.ones((20, 16))) == pytest.approx(1)
  assert geometry.rankme(np.zeros((20, 16))) == 0


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20)
def test_rankme_does_not_depend_on_scale_or_rotation(seed: int) -> None:
  rng = np.random.default_rng(seed)
  values = rng.normal(size=(12, 5))
  rotation = stats.ortho_group.rvs(5, random_state=rng)
  assert geometry.rankme(7 * values @ rotation) == pytest.approx(geometry.rankme(values))


def test_deviation_is_an_even_share_on_the_sphere_and_zero_at_a_point() -> None:
  values = np.random.default_rng(0).normal(size=(4000, 64))
  np.testing.assert_allclose(geometry.deviations(values), 1 / 8, rtol=0.1)
  assert geometry.deviations(np.ones((10, 4))).max() == pytest.approx(0, abs=1e-12)


def test_the_gap_is_the_distance_of_the_means_and_relative_to_the_spread() -> None:
  # Each side: two points at +-45 degrees about its axis; means at cos 45 on either axis.
  one = np.array([[1.0, 1.0], [1.0, -1.0]]) * 3
  other = -one
  gap, relative = geometry.modality_gap(one, other)
  assert gap == pytest.approx(2 * math.cos(math.pi / 4))
  assert relative == pytest.approx(gap / math.sin(math.pi / 4))
  assert geometry.modality_gap(one, one) == (0, 0)
  assert geometry.modality_gap(np.ones((3, 2)), -np.ones((3, 2)))[1] > 1e6


def test_alignment_and_uniformity_are_those_of_wang_and_isola() -> None:
  rng = np.random.default_rng(0)
  one, other = rng.normal(size=(1100, 5)), rng.normal(size=(1100, 5))
  units = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (one, other)]
  pairs = zip(one, other, strict=True)
  assert geometry.alignment(one, other) == pytest.approx(np.mean([2 * cosine(*p) for p in pairs]))
  expected = np.log(np.mean(np.exp(-2 * pdist(units[0], "sqeuclidean"))))
  assert geometry.uniformity(one) == pytest.approx(expected)
  assert geometry.uniformity(np.ones((9, 3))) == pytest.approx(0, abs=1e-12)


def loop_positional(predicted: np.ndarray, target: np.ndarray, positions: np.ndarray) -> float:
  differences = []
  samples, tokens, _ = predicted.shape
  for b, m in itertools.product(range(samples), range(tokens)):
    others = [
      1 - cosine(predicted[b, m], target[c, n])
      for c, n in itertools.product(range(samples), range(tokens))
      if c != b and positions[c, n] == positions[b, m]
    ]
    if others:
      differences.append(1 - cosine(predicted[b, m], target[b, m]) - np.mean(others))
  return float(np.mean(differences))


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=25)
def test_positional_collapse_matches_tokens_by_their_positions(seed: int) -> None:
  rng = np.random.default_rng(seed)
  predicted, target = rng.normal(size=(2, 4, 6, 3))
  # Positions differ between samples, and repeat within one where blocks overlap.
  positions = rng.integers(0, 9, (4, 6))
  ours = geometry.positional_collapse(predicted, target, positions)
  assert ours == pytest.approx(loop_positional(predicted, target, positions))


def test_a_prediction_of_the_mean_target_of_each_position_is_collapsed() -> None:
  rng = np.random.default_rng(0)
  mean = rng.normal(size=(1, 10, 64))
  # Scenes differ along axes of their own, so every target is equally near to the mean's direction.
  scene = np.zeros((6, 10, 70))
  scene[:, :, :64] = mean
  scene[np.arange(6), :, 64 + np.arange(6)] = 8.0
  positions = np.tile(np.arange(10), (6, 1))
  flat = np.broadcast_to(np.concatenate([mean, np.zeros((1, 10, 6))], axis=2), scene.shape)
  assert geometry.positional_collapse(flat, scene, positions) == pytest.approx(0, abs=1e-12)
  assert geometry.positional_collapse(scene, scene, positions) > 0.3
  apart = np.arange(60).reshape(6, 10)  # no position in two samples
  assert math.isnan(geometry.positional_collapse(scene, scene, apart))


def test_the_share_of_position_is_that_of_a_loop_over_tokens() -> None:
  rng = np.random.default_rng(0)
  tokens = rng.normal(size=(7, 5, 3)) + rng.normal(size=(1, 5, 3)) + 10  # a constant counts nowhere
  middle = tokens.reshape(-1, 3).mean(axis=0)
  places = [tokens[:, n].mean(axis=0) - middle for n in range(5)]
  every = [tokens[b, n] - middle for b in range(7) for n in range(5)]
  expected = np.mean([p @ p for p in places]) / np.mean([t @ t for t in every])
  found = geometry.position_share(tokens.sum(axis=0), float(np.square(tokens).sum()), 7)
  assert found == pytest.approx(expected)


def test_tokens_that_say_their_place_alone_are_all_position_and_scenes_without_place_none() -> None:
  rng = np.random.default_rng(0)
  place = np.tile(rng.normal(size=(1, 9, 4)), (50, 1, 1))
  scene = np.tile(rng.normal(size=(50, 1, 4)), (1, 9, 1))
  for tokens, share in ((place, 1.0), (scene, 0.0)):
    squares = float(np.square(tokens).sum())
    assert geometry.position_share(tokens.sum(axis=0), squares, 50) == pytest.approx(share)
  assert math.isnan(geometry.position_share(np.zeros((9, 4)), 0.0, 0))
  assert math.isnan(geometry.position_share(np.zeros((9, 4)), 0.0, 50))


def test_a_description_has_each_measure_of_the_scenes_that_are_there() -> None:
  rng = np.random.default_rng(0)
  descriptors = {"a": rng.normal(size=(20, 6)), "b": rng.normal(size=(20, 6))}
  present = {"a": np.arange(20) < 15, "b": np.arange(20) >= 5}
  descriptors["a"][15:] = np.nan  # must not be read
  tokens = rng.normal(size=(3, 4, 5))
  predictions = {
    "a->b": (tokens, tokens, np.zeros((3, 4), int)),
    "b->a": (tokens, tokens, np.arange(12).reshape(3, 4)),
    "b->b": (tokens[:0], tokens[:0], np.zeros((0, 4), int)),
  }
  got = geometry.describe_geometry(descriptors, present, predictions)
  assert set(got) == {
    *("rankme/a", "deviation_min/a", "deviation_mean/a", "uniformity/a"),
    *("rankme/b", "deviation_min/b", "deviation_mean/b", "uniformity/b"),
    *("gap/a-b", "gap_relative/a-b", "alignment/a-b", "positional/a->b"),
  }
  assert all(math.isfinite(value) for value in got.values())
  assert got["rankme/a"] == geometry.rankme(descriptors["a"][:15])
  both = slice(5, 15)
  expected = geometry.alignment(descriptors["a"][both], descriptors["b"][both])
  assert got["alignment/a-b"] == expected


def test_a_diverged_run_is_told_so() -> None:
  with pytest.raises(EvaluationError, match="of b are not finite: the run diverged"):
    geometry.describe_geometry({"a": np.ones((3, 2)), "b": np.full((3, 2), np.nan)})
  with pytest.raises(EvaluationError, match="one a scene"):
    geometry.describe_geometry({"a": np.ones((3, 2)), "b": np.ones((4, 2))})
