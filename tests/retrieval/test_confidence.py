"""Confidence: calibrated, whatever the archive's size."""

import json

import numpy as np
import pytest

from xjepa_jax.errors import EvaluationError
from xjepa_jax.retrieval import confidence


def draw(rng, queries, archive, distance=3.0):
  """Scores of which the true one is drawn from a normal distribution of another mean."""
  scores = rng.normal(0.0, 1.0, (queries, archive))
  own = rng.integers(0, archive, queries)
  scores[np.arange(queries), own] += distance
  return scores, own


def fit(rng, queries, archive):
  fitted = confidence.fit_confidence(*draw(rng, queries, archive))
  assert fitted is not None
  return fitted


def best(scores, own, k):
  """The k best scores of each query, and which of them is the true one."""
  order = np.argsort(-scores, axis=1)[:, :k]
  return np.take_along_axis(scores, order, axis=1), order == own[:, None]


@pytest.mark.parametrize("archive", [50, 400])
def test_of_answers_given_a_confidence_as_many_are_true(archive):
  said_and_true = judged(archive)
  for low, high in BINS:
    said, true = said_and_true(low, high)
    assert abs(said - true) < 0.09, (low, high)


def test_in_an_archive_larger_than_the_fitted_one_it_never_promises_too_much():
  said_and_true = judged(3000)
  for low, high in BINS:
    said, true = said_and_true(low, high)
    # 400 queries cannot show a ratio as large as the best scores here have: it says less.
    assert -0.15 < said - true < 0.05, (low, high)


BINS = ((0.02, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0))


def judged(archive):
  """Fits among 400 scenes; what is said, and is true, of answers in an archive of a size."""
  rng = np.random.default_rng(0)
  fitted = fit(rng, 400, 400)
  scores, own = draw(rng, 1500, archive)
  top, true = best(scores, own, 10)
  said = fitted.of(top, archive)

  def of(low, high):
    chosen = (said >= low) & (said < high)
    assert chosen.sum() > 40
    return said[chosen].mean(), true[chosen].mean()

  return of


def test_it_is_bayes_rule_where_the_ratio_is_known():
  known = confidence.Confidence(np.array([0.0, 1.0]), np.log([1.0, 9.0]), np.array([0.0, 0.4]), 100)
  # Ratios 9 and 3 (half way on a logarithmic scale); 10 x .2 of the others.
  found = known.of(np.array([[1.0, 0.5]]), 10)
  np.testing.assert_allclose(found, [[9 / 14, 3 / 14]])


def test_answers_that_are_not_there_get_none_and_all_together_never_exceed_one():
  known = confidence.Confidence(
    np.array([0.0, 1.0]), np.array([0.0, 5.0]), np.array([0.0, 0.4]), 100
  )
  found = known.of(np.array([[0.9, 0.8, -np.inf], [-np.inf, -np.inf, -np.inf]]), 2)
  assert found[0, 2] == 0
  assert found[0].sum() == pytest.approx(1)
  assert not found[1].any()


def test_a_better_score_is_never_worth_less():
  fitted = fit(np.random.default_rng(1), 60, 60)
  said = [fitted.of(np.array([[score, -5.0]]), 60)[0, 0] for score in np.linspace(-5, 8, 200)]
  assert np.all(np.diff(said) >= 0)


def test_directions_are_fitted_on_pairs_that_have_both_sensors():
  rng = np.random.default_rng(2)
  scenes = rng.normal(size=(40, 8))
  descriptors = {key: scenes + 0.3 * rng.normal(size=scenes.shape) for key in ("a", "b", "c")}
  descriptors = {
    key: value / np.linalg.norm(value, axis=1, keepdims=True) for key, value in descriptors.items()
  }
  present = {"a": np.ones(40, bool), "b": np.arange(40) < 30, "c": np.arange(40) < 5}
  found = confidence.fit_directions(descriptors, present)
  assert set(found) == {"a->b", "b->a"}  # five pairs with c are too few
  assert found["a->b"].queries == 30


def test_it_survives_json():
  fitted = fit(np.random.default_rng(3), 100, 100)
  again = confidence.from_json(json.loads(json.dumps(confidence.to_json(fitted))))
  scores = np.array([[3.0, 2.0, 0.5]])
  np.testing.assert_allclose(again.of(scores, 100), fitted.of(scores, 100), atol=1e-3)


def test_an_own_scene_outside_the_archive_is_refused():
  with pytest.raises(EvaluationError, match="not of the archive"):
    confidence.fit_confidence(np.zeros((20, 20)), np.full(20, 20))
