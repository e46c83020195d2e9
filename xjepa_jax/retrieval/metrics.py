"""Retrieval metrics of a ranking: one number per query, named after the exact definition.

Inputs are in ranking order: `gains[q, i]` is the relevance of the answer at rank i + 1. A query to
which nothing in the archive is relevant scores 0, as in trec_eval. The literature uses one name for
several definitions, so the names here state which definition is meant.
"""

from __future__ import annotations

import numpy as np

from xjepa_jax.errors import EvaluationError

DENOMINATORS = ("hits", "relevant", "reachable")


def recall_at(places: np.ndarray, k: int) -> np.ndarray:
  """Whether the only true answer is among the first k; the mean is R@k, the hit rate.

  Args:
    places: (Q,) int, rank of the true answer, counted from 1.
    k: cut-off.

  Returns:
    (Q,) float64, each 0 or 1.
  """
  return (np.asarray(places) <= k).astype(np.float64)


def reciprocal_rank(places: np.ndarray) -> np.ndarray:
  """(Q,) 1 / rank of the only true answer, without a cut-off; the mean is the MRR."""
  return 1.0 / np.asarray(places, np.float64)


def precision_at(gains: np.ndarray, k: int) -> np.ndarray:
  """The fraction of the first k answers that are relevant.

  Args:
    gains: (Q, >= k) relevance in ranking order; above 0 is relevant.
    k: cut-off.

  Returns:
    (Q,) float64.

  Raises:
    EvaluationError: the rankings are shorter than k.
  """
  return _hits(gains, k).mean(axis=1)


def average_precision_at(
  gains: np.ndarray, k: int, denominator: str, relevant: np.ndarray | None = None
) -> np.ndarray:
  """Sum of the precisions at the ranks of the hits among the first k, divided by a count.

  Args:
    gains: (Q, >= k) relevance in ranking order; above 0 is relevant.
    k: cut-off.
    denominator: what the sum is divided by. "hits": the hits among the first k, usual in remote
      sensing. "relevant": everything relevant in the archive, which is trec_eval's `map_cut`.
      "reachable": the same but at most k, so that a perfect ranking reaches 1.
    relevant: (Q,) number of relevant archive entries; not needed for "hits".

  Returns:
    (Q,) float64; the mean is mAP@k.

  Raises:
    EvaluationError: the denominator is unknown, or `relevant` is needed and missing, or the
      rankings are shorter than k.
  """
  if denominator not in DENOMINATORS:
    raise EvaluationError(
      f"denominator {denominator!r} of average precision; expected one of {DENOMINATORS}."
    )
  hits = _hits(gains, k)
  # The precision at a hit is the number of hits so far divided by the rank.
  summed = np.sum(hits * np.cumsum(hits, axis=1) / np.arange(1, k + 1), axis=1)
  if denominator == "hits":
    count = hits.sum(axis=1)
  elif relevant is None:
    raise EvaluationError(f"average precision over {denominator!r} needs `relevant`, the counts.")
  else:
    count = np.asarray(relevant, np.float64)
    count = np.minimum(count, k) if denominator == "reachable" else count
  return np.where(count > 0, summed / np.maximum(count, 1), 0.0)


def ndcg_at(gains: np.ndarray, ideal: np.ndarray, k: int) -> np.ndarray:
  """Discounted cumulative gain over that of the best ranking (Jarvelin and Kekalainen 2002).

  The gain is linear and the discount log2(1 + rank), which is trec_eval's `ndcg_cut`.

  Args:
    gains: (Q, >= k) relevance in ranking order, graded or binary.
    ideal: (Q, >= k) the archive's largest gains in descending order.
    k: cut-off.

  Returns:
    (Q,) float64.

  Raises:
    EvaluationError: the rankings are shorter than k.
  """
  best = discounted(ideal, k)
  return np.where(best > 0, discounted(gains, k) / np.where(best > 0, best, 1.0), 0.0)


def discounted(gains: np.ndarray, k: int) -> np.ndarray:
  """(Q,) sum over the first k ranks of gain / log2(1 + rank)."""
  return _first(gains, k) @ (1.0 / np.log2(np.arange(2, k + 2)))


def f1_csmae(query: np.ndarray, retrieved: np.ndarray) -> float:
  """F1 of the mean precision and the mean recall over all queries and ranks (CSMAE).

  P = |q & r| / |r| and R = |q & r| / |q| for the label sets q of a query and r of an answer. An
  answer without labels has P = 0, a query without labels R = 0, and the F1 of 0 and 0 is 0; the
  same holds for the two functions below. On one ranking f1_csmae >= f1_query >= f1_item, because
  F1 is concave in (P, R).

  Args:
    query: (Q, L) bool, labels of the queries.
    retrieved: (Q, k, L) bool, labels of their k answers.

  Returns:
    One number for all queries; 0 if there are none.
  """
  precision, recall = _precision_recall(query, retrieved)
  if not precision.size:
    return 0.0
  return float(_f1(precision.mean(), recall.mean()))


def mean_precision_recall(query: np.ndarray, retrieved: np.ndarray) -> np.ndarray:
  """(Q, 2) mean precision and mean recall of each query; `f1_csmae` is the F1 of their means."""
  return np.stack([each.mean(axis=1) for each in _precision_recall(query, retrieved)], axis=1)


def f1_query(query: np.ndarray, retrieved: np.ndarray) -> np.ndarray:
  """(Q,) F1 of each query's mean precision and mean recall (DX-JEPA); see `f1_csmae`."""
  precision, recall = _precision_recall(query, retrieved)
  return _f1(precision.mean(axis=1), recall.mean(axis=1))


def f1_item(query: np.ndarray, retrieved: np.ndarray) -> np.ndarray:
  """(Q,) F1 of every answer, averaged over the ranks (CR-JEPA); see `f1_csmae`."""
  precision, recall = _precision_recall(query, retrieved)
  return _f1(precision, recall).mean(axis=1)


def _precision_recall(query: np.ndarray, retrieved: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(Q, k) |q & r| / |r| and |q & r| / |q|, each 0 where its denominator is 0."""
  query, retrieved = np.asarray(query, bool), np.asarray(retrieved, bool)
  if retrieved.ndim != 3 or query.shape != (retrieved.shape[0], retrieved.shape[2]):
    raise EvaluationError(
      f"labels of queries {query.shape} and of answers {retrieved.shape}: expected (Q, L) and "
      "(Q, k, L)."
    )
  shared = np.sum(query[:, None] & retrieved, axis=2, dtype=np.float64)
  return (
    shared / np.maximum(retrieved.sum(axis=2), 1),
    shared / np.maximum(query.sum(axis=1)[:, None], 1),
  )


def _f1(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
  total = precision + recall
  return np.where(total > 0, 2 * precision * recall / np.where(total > 0, total, 1.0), 0.0)


def _first(gains: np.ndarray, k: int) -> np.ndarray:
  if gains.ndim != 2 or not 1 <= k <= gains.shape[1]:
    raise EvaluationError(f"gains of shape {gains.shape}; expected (queries, at least k = {k}).")
  return np.asarray(gains[:, :k], np.float64)


def _hits(gains: np.ndarray, k: int) -> np.ndarray:
  return (_first(gains, k) > 0).astype(np.float64)
