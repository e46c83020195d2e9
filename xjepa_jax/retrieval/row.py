"""One row of an evaluation table: ranks a direction, and states what each number measures.

Scores are ranked block by block and dropped, so the memory for them does not grow with the number
of queries. A row carries its denominators, chance values and intervals, since a number alone cannot
be judged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from xjepa_jax.retrieval.bootstrap import intervals
from xjepa_jax.retrieval.direction import Direction
from xjepa_jax.retrieval.metrics import average_precision_at
from xjepa_jax.retrieval.ranking import NOTHING, first, places
from xjepa_jax.retrieval.relevance import relevance_of_labels, relevance_of_location
from xjepa_jax.retrieval.scores import (
  F1_AT,
  PRECISION_AT,
  Score,
  f1_scores,
  located_scores,
  protocol,
  relevance_scores,
  whole_scores,
)


@dataclasses.dataclass(frozen=True)
class Row:
  """One direction of an evaluation; written to JSON with `dataclasses.asdict`.

  Attributes:
    query, archive: sensors.
    method: what the scores come from: "descriptors", or a baseline's name.
    queries: number of query scenes.
    archive_size: number of scenes searched, including the query's own.
    co_located: number of queries whose own scene is in the archive. Across sensors, R@k and MRR are
      means over these.
    labelled: number of queries with a label. With labels, the other metrics are means over these;
      without, over the co-located queries.
    answerable: number of the latter to which anything is relevant; the rest score 0.
    protocol: description of the similarity, of what is relevant and left out, and of each
      denominator.
    metrics: name -> mean over queries. Cut-offs larger than the archive are omitted.
    chance: name -> exact expectation for a random ranking, if it has a closed form.
    interval: name -> lower and upper end of the 95 % bootstrap interval over queries; empty if not
      requested.
  """

  query: str
  archive: str
  method: str
  queries: int
  archive_size: int
  co_located: int
  labelled: int
  answerable: int
  protocol: dict[str, str]
  metrics: dict[str, float]
  chance: dict[str, float]
  interval: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Measures:
  """Which metrics of a ranking are computed.

  Attributes:
    cuts: the cut-offs k.
    whole: also compute mAP over the whole ranking, which requires sorting all of it.
    resamples: number of bootstrap resamples; 0 gives no intervals.
  """

  cuts: Sequence[int] = (1, 5, 10)
  whole: bool = False
  resamples: int = 0


def measure(
  direction: Direction,
  blocks: Iterable[tuple[slice, np.ndarray]],
  labels: np.ndarray | None,
  measures: Measures,
  method: str,
  similarity: str,
) -> Row:
  """Ranks a direction and computes the metrics.

  Args:
    direction: the queries and the archive.
    blocks: slices of queries and their (rows, A) scores.
    labels: (P, L) bool of all scenes, or None.
    measures: the metrics to compute.
    method, similarity: names that the row carries.
  """
  answers, own = direction.answers, direction.own
  # Precision and F1 have cut-offs of their own, which are not shown for other metrics.
  cuts = [cut for cut in sorted({*measures.cuts, PRECISION_AT, *F1_AT}) if cut <= answers.min()]
  shown = [cut for cut in cuts if cut in measures.cuts]
  asked, found = _label_sets(direction, labels)
  ranking = _Ranking.of(direction, blocks, max(cuts, default=0), asked, found, measures.whole)
  there = own != NOTHING
  # Means are over queries with a co-located scene or, with labels, over labelled queries.
  scores: list[Score] = []
  if direction.located and there.any():
    scores += located_scores(ranking.place[there], answers[there], shown)
  if asked is None or found is None:
    counted = there
    relevance = relevance_of_location(own, ranking.best, answers)
  else:
    counted = asked.sum(axis=1) > 0
    relevance = relevance_of_labels(asked, found, ranking.best, direction.exclude)
  relevance = relevance.of(counted)
  if counted.any():
    scores += relevance_scores(relevance, answers[counted], cuts, shown)
    if measures.whole:
      scores += whole_scores(ranking.precision[counted], relevance.relevant, answers[counted])
    if asked is not None and found is not None:
      scores += f1_scores(asked[counted], found, ranking.best[counted], relevance, cuts)
  return Row(
    query=direction.query,
    archive=direction.archive,
    method=method,
    queries=len(own),
    archive_size=len(direction.found),
    co_located=int(there.sum()),
    labelled=0 if labels is None else int(counted.sum()),
    answerable=int(np.sum(relevance.relevant > 0)),
    protocol=protocol(similarity, _left_out(direction), labelled=labels is not None),
    metrics={score.name: score.value for score in scores},
    chance={score.name: score.chance for score in scores if score.chance is not None},
    interval=_intervals(scores, measures.resamples),
  )


@dataclasses.dataclass(frozen=True)
class _Ranking:
  """The best archive indices (Q, depth); the rank of the own scene (Q,), 0 if none; and the average
  precision of the whole ranking (Q,), 0 if not requested."""

  best: np.ndarray
  place: np.ndarray
  precision: np.ndarray

  @classmethod
  def of(
    cls,
    direction: Direction,
    blocks: Iterable[tuple[slice, np.ndarray]],
    depth: int,
    asked: np.ndarray | None,
    found: np.ndarray | None,
    whole: bool,
  ) -> _Ranking:
    own, exclude = direction.own, direction.exclude
    ranking = cls(
      np.zeros((len(own), depth), np.int64), np.zeros(len(own), np.int64), np.zeros(len(own))
    )
    for rows, block in blocks:
      if depth:
        ranking.best[rows] = first(block, depth, exclude[rows])
      if direction.located:
        # Queries without an own scene are ranked by entry 0, and their rank is then set to 0.
        ranking.place[rows] = places(block, own[rows].clip(min=0)) * (own[rows] != NOTHING)
      if whole:
        if asked is None or found is None:
          relevant = np.arange(block.shape[1]) == own[rows][:, None]
        else:
          relevant = asked[rows].astype(np.float32) @ found.T.astype(np.float32) > 0
        ranking.precision[rows] = _average_precision(block, relevant, exclude[rows])
    return ranking


def _average_precision(scores: np.ndarray, relevant: np.ndarray, exclude: np.ndarray) -> np.ndarray:
  """(q,) average precision of whole rankings; an excluded entry comes last and is not relevant."""
  out = np.flatnonzero(exclude != NOTHING)
  scores = scores.copy()
  scores[out, exclude[out]] = -np.inf
  relevant[out, exclude[out]] = False
  order = np.argsort(-scores, axis=1, kind="stable")
  gains = np.take_along_axis(relevant, order, axis=1)
  return average_precision_at(gains, gains.shape[1], "relevant", relevant.sum(axis=1))


def _label_sets(
  direction: Direction, labels: np.ndarray | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
  """Label sets of the queries (Q, L) and of the archive (A, L), bool."""
  if labels is None:
    return None, None
  return np.asarray(labels[direction.asking], bool), np.asarray(labels[direction.found], bool)


def _left_out(direction: Direction) -> str:
  if direction.located:
    return "nothing; the co-located scene is an answer"
  return "the co-located scene" if direction.across else "the query itself"


def _intervals(scores: Sequence[Score], resamples: int) -> dict[str, tuple[float, float]]:
  """Intervals of all scores; scores with the same number of queries share the same queries."""
  if not resamples:
    return {}
  found: dict[str, tuple[float, float]] = {}
  for count in {len(score.each) for score in scores}:
    alike = [score for score in scores if len(score.each) == count]
    ends = intervals([score.each for score in alike], resamples)
    found |= {score.name: each for score, each in zip(alike, ends, strict=True)}
  return {score.name: found[score.name] for score in scores}
