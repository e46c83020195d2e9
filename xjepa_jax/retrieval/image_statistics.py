"""A baseline without a network: statistics of each band, and a linear map between two sensors'.

A frozen image-statistics baseline is strong in nearest-neighbour tests, so it belongs beside every
model. Two sensors' statistics have different meanings: a ridge regression, fitted on training
pairs, predicts one sensor's from the other's.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from xjepa_jax.errors import EvaluationError
from xjepa_jax.sensors import Sensor

METHOD = "image statistics"
PERCENTILES = (5, 25, 50, 75, 95)
# Of the number of training pairs; features are standardised.
RIDGE = 0.1


def image_statistics(sensor: Sensor, stored: np.ndarray) -> np.ndarray:
  """Mean, deviation and percentiles of every band, over the pixels that were seen.

  Args:
    sensor: what the values are.
    stored: (P, H, W, C) values as stored.

  Returns:
    (P, C * 7) float64 in the sensor's units: the means of all bands, then their deviations, then
    each percentile. NaN for a band of which nothing was seen.
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
  """Mean and deviation (F,) of training features; a constant feature has deviation 1."""

  mean: np.ndarray
  deviation: np.ndarray

  @classmethod
  def of(cls, features: np.ndarray) -> Standard:
    """Those of the rows (P, F) that were seen.

    Raises:
      EvaluationError: no row was.
    """
    rows = features[np.isfinite(features).all(axis=1)]
    if not len(rows):
      raise EvaluationError("no training image has a seen pixel, so there are no statistics.")
    deviation = rows.std(axis=0)
    return cls(rows.mean(axis=0), np.where(deviation > 0, deviation, 1.0))

  def apply(self, features: np.ndarray) -> np.ndarray:
    """Features (P, F) in deviations from the mean; 0, the mean, for an image with no seen pixel."""
    return np.nan_to_num((features - self.mean) / self.deviation, nan=0.0)


@dataclasses.dataclass(frozen=True)
class RidgeMap:
  """Predicts standardised statistics of one sensor from another's: x W, with W (F, G)."""

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
    source: (P, F) statistics of the sensor that asks.
    target: (P, G) those of the sensor that is searched, of the same scenes.
    ridge: the penalty, a share of P.

  Raises:
    EvaluationError: the numbers of rows differ, or no image has a seen pixel.
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
