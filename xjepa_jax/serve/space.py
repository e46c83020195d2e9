"""The descriptor space projected onto a plane: principal components of a sample of places.

A place is sampled with all its tiles or not at all, so that the views of a scene by several sensors
can be compared in the plot.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from xjepa_jax.retrieval.embedding.files import EmbeddingFiles
from xjepa_jax.serve.ground import Places, spread

_ROWS = 4000  # approximate number of points


@dataclasses.dataclass(frozen=True)
class Plane:
  """A sample of the archive, projected onto a plane.

  Attributes:
    rows: (n,) rows of the archive.
    points: (n, 2) between -1 and 1, with both axes on one scale.
    share: share of the sample's variance that the plane shows, between 0 and 1.
  """

  rows: np.ndarray
  points: np.ndarray
  share: float


def plane(files: EmbeddingFiles, places: Places, most: int = _ROWS) -> Plane:
  """Project a sample onto its two principal components.

  Args:
    files: the archive's embeddings.
    places: the archive's places; a place is taken with all its rows or left out.
    most: approximate number of rows.
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
  """Return coordinates along the two directions of most variance, and their share of the variance.

  Args:
    vectors: (n, K) float64, n at least 1.

  Returns:
    (n, 2), with each direction's sign chosen so that its largest component is positive; and the
    share.
  """
  centred = vectors - vectors.mean(axis=0)
  values, directions = np.linalg.eigh(centred.T @ centred)
  first = directions[:, ::-1][:, :2]
  if first.shape[1] < 2:  # descriptors of a single number
    first = np.pad(first, ((0, 0), (0, 1)))
  largest = np.take_along_axis(first, np.abs(first).argmax(axis=0)[None], axis=0)
  first = first * np.where(largest < 0, -1.0, 1.0)
  total = float(values.sum())
  return centred @ first, float(values[-2:].sum()) / total if total > 0 else 0.0
