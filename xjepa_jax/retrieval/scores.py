"""The metrics of one direction under their report names, each with its value by chance.

The value per query is kept with every mean, because bootstrap intervals are computed from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from xjepa_jax.retrieval import expected_by_chance, metrics
from xjepa_jax.retrieval.relevance import Relevance

PRECISION_AT = 5
F1_AT = (5, 10)


class Score(NamedTuple):
  """One metric of one direction.

  Attributes:
    name: name of the metric.
    value: its mean over queries.
    chance: the mean for a random ranking, if known.
    each: (Q,) value per query, or (Q, 2) precision and recall if the value is the F1 of their
      means.
  """

  name: str
  value: float
  chance: float | None
  each: np.ndarray


def located_scores(place: np.ndarray, answers: np.ndarray, cuts: Sequence[int]) -> list[Score]:
  """R@k and MRR of the co-located scene.

  Args:
    place: (Q,) int, rank of the co-located scene, counted from 1.
    answers: (Q,) int, number of answers that were ranked.
    cuts: the k of R@k.
  """
  recalls = [
    _mean(f"recall@{k}", metrics.recall_at(place, k), expected_by_chance.recall_at(answers, k))
    for k in cuts
  ]
  by_lot = expected_by_chance.reciprocal_rank(answers)
  return [*recalls, _mean("mrr", metrics.reciprocal_rank(place), by_lot)]


def relevance_scores(
  relevance: Relevance, answers: np.ndarray, cuts: Sequence[int], shown: Sequence[int]
) -> list[Score]:
  """mAP@k with each denominator and nDCG@k at the `shown` cuts, and P@5 if `cuts` has it."""
  gains, ideal, relevant = relevance.gains, relevance.ideal, relevance.relevant
  scores = [
    _mean(
      f"map_{denominator}@{k}",
      metrics.average_precision_at(gains, k, denominator, relevant),
      expected_by_chance.average_precision_at(relevant, answers, k, denominator),
    )
    for k in shown
    for denominator in metrics.DENOMINATORS
  ]
  scores += [
    _mean(
      f"ndcg@{k}",
      metrics.ndcg_at(gains, ideal, k),
      expected_by_chance.ndcg_at(relevance.mean_gain, ideal, k),
    )
    for k in shown
  ]
  if PRECISION_AT in cuts:
    value = metrics.precision_at(gains, PRECISION_AT)
    by_lot = expected_by_chance.precision_at(relevant, answers)
    scores.append(_mean(f"precision@{PRECISION_AT}", value, by_lot))
  return scores


def f1_scores(
  query: np.ndarray,
  archive: np.ndarray,
  best: np.ndarray,
  relevance: Relevance,
  cuts: Sequence[int],
) -> list[Score]:
  """The three F1@k, for those k of 5 and 10 that `cuts` has.

  Args:
    query: (Q, L) bool labels.
    archive: (A, L) bool labels.
    best: (Q, k) int archive indices, best first.
    relevance: relevance of the answers to these queries.
    cuts: the cut-offs that do not exceed the archive's size.
  """
  scores = []
  for k in F1_AT:
    if k in cuts:
      retrieved = archive[best[:, :k]]
      scores += [
        Score(
          f"f1_csmae@{k}",
          metrics.f1_csmae(query, retrieved),
          None,
          metrics.mean_precision_recall(query, retrieved),
        ),
        _mean(f"f1_query@{k}", metrics.f1_query(query, retrieved), None),
        _mean(f"f1_item@{k}", metrics.f1_item(query, retrieved), relevance.f1),
      ]
  return scores


def whole_scores(precision: np.ndarray, relevant: np.ndarray, answers: np.ndarray) -> list[Score]:
  """mAP over the whole ranking (trec_eval map).

  Args:
    precision: (Q,) average precision of each query.
    relevant: (Q,) int, number of relevant answers.
    answers: (Q,) int, number of answers.
  """
  by_lot = np.zeros(len(precision))
  # The cut-off is the number of answers, so queries are grouped by it.
  for count in np.unique(answers):
    of = answers == count
    by_lot[of] = expected_by_chance.average_precision_at(
      relevant[of], answers[of], int(count), "relevant"
    )
  return [_mean("map", precision, by_lot)]


def protocol(similarity: str, left_out: str, *, labelled: bool) -> dict[str, str]:
  """A description of what was measured, stored next to the numbers."""
  words = {
    "similarity": similarity,
    "ties": "the lower archive index first",
    "left_out": left_out,
    "relevant": "shares at least one label with the query" if labelled else "the co-located scene",
    "gain": "number of shared labels, linear (trec_eval ndcg_cut)" if labelled else "1",
    "map": "sum of the precisions at all relevant answers / their number (trec_eval map)",
    "map_hits": "sum of the precisions at the hits in the first k / number of these hits",
    "map_relevant": "the same sum / all relevant in the archive (trec_eval map_cut)",
    "map_reachable": "the same sum / all relevant in the archive, at most k",
    "unanswerable": "queries to which nothing is relevant score 0",
  }
  if labelled:
    words["unlabelled"] = "queries without labels are left out of all but recall and mrr"
    words["f1_csmae"] = "F1 of mean precision and mean recall over queries and places"
    words["f1_query"] = "mean over queries of the F1 of mean precision and mean recall"
    words["f1_item"] = "mean over queries and places of the F1 of every answer"
  return words


def _mean(name: str, values: np.ndarray, by_lot: np.ndarray | None) -> Score:
  expected = None if by_lot is None else float(by_lot.mean())
  return Score(name, float(values.mean()), expected, np.asarray(values, np.float64))
