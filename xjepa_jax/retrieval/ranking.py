"""Ranks an archive by its scores with each query.

The higher score always comes first, and the lower archive index among equal scores, so that a
ranking does not depend on the sorting algorithm. (Equal descriptors have equal scores only if the
matrix product computes both alike; they may differ in the last bit.) A query's own entry can be
left out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from xjepa_jax.errors import EvaluationError

# Scores in memory at a time, 64 MiB as float32. This bounds memory for any number of queries.
BLOCK_SCORES = 1 << 24
NOTHING = -1  # in `exclude`: nothing is left out for this query


def ranked(similarity: np.ndarray, exclude: np.ndarray | None = None) -> np.ndarray:
  """The whole archive in ranking order for each query.

  Args:
    similarity: (Q, A) scores; higher is nearer.
    exclude: (Q,) int, the archive index to leave out of each query's ranking, or None. Every query
      has to leave one out, because the result is rectangular.

  Returns:
    (Q, A) int archive indices, or (Q, A - 1) with `exclude`.

  Raises:
    EvaluationError: a score is not finite, or an excluded index is not in the archive.
  """
  check_scores(similarity)
  order = np.argsort(-similarity, axis=1, kind="stable")
  if exclude is None:
    return order
  queries, archive = similarity.shape
  if len(exclude) != queries or np.any((exclude < 0) | (exclude >= archive)):
    raise EvaluationError(
      f"exclude: expected one index from 0 to {archive - 1} for each of {queries} queries, found "
      f"{len(exclude)} from {np.min(exclude, initial=0)} to {np.max(exclude, initial=0)}."
    )
  # Every row loses exactly one entry, so the result stays rectangular.
  return order[order != np.asarray(exclude)[:, None]].reshape(queries, archive - 1)


def first(similarity: np.ndarray, k: int, exclude: np.ndarray | None = None) -> np.ndarray:
  """The k best answers to each query: `ranked(...)[:, :k]`, without sorting the rest.

  Args:
    similarity: (Q, A) scores.
    k: number of answers, at most A, or A - 1 if anything is left out.
    exclude: (Q,) int, as in `ranked`, but `NOTHING` (-1) for a query that leaves nothing out.

  Returns:
    (Q, k) int archive indices.

  Raises:
    EvaluationError: a score is not finite, or there are fewer than k answers.
  """
  check_scores(similarity)
  scores = _without(similarity, exclude)
  queries, archive = scores.shape
  left_out = exclude is not None and bool(np.any(np.asarray(exclude) != NOTHING))
  if not 1 <= k <= archive - left_out:
    raise EvaluationError(f"k is {k}, and the archive has {archive - left_out} answers to rank.")
  # All above the k-th score, plus the lowest indices of those equal to it: exactly k per row.
  threshold = np.partition(scores, archive - k, axis=1)[:, archive - k, None]
  above, equal = scores > threshold, scores == threshold
  free = k - above.sum(axis=1, keepdims=True)
  chosen = np.nonzero(above | (equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= free)))[
    1
  ].reshape(queries, k)
  order = np.argsort(-np.take_along_axis(scores, chosen, axis=1), axis=1, kind="stable")
  return np.take_along_axis(chosen, order, axis=1)


def places(
  similarity: np.ndarray, item: np.ndarray, exclude: np.ndarray | None = None
) -> np.ndarray:
  """The rank, counted from 1, of the archive entry `item` (Q,) int for each query.

  Returns:
    (Q,) int: 1 + the number of entries scored higher + the number of equal ones at a lower index.

  Raises:
    EvaluationError: a score is not finite.
  """
  check_scores(similarity)
  scores = _without(similarity, exclude)
  own = np.take_along_axis(scores, np.asarray(item)[:, None], axis=1)
  before = np.arange(scores.shape[1]) < np.asarray(item)[:, None]
  return 1 + np.sum((scores > own) | ((scores == own) & before), axis=1)


def top(
  queries: np.ndarray, archive: np.ndarray, k: int, exclude: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """The k archive entries with the largest inner product with each query.

  Args:
    queries: (Q, K) descriptors, of unit length for the cosine.
    archive: (A, K).
    k: number of entries.
    exclude: (Q,) int, as in `first`.

  Returns:
    (Q, k) int archive indices and (Q, k) scores, best first.

  Raises:
    EvaluationError: a descriptor is not finite, or there are fewer than k answers.
  """
  indices, scores = [np.zeros((0, k), np.int64)], [np.zeros((0, k), queries.dtype)]
  for rows, block in score_blocks(queries, archive):
    best = first(block, k, None if exclude is None else exclude[rows])
    indices.append(best)
    scores.append(np.take_along_axis(block, best, axis=1))
  return np.concatenate(indices), np.concatenate(scores)


def score_blocks(queries: np.ndarray, archive: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
  """Inner products of queries (Q, K) with an archive (A, K), computed in blocks of queries.

  Yields:
    The slice of queries, and their (rows, A) scores; at most `BLOCK_SCORES` scores, but always at
    least one query.

  Raises:
    EvaluationError: the descriptors' sizes differ, or a descriptor is not finite.
  """
  if queries.ndim != 2 or archive.ndim != 2 or queries.shape[1] != archive.shape[1]:
    raise EvaluationError(
      f"descriptors of queries {queries.shape} and archive {archive.shape}: expected (Q, K) and "
      "(A, K) of one size K, from the same head."
    )
  for name, values in (("queries", queries), ("archive", archive)):
    if not np.isfinite(values).all():
      row = int(np.argmin(np.isfinite(values).all(axis=1)))
      raise EvaluationError(f"the {name}' descriptor {row} is not finite; the model diverged?")
  rows = max(1, BLOCK_SCORES // max(1, len(archive)))
  for start in range(0, len(queries), rows):
    block = slice(start, min(start + rows, len(queries)))
    yield block, queries[block] @ archive.T


def check_scores(similarity: np.ndarray) -> None:
  """Refuses scores that cannot be ordered.

  Raises:
    EvaluationError: `similarity` is not (Q, A) floating point, or a score is not finite.
  """
  if similarity.ndim != 2 or similarity.dtype.kind != "f":
    raise EvaluationError(
      f"scores of shape {similarity.shape} and type {similarity.dtype}; expected (queries, "
      "archive) of floating point."
    )
  if not np.isfinite(similarity).all():
    query, entry = np.argwhere(~np.isfinite(similarity))[0]
    raise EvaluationError(f"the score of query {query} and archive entry {entry} is not finite.")


def _without(similarity: np.ndarray, exclude: np.ndarray | None) -> np.ndarray:
  """A copy of the scores in which each query's excluded entry is last."""
  if exclude is None:
    return similarity
  scores = similarity.copy()
  queries = np.flatnonzero(np.asarray(exclude) != NOTHING)
  scores[queries, np.asarray(exclude)[queries]] = -np.inf
  return scores
