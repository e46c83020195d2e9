"""A baseline without a network: statistics of each band, and a linear map between two sensors.

A frozen image-statistics baseline is strong in nearest-neighbour tests, so it belongs beside every
model. Since the statistics of two sensors mean different things, a ridge regression fitted on
training pairs predicts one sensor's from the other's.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from xjepa_jax.errors import EvaluationError
from xjepa_jax.sensors import Sensor

METHOD = "image statistics"
PERCENTILES = (5, 25, 50, 75, 95)
# Penalty as a fraction of the number of training pairs; features are standardised.
RIDGE = 0.1


def image_statistics(sensor: Sensor, stored: np.ndarray) -> np.ndarray:
  """Mean, standard deviation and percentiles of every band, over the valid pixels.

  Args:
    sensor: description of the stored values.
    stored: (P, H, W, C) values as stored.

  Returns:
    (P, C * 7) float64 in the sensor's units: the means of all bands, then their standard
    deviations, then each percentile. NaN for a band without a valid pixel.
  """
  known = sensor.known(stored)
  bands = stored.shape[-1]
  features = np.full((len(stored), 2 + len(PERCENTILES), bands), np.nan)
  calibrated = sensor.calibrate(stored)
  for row, band in np.ndindex(len(stored), bands):
    values = calibrated[row, ..., band][known[row, ..., band]].astype(np.float64)
    if len(values):
      features[row, :, band] = values.mean(), values.std(), *np.percentile(values, PERCENTILES)
  return features.reshape(len(stored), -1)


@dataclasses.dataclass(frozen=True)
class Standard:
  """Mean and standard deviation (F,) of training features; 1 for those that are constant."""

  mean: np.ndarray
  deviation: np.ndarray

  @classmethod
  def of(cls, features: np.ndarray) -> Standard:
    """Statistics over the rows of features (P, F) that are finite.

    Raises:
      EvaluationError: no row is finite.
    """
    rows = features[np.isfinite(features).all(axis=1)]
    if not len(rows):
      raise EvaluationError("no training image has a seen pixel, so there are no statistics.")
    deviation = rows.std(axis=0)
    return cls(rows.mean(axis=0), np.where(deviation > 0, deviation, 1.0))

  def apply(self, features: np.ndarray) -> np.ndarray:
    """Standardised features (P, F); an image without a valid pixel gets 0, which is the mean."""
    return np.nan_to_num((features - self.mean) / self.deviation, nan=0.0)


@dataclasses.dataclass(frozen=True)
class RidgeMap:
  """Predicts one sensor's standardised statistics from another's: x W, with W (F, G)."""

  source: Standard
  target: Standard
  weights: np.ndarray

  def similarity(self, queries: np.ndarray, archive: np.ndarray) -> np.ndarray:
    """Cosines of predicted (Q, F -> G) and actual (A, G) standardised statistics.

    Returns:
      (Q, A) float64; 0 for a null vector.
    """
    return _cosine(self.source.apply(queries) @ self.weights, self.target.apply(archive))


def fit_ridge(source: np.ndarray, target: np.ndarray, ridge: float = RIDGE) -> RidgeMap:
  """The linear map that minimises |X W - Y|^2 + ridge P |W|^2 over P training pairs.

  Args:
    source: (P, F) statistics of the query sensor.
    target: (P, G) statistics of the archive sensor for the same scenes.
    ridge: the penalty, as a fraction of P.

  Raises:
    EvaluationError: the numbers of rows differ, or no image has a valid pixel.
  """
  if len(source) != len(target):
    raise EvaluationError(f"{len(source)} and {len(target)} images are no training pairs.")
  both = np.isfinite(source).all(axis=1) & np.isfinite(target).all(axis=1)
  from_, to = Standard.of(source[both]), Standard.of(target[both])
  x, y = from_.apply(source[both]), to.apply(target[both])
  weights = np.linalg.solve(x.T @ x + ridge * len(x) * np.eye(x.shape[1]), x.T @ y)
  return RidgeMap(from_, to, weights)


def similarity_within(training: np.ndarray, queries: np.ndarray, archive: np.ndarray) -> np.ndarray:
  """Cosines (Q, A) of one sensor's statistics, standardised with training images' (P, F)."""
  standard = Standard.of(training)
  return _cosine(standard.apply(queries), standard.apply(archive))


def _cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
  lengths = [np.linalg.norm(values, axis=1, keepdims=True) for values in (one, other)]
  one, other = (
    values / np.where(length > 0, length, 1.0)
    for values, length in zip((one, other), lengths, strict=True)
  )
  return one @ other.T
