"""Chooses how many lists a query has to probe, by measuring on the archive itself.

Descriptors of two sensors differ by more than noise, so a query of one sensor lies far from the
lists with the other sensor's rows. The lists needed for neighbours of its own sensor therefore say
nothing about those needed for the other, and recall is measured without a filter and from each
sensor to each other one. If coarse vectors are re-ranked by finer ones, the number of these is
measured too.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from xjepa_jax.retrieval.embedding.files import EmbeddingFiles, table_vectors

EVERYTHING = "all"  # the direction without a filter
_K = 10
_QUERIES = 1000
# The measured recall of 1,000 queries fluctuates by about this much. The target is raised by twice
# as much, because real queries may lie further off than rows do. Where not even all lists reach the
# target, this much recall is given up, since the last lists cost most and find least.
_STRAY = 0.002
_REFINE = 10  # smallest multiple of k to re-rank; a smaller one would save next to nothing
_BLOCK = 1 << 15


@dataclasses.dataclass(frozen=True)
class Effort:
  """The cost of a query.

  Attributes:
    nprobe: number of lists to probe.
    refine: multiple of k to re-rank; 1 for none.
  """

  nprobe: int
  refine: int


class Probe(Protocol):
  """A search that probes some of the lists; `mask` (N,) bool has the rows that may be hits."""

  def __call__(
    self, vectors: np.ndarray, k: int, effort: Effort, mask: np.ndarray | None = None
  ) -> tuple[np.ndarray, np.ndarray]:
    """(Q, k) scores and rows."""


Recalls = Mapping[str, Callable[[Effort], float]]  # one function per direction


def lists_looked_at(nprobe: int, lists: int, share: float) -> int:
  """Number of lists to probe with a filter that lets a fraction `share` of the rows pass.

  These rows are sparser in the lists, so more lists are probed to see as many as without a filter.
  """
  return min(lists, math.ceil(nprobe / share))


def least_effort(
  files: EmbeddingFiles, of: Mapping[str, np.ndarray], probe: Probe, most: Effort, settings: Any
) -> tuple[Effort, dict[str, float]]:
  """The least effort that finds the ten nearest neighbours of a sample of rows.

  First the fewest lists are found with the largest re-ranking; then, unless `settings.refine` gives
  it, the smallest re-ranking with these lists.

  Args:
    files: the rows of the index; some serve as queries, each without itself as a hit.
    of: sensor -> (N,) bool, its rows.
    probe: the search.
    most: all lists, and the largest re-ranking.
    settings: `FaissSettings` with "recall", "refine" and "seed".

  Returns:
    The effort, whose `nprobe` is meant for `lists_looked_at`, and the recall with it: for all rows
    without a filter ("all"), and for rows of a with a filter to b ("a->b"). If the stored vectors
    are too coarse for the requested recall, it is almost the best that they can reach.
  """
  recalls = _directions(files, of, probe, most.nprobe, settings.seed)

  def reaching(goals: Mapping[str, float]) -> tuple[int, dict[str, float]] | None:
    return _fewest(
      1, most.nprobe, lambda nprobe: _reached(recalls, goals, Effort(nprobe, most.refine))
    )

  goals = dict.fromkeys(recalls, min(settings.recall + 2 * _STRAY, 1.0))
  answer = reaching(goals)
  if answer is None:
    goals = {name: _goal(recall(most), settings.recall) for name, recall in recalls.items()}
    answer = reaching(goals)
  assert answer is not None  # the goals are now what all lists reach
  nprobe, found = answer
  if settings.refine:
    return Effort(nprobe, most.refine), found
  lower = {name: _lower(goal, settings.recall) for name, goal in goals.items()}
  fewer = _fewest(
    min(_REFINE, most.refine),
    most.refine,
    lambda refine: _reached(recalls, lower, Effort(nprobe, refine)),
  )
  assert fewer is not None  # the largest re-ranking reaches the goals
  refine, found = fewer
  return Effort(nprobe, refine), found


def neighbours(
  files: EmbeddingFiles, queries: np.ndarray, own: np.ndarray, of: Mapping[str, np.ndarray]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """The ten largest inner products of queries with each sensor's rows, in one pass over the files.

  Args:
    files: embeddings of the archive.
    queries: (Q, K).
    own: (Q,) the row of each query, which does not count as a neighbour.
    of: sensor -> (N,) bool, its rows.

  Returns:
    sensor -> (Q, 10) scores and rows, best first; -inf and -1 if the sensor has fewer rows.
  """
  size = len(queries), _K
  best = {key: (np.full(size, -np.inf, np.float32), np.full(size, -1, np.int64)) for key in of}
  start = 0
  for table in files.tables(_BLOCK, columns=["embedding"]):
    vectors = table_vectors(table)
    for key, rows in of.items():
      here = np.flatnonzero(rows[start : start + len(vectors)])
      if not len(here):
        continue
      some = queries @ vectors[here].T
      here += start
      itself = np.searchsorted(here, own)
      among = np.flatnonzero(here[np.minimum(itself, len(here) - 1)] == own)
      # A query is not a neighbour of itself.
      some[among, itself[among]] = -np.inf
      keep = min(_K, len(here))
      at = np.argpartition(-some, keep - 1, axis=1)[:, :keep]
      best[key] = _best([best[key], (np.take_along_axis(some, at, axis=1), here[at])])
    start += len(vectors)
  return best


def _sample(of: Mapping[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
  """Increasing numbers of the rows that serve as queries, equally many per sensor if possible."""
  each = -(-_QUERIES // max(len(of), 1))
  rows = [np.flatnonzero(mask) for mask in of.values()]
  chosen = [rng.choice(some, min(len(some), each), replace=False) for some in rows]
  return np.sort(np.concatenate(chosen))


def _best(found: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
  """The ten best of several lists of scores and rows, (Q, 10) each."""
  scores, rows = (np.concatenate(each, axis=1) for each in zip(*found, strict=True))
  order = np.argsort(-scores, axis=1, kind="stable")[:, :_K]
  scores, rows = (np.take_along_axis(each, order, axis=1) for each in (scores, rows))
  return scores, np.where(scores > -np.inf, rows, -1)


def _merged(truths: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
  """(Q, 10) the nearest rows of any sensor."""
  return _best(list(truths.values()))[1]


def _directions(
  files: EmbeddingFiles, of: Mapping[str, np.ndarray], probe: Probe, lists: int, seed: int
) -> Recalls:
  """Recall functions without a filter, and from each sensor to each other one."""
  own = _sample(of, np.random.default_rng(seed))
  queries = files.vectors_of(own)
  truths = neighbours(files, queries, own, of)
  recalls = {EVERYTHING: _recall(probe, queries, own, _merged(truths), lists)}
  for a, b in itertools.permutations(of, 2):
    mine = of[a][own]
    if mine.any() and of[b].any():
      truth = truths[b][1][mine]
      recalls[f"{a}->{b}"] = _recall(probe, queries[mine], own[mine], truth, lists, of[b])
  return recalls


def _recall(
  probe: Probe,
  queries: np.ndarray,
  own: np.ndarray,
  truth: np.ndarray,
  lists: int,
  mask: np.ndarray | None = None,
) -> Callable[[Effort], float]:
  """A function that measures the fraction of `truth` (Q, 10) found; `lists` is their total."""
  share = 1.0 if mask is None else float(mask.mean())
  wanted = int((truth >= 0).sum())

  def recall(effort: Effort) -> float:
    thinner = dataclasses.replace(effort, nprobe=lists_looked_at(effort.nprobe, lists, share))
    # One more than needed, because the query's own row is found and dropped.
    _, rows = probe(queries, _K + 1, thinner, mask)
    found = [
      len(np.intersect1d(true[true >= 0], row[row != itself][:_K]))
      for true, row, itself in zip(truth, rows, own, strict=True)
    ]
    return sum(found) / max(wanted, 1)

  return recall


def _goal(best: float, wanted: float) -> float:
  """The recall to reach if all lists together reach no more than `best`."""
  if wanted == 1:
    return best
  given_away = best - _STRAY
  return given_away if best < wanted else min(max(given_away, wanted), wanted + 2 * _STRAY)


def _lower(goal: float, wanted: float) -> float:
  """The recall to keep with a smaller re-ranking, given that the lists reach only the goal."""
  return max(goal - _STRAY / 2, wanted if goal >= wanted else 0)


def _reached(
  recalls: Recalls, goals: Mapping[str, float], effort: Effort
) -> dict[str, float] | None:
  """The recall of every direction, or None as soon as one of them misses its goal."""
  found = {}
  for name, recall in recalls.items():
    found[name] = recall(effort)
    if found[name] < goals[name]:
      return None
  return found


def _fewest(
  least: int, most: int, reached: Callable[[int], dict[str, float] | None]
) -> tuple[int, dict[str, float]] | None:
  """The smallest number that reaches the goals, and its recalls; None if `most` does not.

  Recall grows with the number, and so does the time to measure it, so small numbers are tried
  first.
  """
  tried = least
  while (found := reached(tried)) is None:
    if tried == most:
      return None
    least, tried = tried + 1, min(2 * tried, most)
  most = tried
  while least < most:
    middle = (least + most) // 2
    reaches = reached(middle)
    if reaches is not None:
      most, found = middle, reaches
    else:
      least = middle + 1
  return least, found
