"""Like these, unlike those."""

import numpy as np
import pytest

from xjepa_jax.errors import SearchError
from xjepa_jax.retrieval.searching.feedback import combine


def test_one_example_is_itself():
  vector = np.array([[0.6, 0.8]], np.float32)
  np.testing.assert_allclose(combine(vector), vector[0], rtol=1e-6)


def test_it_is_rocchio_s_formula_of_length_1():
  positive = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
  negative = np.array([[0.0, 0.0, 1.0]])
  # (.5, .5, 0) - .5 (0, 0, 1), each entry of size .5
  np.testing.assert_allclose(combine(positive, negative), np.array([1, 1, -1]) / np.sqrt(3), 1e-6)


def test_what_is_not_wanted_falls_in_the_ranking():
  rng = np.random.default_rng(0)
  archive = rng.normal(size=(200, 16))
  archive /= np.linalg.norm(archive, axis=1, keepdims=True)
  plain, unlike = combine(archive[:2]), combine(archive[:2], archive[5:6])
  place = lambda query: int((archive @ query > archive[5] @ query).sum())  # noqa: E731
  assert place(unlike) > place(plain)


def test_examples_that_cancel_and_none_at_all_are_refused():
  vector = np.array([[1.0, 0.0]])
  with pytest.raises(SearchError, match="cancel"):
    combine(vector, vector, weight=1.0)
  with pytest.raises(SearchError, match="at least one"):
    combine(np.zeros((0, 2)), vector)
