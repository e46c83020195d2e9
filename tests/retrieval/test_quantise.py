"""Fewer bits and fewer numbers, against definitions in plain NumPy and bounds that must hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xjepa_jax.errors import EvaluationError
from xjepa_jax.retrieval import quantise
from xjepa_jax.retrieval.quantise import KINDS, archive_side, bytes_a_vector, cut, query_side

RNG = np.random.default_rng(0)


def units(rows: int, size: int) -> np.ndarray:
  values = RNG.normal(size=(rows, size))
  return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


VECTORS = units(50, 37)


def test_bytes_are_those_that_are_stored() -> None:
  assert [bytes_a_vector(512, kind) for kind in KINDS] == [2048, 1024, 516, 64, 64]
  assert bytes_a_vector(37, "binary") == quantise.signs_packed(VECTORS).shape[1] == 5
  with pytest.raises(EvaluationError, match="no quantisation 'int4'; there are float32, float16"):
    bytes_a_vector(8, "int4")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_compared_has_length_one_and_points_the_same_way(kind: str) -> None:
  stored = archive_side(VECTORS, kind)
  assert stored.dtype == np.float32
  np.testing.assert_allclose(np.linalg.norm(stored, axis=1), 1, atol=1e-5)
  cosines = np.sum(stored * VECTORS, axis=1)
  least = {"float32": 1 - 1e-6, "float16": 1 - 1e-5, "int8": 0.999, "binary": 0.6, "hamming": 0.6}
  assert cosines.min() > least[kind]
  asking = query_side(VECTORS, kind)
  np.testing.assert_array_equal(asking, stored if kind == "hamming" else VECTORS)


def test_eight_bits_are_a_scale_a_vector_and_no_number_is_off_by_more_than_half_of_it() -> None:
  scale = np.abs(VECTORS).max(axis=1, keepdims=True) / 127
  codes = np.rint(VECTORS / scale)
  expected = codes / np.linalg.norm(codes, axis=1, keepdims=True)
  np.testing.assert_allclose(archive_side(VECTORS, "int8"), expected, atol=1e-6)
  assert np.abs(codes * scale - VECTORS).max() <= scale.max() / 2 * (1 + 1e-5)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 70), st.integers(0, 2**31))
def test_signs_survive_packing_and_their_product_ranks_as_the_hamming_distance(
  size: int, seed: int
) -> None:
  values = np.random.default_rng(seed).normal(size=(7, size)).astype(np.float32)
  codes = quantise.signs_packed(values)
  restored = quantise.signs_restored(codes, size)
  np.testing.assert_array_equal(restored > 0, values > 0)
  product = restored @ restored.T
  loop = [[int(np.sum((a > 0) != (b > 0))) for b in values] for a in values]
  np.testing.assert_array_equal(quantise.hamming(codes, codes), loop)
  np.testing.assert_allclose(product, 1 - 2 * np.array(loop) / size, atol=1e-5)


def test_a_cut_vector_is_its_beginning_of_length_one() -> None:
  found = cut(VECTORS, 5)
  expected = VECTORS[:, :5] / np.linalg.norm(VECTORS[:, :5], axis=1, keepdims=True)
  np.testing.assert_allclose(found, expected, atol=1e-6)
  assert not cut(np.zeros((1, 4), np.float32), 2).any()
  with pytest.raises(EvaluationError, match="vectors of 37 numbers cannot be cut to 38"):
    cut(VECTORS, 38)
