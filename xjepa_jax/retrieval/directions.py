"""The table of a retrieval evaluation: one row a direction, each saying what it measured.

Across two sensors the one true answer is the co-located scene (R@k, MRR). With labels, an answer is
relevant if it shares one with the query, graded by how many for nDCG; without, the co-located
scene alone is. Within a sensor the query itself is left out and only labels can be asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from xjepa_jax.errors import EvaluationError
from xjepa_jax.retrieval.ranking import NOTHING, first, places, score_blocks
from xjepa_jax.retrieval.relevance import relevance_of_labels, relevance_of_location
from xjepa_jax.retrieval.scores import (
  F1_AT,
  PRECISION_AT,
  Score,
  f1_scores,
  located_scores,
  protocol,
  relevance_scores,
)


@dataclasses.dataclass(frozen=True)
class Row:
  """One direction of an evaluation; `dataclasses.asdict` of it goes to JSON.

  Attributes:
    query, archive: sensors.
    method: what made the scores: "descriptors", or a baseline's name.
    queries: how many scenes asked.
    archive_size: how many scenes were searched, the query's own included.
    co_located: queries whose own scene is in the archive. Across, R@k and MRR are means over these.
    labelled: queries with a label. With labels, the other metrics are means over these; without,
      over the co-located.
    answerable: of the latter, those to which anything is relevant; the rest score 0.
    protocol: in words: similarity, what is relevant, what was left out, each denominator.
    metrics: name -> mean over queries. A cut-off beyond the archive's size is left out.
    chance: name -> the exact expectation of a ranking by lot, where it has a closed form.
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


@dataclasses.dataclass(frozen=True)
class _Direction:
  """Who asks and who is searched: `asking` (Q,) and `found` (A,) are scenes."""

  query: str
  archive: str
  asking: np.ndarray
  found: np.ndarray

  @property
  def across(self) -> bool:
    return self.query != self.archive

  @property
  def own(self) -> np.ndarray:
    """(Q,) int, where in the archive the query's scene is, or -1."""
    where = np.searchsorted(self.found, self.asking).clip(max=len(self.found) - 1)
    return np.where(self.found[where] == self.asking, where, NOTHING)

  @property
  def exclude(self) -> np.ndarray:
    """(Q,) int, the archive index left out: within a sensor, the query's own."""
    return np.full(len(self.asking), NOTHING) if self.across else self.own

  @property
  def answers(self) -> np.ndarray:
    """(Q,) int, how many answers there are to rank."""
    return len(self.found) - (self.exclude != NOTHING)


def evaluate_directions(
  descriptors: Mapping[str, np.ndarray],
  present: Mapping[str, np.ndarray],
  labels: np.ndarray | None = None,
  k: Sequence[int] = (1, 5, 10),
  *,
  queries: np.ndarray | None = None,
  archive: np.ndarray | None = None,
  centre: bool = False,
) -> list[Row]:
  """Every sensor asked for every sensor, by the cosine of descriptors.

  Args:
    descriptors: sensor -> (P, K), row p of every sensor being scene p. Rows of absent scenes are
      not read.
    present: sensor -> (P,) bool, whether the scene has that sensor.
    labels: (P, L) bool, the scenes' label sets, or None. Within a sensor there is nothing to
      measure without them, and no row.
    k: the cut-offs.
    queries: (P,) bool, the scenes that ask (the validation split, say); all if None.
    archive: (P,) bool, the scenes that are searched (the test split, say); all if None.
    centre: subtract from each sensor's descriptors their own mean over the scenes that ask or are
      searched. It takes a modality gap away, and it looks at the evaluated scenes to do so.

  Returns:
    A row for every ordered pair of sensors in the order of `descriptors`; none for a pair of which
    nobody asks or nobody is searched.

  Raises:
    EvaluationError: shapes disagree, or a descriptor of a present scene is not finite.
  """
  scenes = {len(values) for values in descriptors.values()}
  scenes |= {
    len(values) for values in (*present.values(), labels, queries, archive) if values is not None
  }
  if len(scenes) > 1 or set(descriptors) - set(present):
    raise EvaluationError(
      f"descriptors of {sorted(descriptors)}, presence of {sorted(present)}, labels and masks have "
      f"{sorted(scenes)} rows; expected all of them, with one row for each of the same scenes."
    )
  asks = {sensor: _both(present[sensor], queries) for sensor in descriptors}
  searched = {sensor: _both(present[sensor], archive) for sensor in descriptors}
  units = {
    sensor: _units(values, asks[sensor] | searched[sensor], centre)
    for sensor, values in descriptors.items()
  }
  similarity = "cosine of descriptors" + (", each sensor centred on its mean" if centre else "")
  rows = []
  for one in descriptors:
    for other in descriptors:
      direction = _Direction(one, other, np.flatnonzero(asks[one]), np.flatnonzero(searched[other]))
      if not asks[one].any() or not searched[other].any() or (one == other and labels is None):
        continue
      blocks = score_blocks(units[one][direction.asking], units[other][direction.found])
      rows.append(_row(direction, blocks, labels, k, "descriptors", similarity))
  return rows


