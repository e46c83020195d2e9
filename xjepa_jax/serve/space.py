"""The descriptor space on a plane: principal components of a sample, pairs kept together."""

from __future__ import annotations

import dataclasses

import numpy as np

from xjepa_jax.retrieval.embedding.files import EmbeddingFiles
from xjepa_jax.serve.ground import Places, spread

_ROWS = 4000


@dataclasses.dataclass(frozen=True)
class Plane:
  """A sample of the archive on a plane.

  Attributes:
    rows: (n,) of the archive.
    points: (n, 2) between -1 and 1, both axes on one scale.
    share: of the sample's variance that the plane shows, between 0 and 1.
  """

  rows: np.ndarray
  points: np.ndarray
  share: float


def plane(files: EmbeddingFiles, places: Places, most: int = _ROWS) -> Plane:
  """The two principal components of a sample.

  Args:
    files: of the archive.
    places: of the archive; one is taken with all its rows or left out.
    most: rows, about.
  """
  total = len(places.rows)
  if not total:
    return Plane(np.zeros(0, np.int64), np.zeros((0, 2)), 0.0)
  taken = spread(len(places), max(round(len(places) * min(most / total, 1.0)), 1))
  rows = places.rows_of(taken)
  vectors = np.asarray(files.vectors_of(rows), np.float64)
  points, share = principal_components(vectors)
  return Plane(rows, points / max(float(np.abs(points).max()), 1e-12), share)


def principal_components(vectors: np.ndarray) -> tuple[np.ndarray, float]:
  """Coordinates along the two directions of most variance, and the share of it that they hold.

  Args:
    vectors: (n, K) float64, n at least 1.

  Returns:
    (n, 2), each direction turned so that its largest component is positive; and the share.
  """
  centred = vectors - vectors.mean(axis=0)
  values, directions = np.linalg.eigh(centred.T @ centred)
  first = directions[:, ::-1][:, :2]
  if first.shape[1] < 2:  # descriptors of one number
    first = np.pad(first, ((0, 0), (0, 1)))
  largest = np.take_along_axis(first, np.abs(first).argmax(axis=0)[None], axis=0)
  first = first * np.where(largest < 0, -1.0, 1.0)
  total = float(values.sum())
  return centred @ first, float(values[-2:].sum()) / total if total > 0 else 0.0
