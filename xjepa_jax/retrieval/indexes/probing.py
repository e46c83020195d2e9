"""How many lists a query has to look at, measured on the archive itself."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from xjepa_jax.retrieval.embedding.files import EmbeddingFiles, table_vectors

_K = 10
_QUERIES = 1000
# The measured recall of 1,000 queries strays by about this much: asked for above the goal, and
# given away where not even all lists reach it, for the last lists cost most and find least.
_MARGIN = 0.002
_BLOCK = 1 << 15


class Probe(Protocol):
  """A search that looks at some lists."""

  def __call__(self, vectors: np.ndarray, k: int, nprobe: int) -> tuple[np.ndarray, np.ndarray]:
    """(Q, k) scores and rows."""


def fewest_probes(files: EmbeddingFiles, probe: Probe, settings: Any) -> tuple[int, float]:
  """The fewest lists with which the ten nearest neighbours of some rows are found.

  Args:
    files: the rows of the index; some are taken as queries, each without itself as a hit.
    probe: the search.
    settings: `FaissSettings` with "recall", "lists" and "seed".

  Returns:
    A number of lists, and the recall with it. Where stored vectors are too coarse for the recall
    that is asked for, almost the best that they can do.
  """
  rng = np.random.default_rng(settings.seed)
  own = np.sort(rng.choice(len(files), min(len(files), _QUERIES), replace=False))
  queries = files.vectors_of(own)
  truth = neighbours(files, queries, own)

  def recall(nprobe: int) -> float:
    _, rows = probe(queries, _K + 1, nprobe)
    found = [
      len(np.intersect1d(true, row[row != itself][:_K]))
      for true, row, itself in zip(truth, rows, own, strict=True)
    ]
    return sum(found) / truth.size

  least, most = 1, settings.lists
  best = recall(most)
  goal = settings.recall + _MARGIN
  if goal > best:
    goal = best if settings.recall == 1 else best - _MARGIN
  while least < most:  # recall grows with the lists looked at
    middle = (least + most) // 2
    found = recall(middle)
    if found >= goal:
      most, best = middle, found
    else:
      least = middle + 1
  return least, best


def neighbours(files: EmbeddingFiles, queries: np.ndarray, own: np.ndarray) -> np.ndarray:
  """(Q, 10) rows with the largest inner products with queries (Q, K), but for their `own` (Q,)."""
  scores = np.full((len(queries), 0), -np.inf, np.float32)
  rows = np.zeros((len(queries), 0), np.int64)
  start = 0
  for table in files.tables(_BLOCK, columns=["embedding"]):
    some = queries @ table_vectors(table).T
    here = (own >= start) & (own < start + len(table))
    some[here, own[here] - start] = -np.inf
    keep = min(_K, some.shape[1])
    at = np.argpartition(-some, keep - 1, axis=1)[:, :keep]
    scores = np.concatenate([scores, np.take_along_axis(some, at, axis=1)], axis=1)
    rows = np.concatenate([rows, at + start], axis=1)
    best = np.argsort(-scores, axis=1)[:, :_K]
    scores = np.take_along_axis(scores, best, axis=1)
    rows = np.take_along_axis(rows, best, axis=1)
    start += len(table)
  return rows
