"""Relevance of the answers in a ranking, by labels shared with the query or by location.

Counts over the whole archive are kept beside the k best answers, because some metrics and the
chance values need them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from xjepa_jax.errors import EvaluationError
from xjepa_jax.retrieval.ranking import BLOCK_SCORES, NOTHING


@dataclasses.dataclass(frozen=True)
class Relevance:
  """Relevance of the k best answers to Q queries, as the metrics need it.

  Attributes:
    gains: (Q, k) relevance in ranking order.
    ideal: (Q, k) the archive's largest gains in descending order.
    relevant: (Q,) int, number of relevant answers, whether among the best k or not.
    mean_gain: (Q,) mean gain over all answers.
    f1: (Q,) mean over all answers of the F1 of their labels, which is the expected `f1_item` of a
      random ranking; None without labels.
  """

  gains: np.ndarray
  ideal: np.ndarray
  relevant: np.ndarray
  mean_gain: np.ndarray
  f1: np.ndarray | None

  def of(self, queries: np.ndarray) -> Relevance:
    """The same for a subset of the queries, (Q,) bool."""
    return Relevance(
      gains=self.gains[queries],
      ideal=self.ideal[queries],
      relevant=self.relevant[queries],
      mean_gain=self.mean_gain[queries],
      f1=None if self.f1 is None else self.f1[queries],
    )


def label_sets(labels: Sequence[Sequence[str]]) -> np.ndarray | None:
  """(P, L) bool over all label names that occur in P scenes, or None if no scene has a label."""
  names = sorted({name for each in labels for name in each})
  if not names:
    return None
  place = {name: number for number, name in enumerate(names)}
  sets = np.zeros((len(labels), len(names)), bool)
  for row, each in enumerate(labels):
    sets[row, [place[name] for name in each]] = True
  return sets


def relevance_of_labels(
  query: np.ndarray, archive: np.ndarray, best: np.ndarray, exclude: np.ndarray
) -> Relevance:
  """Relevance by labels: an answer's gain is the number of labels that it shares with the query.

  Args:
    query: (Q, L) bool.
    archive: (A, L) bool.
    best: (Q, k) int archive indices, best first.
    exclude: (Q,) int, the archive index that is left out for the query, or -1.

  Raises:
    EvaluationError: the label sets have different sizes.
  """
  if query.ndim != 2 or archive.ndim != 2 or query.shape[1] != archive.shape[1]:
    raise EvaluationError(
      f"labels of queries {query.shape} and archive {archive.shape}: expected (Q, L) and (A, L)."
    )
  rows = max(1, BLOCK_SCORES // max(1, len(archive)))
  blocks = [
    _shared(
      query[start : start + rows],
      archive,
      best[start : start + rows],
      exclude[start : start + rows],
    )
    for start in range(0, max(1, len(query)), rows)
  ]
  return Relevance(*(np.concatenate(values) for values in zip(*blocks, strict=True)))


def relevance_of_location(own: np.ndarray, best: np.ndarray, answers: np.ndarray) -> Relevance:
  """Relevance by location: only the co-located scene is relevant.

  Args:
    own: (Q,) int, archive index of the co-located scene, or -1 if the archive has none.
    best: (Q, k) int archive indices, best first.
    answers: (Q,) int, number of answers that are ranked for the query.
  """
  there = own != NOTHING
  ideal = np.zeros(best.shape)
  ideal[:, :1] = there[:, None]
  gains = (best == own[:, None]).astype(np.float64)
  return Relevance(gains, ideal, there.astype(np.int64), there / np.maximum(answers, 1), None)


def _shared(
  query: np.ndarray, archive: np.ndarray, best: np.ndarray, exclude: np.ndarray
) -> tuple[np.ndarray, ...]:
  # float32 counts labels exactly, and has the fast matrix product.
  shared = query.astype(np.float32) @ archive.astype(np.float32).T
  out = np.flatnonzero(exclude != NOTHING)
  shared[out, exclude[out]] = 0
  answers = np.maximum(len(archive) - (exclude != NOTHING), 1)
  k = best.shape[1]
  # F1 of two label sets is 2 |q & r| / (|q| + |r|).
  sizes = query.sum(axis=1)[:, None] + archive.sum(axis=1)
  return (
    np.take_along_axis(shared, best, axis=1).astype(np.float64),
    # A partition finds the k largest without sorting the whole archive.
    -np.sort(np.partition(-shared, max(k - 1, 0), axis=1)[:, :k], axis=1).astype(np.float64),
    np.sum(shared > 0, axis=1),
    shared.sum(axis=1, dtype=np.float64) / answers,
    np.sum(2 * shared / np.maximum(sizes, 1), axis=1, dtype=np.float64) / answers,
  )
