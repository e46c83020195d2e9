"""What a score is worth: how much likelier it is between views of one scene than of two.

Fitted on pairs that were not trained on. With the scores of true and of false answers distributed
as f1 and f0, an answer of score s is f1(s) / f0(s) times likelier to be the true one than an answer
drawn by lot. That ratio carries over to archives of any size; the share of answers of this score
that are true does not.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

from xjepa_jax.errors import EvaluationError

_KNOTS = 64  # a description stays readable; between them the logarithm is interpolated
_LEAST_QUERIES = 10


@dataclasses.dataclass(frozen=True)
class Confidence:
  """The likelihood ratio of scores of one direction.

  Attributes:
    scores: (n,) rising.
    log_ratio: (n,) natural logarithm of f1 / f0 at each, never falling.
    below: (n,) the share of true answers that score less, F1.
    queries: how many it was fitted on.
  """

  scores: np.ndarray
  log_ratio: np.ndarray
  below: np.ndarray
  queries: int

  def of(self, scores: np.ndarray, answers: int) -> np.ndarray:
    """The probability that each of the best answers to a query is its scene.

    Bayes' rule with one true scene among `answers`, all alike before the scores are seen. Those
    that score less than the worst shown, t, together have the ratio answers x F1(t): a false
    answer's mean ratio below t is F1(t) / F0(t), and F0(t) of the answers are below it. So an
    answer loses what its rivals gain, and all of them together never exceed 1.

    Args:
      scores: (Q, k) of the best answers; -inf where there is none.
      answers: how many scenes the query could have found.

    Returns:
      (Q, k) float64; 0 where there is no answer.
    """
    scores = np.asarray(scores, np.float64)
    there = np.isfinite(scores)
    log_ratio = np.interp(np.where(there, scores, 0.0), self.scores, self.log_ratio)
    ratio = np.where(there, np.exp(log_ratio), 0.0)
    worst = np.min(np.where(there, scores, np.inf), axis=-1, keepdims=True)
    missed = answers * np.interp(worst, self.scores, self.below)
    all_shown = answers <= there.sum(axis=-1, keepdims=True)
    total = ratio.sum(axis=-1, keepdims=True) + np.where(all_shown, 0.0, missed)
    return ratio / np.where(total > 0, total, 1.0)


def fit_confidence(scores: np.ndarray, own: np.ndarray) -> Confidence | None:
  """Isotonic regression of being true on the score (Zadrozny and Elkan, KDD 2002).

  Args:
    scores: (Q, A) of every query with every scene of the archive.
    own: (Q,) int, the archive index of each query's own scene.

  Returns:
    None of fewer than ten queries or two scenes, from which nothing is to be learnt.

  Raises:
    EvaluationError: `own` is not of the archive.
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
  # Half a count of both kinds keeps a block without the one or the other from being certain.
  ratio = (hits + 0.5) / (sizes - hits + 0.5) * (archive - 1)
  kept = _thinned(len(means))
  below = (np.cumsum(hits) - hits / 2) / queries
  return Confidence(means[kept], np.log(np.maximum.accumulate(ratio))[kept], below[kept], queries)


def fit_directions(
  descriptors: Mapping[str, np.ndarray], present: Mapping[str, np.ndarray]
) -> dict[str, Confidence]:
  """That of every direction across sensors, "a->b", of pairs in the same order.

  Args:
    descriptors: sensor -> (P, K) of length 1.
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
  """As an encoder's description holds it."""
  return {
    "scores": [round(float(value), 6) for value in confidence.scores],
    "log_ratio": [round(float(value), 4) for value in confidence.log_ratio],
    "below": [round(float(value), 6) for value in confidence.below],
    "queries": confidence.queries,
  }


def from_json(entry: Mapping[str, Any]) -> Confidence:
  """Back from it."""
  numbers: list[Sequence[float]] = [entry["scores"], entry["log_ratio"], entry["below"]]
  scores, log_ratio, below = (np.asarray(each, np.float64) for each in numbers)
  return Confidence(scores, log_ratio, below, int(entry["queries"]))


def _thinned(count: int) -> np.ndarray:
  """At most `_KNOTS` of so many knots, first and last among them."""
  return np.unique(np.linspace(0, count - 1, min(count, _KNOTS)).round().astype(int))
