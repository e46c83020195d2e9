"""Confidence of a search hit: the likelihood ratio of its score, fitted on held-out pairs.

If the scores of true and false answers have the densities f1 and f0, an answer with score s is
f1(s) / f0(s) times as likely to be the true one as an answer drawn at random. This ratio carries
over to archives of any size, which the fraction of true answers at a given score does not.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

from xjepa_jax.errors import EvaluationError

_KNOTS = 64  # keeps the JSON readable; the log ratio is interpolated between knots
_LEAST_QUERIES = 10


@dataclasses.dataclass(frozen=True)
class Confidence:
  """Likelihood ratio as a function of the score, for one direction.

  Attributes:
    scores: (n,) knots, increasing.
    log_ratio: (n,) natural logarithm of f1 / f0 at each knot, non-decreasing.
    below: (n,) the fraction of true answers with a lower score, F1.
    queries: number of queries that the fit used.
  """

  scores: np.ndarray
  log_ratio: np.ndarray
  below: np.ndarray
  queries: int

  def of(self, scores: np.ndarray, answers: int) -> np.ndarray:
    """Probability that each of the best answers to a query shows the query's scene.

    This is Bayes' rule with exactly one true scene among `answers`, all equally likely a priori.
    The answers that score below the worst one shown, t, have a total ratio of answers x F1(t): a
    false answer's mean ratio below t is F1(t) / F0(t), and a fraction F0(t) of the answers lies
    below t. One answer's gain is therefore its rivals' loss, and the probabilities of a query never
    sum to more than 1.

    Args:
      scores: (Q, k) scores of the best answers; -inf where there is none.
      answers: number of scenes that the query could have found.

    Returns:
      (Q, k) float64; 0 where there is no answer.
    """
    scores = np.asarray(scores, np.float64)
    there = np.isfinite(scores)
    log_ratio = np.interp(np.where(there, scores, 0.0), self.scores, self.log_ratio)
    ratio = np.where(there, np.exp(log_ratio), 0.0)
    worst = np.min(np.where(there, scores, np.inf), axis=-1, keepdims=True)
    missed = answers * np.interp(worst, self.scores, self.below)
    # If all answers are shown, none scores below the worst one shown.
    all_shown = answers <= there.sum(axis=-1, keepdims=True)
    total = ratio.sum(axis=-1, keepdims=True) + np.where(all_shown, 0.0, missed)
    return ratio / np.where(total > 0, total, 1.0)


def fit_confidence(scores: np.ndarray, own: np.ndarray) -> Confidence | None:
  """Isotonic regression of "is the true answer" on the score (Zadrozny and Elkan, KDD 2002).

  Args:
    scores: (Q, A) score of every query with every scene of the archive.
    own: (Q,) int, the archive index of each query's own scene.

  Returns:
    None if there are fewer than ten queries or two scenes, too few for a fit.

  Raises:
    EvaluationError: `own` does not index the archive.
  """
  queries, archive = scores.shape
  if own.shape != (queries,) or (queries and not 0 <= own.min() <= own.max() < archive):
    raise EvaluationError(f"own scenes {own.shape} of scores {scores.shape}: not of the archive.")
  if queries < _LEAST_QUERIES or archive < 2:
    return None
  true = np.zeros(scores.shape, bool)
  true[np.arange(queries), own] = True
  order = np.argsort(scores, axis=None, kind="stable")
  sorted_scores, sorted_true = scores.ravel()[order], true.ravel()[order]
  blocks = isotonic_regression(sorted_true.astype(np.float64)).blocks
  hits = np.add.reduceat(sorted_true, blocks[:-1], dtype=np.float64)
  sizes = np.diff(blocks)
  means = np.add.reduceat(sorted_scores, blocks[:-1], dtype=np.float64) / sizes
  # Adding half a count to each class keeps a block that lacks one of them from being certain.
  # Every query has one true answer, so the prior odds are 1 : archive - 1, and the last factor
  # turns posterior odds into a likelihood ratio.
  ratio = (hits + 0.5) / (sizes - hits + 0.5) * (archive - 1)
  kept = _thinned(len(means))
  below = (np.cumsum(hits) - hits / 2) / queries
  # The half counts can upset the order of the blocks, so the running maximum restores monotonicity.
  return Confidence(means[kept], np.log(np.maximum.accumulate(ratio))[kept], below[kept], queries)


def fit_directions(
  descriptors: Mapping[str, np.ndarray], present: Mapping[str, np.ndarray]
) -> dict[str, Confidence]:
  """Confidences of all cross-sensor directions, keyed "a->b"; row p of every sensor is pair p.

  Args:
    descriptors: sensor -> (P, K) of unit length.
    present: sensor -> (P,) bool.
  """
  found = {}
  for a, b in itertools.permutations(descriptors, 2):
    both = np.flatnonzero(present[a] & present[b])
    scores = descriptors[a][both] @ descriptors[b][both].T
    fitted = fit_confidence(scores, np.arange(len(both)))
    if fitted is not None:
      found[f"{a}->{b}"] = fitted
  return found


def to_json(confidence: Confidence) -> dict[str, Any]:
  """A JSON object, as stored in the description of an exported encoder."""
  return {
    "scores": [round(float(value), 6) for value in confidence.scores],
    "log_ratio": [round(float(value), 4) for value in confidence.log_ratio],
    "below": [round(float(value), 6) for value in confidence.below],
    "queries": confidence.queries,
  }


def from_json(entry: Mapping[str, Any]) -> Confidence:
  """Inverse of `to_json`."""
  numbers: list[Sequence[float]] = [entry["scores"], entry["log_ratio"], entry["below"]]
  scores, log_ratio, below = (np.asarray(each, np.float64) for each in numbers)
  return Confidence(scores, log_ratio, below, int(entry["queries"]))


def _thinned(count: int) -> np.ndarray:
  """Indices of at most `_KNOTS` of `count` knots, including the first and the last."""
  return np.unique(np.linspace(0, count - 1, min(count, _KNOTS)).round().astype(int))
