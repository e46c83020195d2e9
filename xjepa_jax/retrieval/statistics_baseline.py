"""Image statistics as vectors that a protocol can rank, a baseline without a network.

Within a sensor statistics are compared directly, across sensors only after a ridge regression has
predicted one sensor's from the other's.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from xjepa_jax.errors import EvaluationError
from xjepa_jax.retrieval.directions import unit_rows
from xjepa_jax.retrieval.image_statistics import Standard, fit_ridge
from xjepa_jax.retrieval.scene_vectors import SceneVectors

FITTED_PAIRS = 2000  # training pairs for the regression


def as_vectors(tested: SceneVectors, training: SceneVectors) -> SceneVectors:
  """Statistics as vectors that can be ranked: plain within a sensor, predicted across sensors.

  Args:
    tested: query and archive scenes, whose vectors are the result of `image_statistics`.
    training: scenes for fitting means, deviations and regressions, in the same form.

  Returns:
    Unit vectors: standardised statistics, and one sensor's statistics predicted from another's by
    ridge regression. A sensor without a valid training image is omitted.
  """
  vectors, predicted = {}, {}
  for key, values in tested.vectors.items():
    known = training.vectors[key][training.present[key]]
    if np.isfinite(known).all(axis=1).any():
      vectors[key] = unit_rows(Standard.of(known).apply(values), tested.present[key])
  for one, other in itertools.permutations(vectors, 2):
    both = training.present[one] & training.present[other]
    try:
      ridge = fit_ridge(training.vectors[one][both], training.vectors[other][both])
    except EvaluationError:  # no training pair has both sensors, so there is no baseline
      continue
    raw = ridge.source.apply(tested.vectors[one]) @ ridge.weights
    predicted[f"{one}->{other}"] = unit_rows(raw, tested.present[one])
  # Statistics of two sensors mean different things, so only predicted ones are compared.
  return dataclasses.replace(tested, vectors=vectors, predicted=predicted, one_space=False)
