"""Exact scores of a random ranking: expectations over all permutations of the archive.

The first two definitions of F1 (`f1_csmae`, `f1_query`) are not linear in the answers and have no
closed form. Only `f1_item` has a chance value: its mean over the archive.
"""

from __future__ import annotations

import numpy as np

from xjepa_jax.retrieval.metrics import discounted


def recall_at(answers: np.ndarray, k: int) -> np.ndarray:
  """(Q,) probability that the only true one of `answers` (Q,) is in the first k: k / answers."""
  return np.minimum(k / np.asarray(answers, np.float64), 1.0)


def reciprocal_rank(answers: np.ndarray) -> np.ndarray:
  """(Q,) mean of 1 / rank over the ranks 1..answers: the harmonic number / answers."""
  answers = np.asarray(answers)
  harmonic = np.cumsum(1.0 / np.arange(1, answers.max(initial=1) + 1))
  return harmonic[answers - 1] / answers


def precision_at(relevant: np.ndarray, answers: np.ndarray) -> np.ndarray:
  """(Q,) the fraction of answers that are relevant, which does not depend on k."""
  return np.asarray(relevant) / np.asarray(answers, np.float64)


def average_precision_at(
  relevant: np.ndarray, answers: np.ndarray, k: int, denominator: str
) -> np.ndarray:
  """Expected `metrics.average_precision_at` of a random ranking.

  A hit at rank i has i - 1 answers before it. Given n hits among m answers, the precision at that
  rank is 1/i (1 + (i - 1)(n - 1)/(m - 1)) on average. For the denominator "hits", n is
  hypergeometric and m is k.

  Args:
    relevant: (Q,) int, number of relevant answers.
    answers: (Q,) int, number of answers.
    k: cut-off, at most the smallest of `answers`.
    denominator: as in `metrics.average_precision_at`.

  Returns:
    (Q,) float64.
  """
  relevant, answers = np.asarray(relevant, np.int64), np.asarray(answers, np.int64)
  if denominator == "hits":
    # Given the number of hits among the first k, all their arrangements are equally likely.
    hits = np.arange(1, k + 1)
    given = _summed_precision(hits, np.full(k, k), k) / hits
    return _chance_of_hits(hits, relevant[:, None], answers[:, None], k) @ given
  count = np.minimum(relevant, k) if denominator == "reachable" else relevant
  return _summed_precision(relevant, answers, k) / np.maximum(count, 1)


def ndcg_at(mean_gain: np.ndarray, ideal: np.ndarray, k: int) -> np.ndarray:
  """Expected `metrics.ndcg_at` of a random ranking: every rank has the archive's mean gain.

  Args:
    mean_gain: (Q,) mean gain over all answers.
    ideal: (Q, >= k) the largest gains in descending order.
    k: cut-off.

  Returns:
    (Q,) float64.
  """
  best = discounted(ideal, k)
  expected = mean_gain * np.sum(1.0 / np.log2(np.arange(2, k + 2)))
  return np.where(best > 0, expected / np.where(best > 0, best, 1.0), 0.0)


def _summed_precision(relevant: np.ndarray, answers: np.ndarray, k: int) -> np.ndarray:
  """(Q,) expected sum, over the hits among the first k answers, of the precision at each hit."""
  place = np.arange(1, k + 1)
  others = (relevant - 1)[:, None] / np.maximum(answers - 1, 1)[:, None]
  return np.sum((relevant / answers)[:, None] * (1 + (place - 1) * others) / place, axis=1)


def _chance_of_hits(
  hits: np.ndarray, relevant: np.ndarray, answers: np.ndarray, k: int
) -> np.ndarray:
  """Hypergeometric probability of `hits` relevant ones among the first k; arguments broadcast."""
  largest = int(answers.max(initial=k))
  # Binomials are computed in logarithms, because the factorials of an archive's size overflow.
  log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, largest + 1)))])

  def log_choose(n: np.ndarray, r: np.ndarray | int) -> np.ndarray:
    rest = np.clip(n - r, 0, None)
    return log_factorial[n] - log_factorial[np.minimum(r, n)] - log_factorial[rest]

  possible = (hits <= relevant) & (k - hits <= answers - relevant)
  log_chance = log_choose(relevant, hits) + log_choose(answers - relevant, k - hits)
  return np.where(possible, np.exp(log_chance - log_choose(answers, k)), 0.0)