def evaluate_similarity(
  query: str,
  archive: str,
  similarity: np.ndarray,
  labels: np.ndarray | None = None,
  k: Sequence[int] = (1, 5, 10),
  *,
  method: str,
) -> Row:
  """The row of similarities that no descriptors made: a baseline's.

  Args:
    query, archive: sensors.
    similarity: (P, P) of P scenes that have both; entry (p, p) is of the co-located scene, or
      within a sensor of the query itself.
    labels: (P, L) bool, or None.
    k: the cut-offs.
    method: the baseline's name.

  Raises:
    EvaluationError: shapes disagree, a similarity is not finite, or nothing can be measured.
  """
  if similarity.ndim != 2 or len(set(similarity.shape)) != 1 or not similarity.size:
    raise EvaluationError(f"{method}: similarities of shape {similarity.shape}; expected (P, P).")
  scenes = np.arange(len(similarity))
  if labels is None and query == archive:
    raise EvaluationError(f"{method}: {query} -> {archive} can be evaluated with labels only.")
  if labels is not None and len(labels) != len(scenes):
    raise EvaluationError(f"{method}: labels of {len(labels)} scenes, not of {len(scenes)}.")
  blocks = [(slice(0, len(scenes)), similarity)]
  return _row(_Direction(query, archive, scenes, scenes), blocks, labels, k, method, method)


def _row(
  direction: _Direction,
  blocks: Iterable[tuple[slice, np.ndarray]],
  labels: np.ndarray | None,
  k: Sequence[int],
  method: str,
  similarity: str,
) -> Row:
  answers, own = direction.answers, direction.own
  cuts = [cut for cut in sorted({*k, PRECISION_AT, *F1_AT}) if cut <= answers.min()]
  shown = [cut for cut in cuts if cut in k]
  best, place = _rank(direction, blocks, max(cuts, default=0))
  scores: list[Score] = []
  there = own != NOTHING
  counted, labelled = there, 0
  if direction.across and there.any():
    scores += located_scores(place[there], answers[there], shown)
  if labels is None:
    relevance = relevance_of_location(own, best, answers)
  else:
    asked, found = (
      np.asarray(labels[direction.asking], bool),
      np.asarray(labels[direction.found], bool),
    )
    relevance = relevance_of_labels(asked, found, best, direction.exclude)
    counted = asked.sum(axis=1) > 0
    labelled = int(counted.sum())
  relevance = relevance.of(counted)
  if counted.any():
    scores += relevance_scores(relevance, answers[counted], cuts, shown)
  if labels is not None and counted.any():
    scores += f1_scores(asked[counted], found, best[counted], relevance, cuts)
  return Row(
    query=direction.query,
    archive=direction.archive,
    method=method,
    queries=len(own),
    archive_size=len(direction.found),
    co_located=int(there.sum()),
    labelled=labelled,
    answerable=int(np.sum(relevance.relevant > 0)),
    protocol=protocol(similarity, across=direction.across, labelled=labels is not None),
    metrics={score.name: score.value for score in scores},
    chance={score.name: score.chance for score in scores if score.chance is not None},
  )


def _rank(
  direction: _Direction, blocks: Iterable[tuple[slice, np.ndarray]], depth: int
) -> tuple[np.ndarray, np.ndarray]:
  """(Q, depth) the best archive indices, and (Q,) the co-located scene's place, 0 if none."""
  own, exclude = direction.own, direction.exclude
  best = np.zeros((len(own), depth), np.int64)
  place = np.zeros(len(own), np.int64)
  for rows, block in blocks:
    if depth:
      best[rows] = first(block, depth, exclude[rows])
    if direction.across:
      place[rows] = places(block, own[rows].clip(min=0)) * (own[rows] != NOTHING)
  return best, place


def _both(present: np.ndarray, chosen: np.ndarray | None) -> np.ndarray:
  return np.asarray(present, bool) if chosen is None else np.asarray(present & chosen, bool)


def _units(values: np.ndarray, used: np.ndarray, centre: bool) -> np.ndarray:
  """Descriptors (P, K) as float32 of unit length; rows not `used` are 0, as is a null vector."""
  values = np.where(used[:, None], values, 0).astype(np.float64)
  if centre and used.any():
    values = np.where(used[:, None], values - values[used].mean(axis=0), 0)
  length = np.linalg.norm(values, axis=1, keepdims=True)
  return (values / np.where(length == 0, 1, length)).astype(np.float32)
