"""An archive in the order in which it answers a query.

Everywhere: the higher score comes first, and of equal scores the lower archive index, so a ranking
does not depend on a sort's whims. (Equal descriptors get equal scores only as far as the matrix
product computes both alike; it may differ in the last bit.) A query's own entry can be left out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from xjepa_jax.errors import EvaluationError

# Scores held at a time, 64 MiB of float32: what bounds the memory however many the queries.
BLOCK_SCORES = 1 << 24
NOTHING = -1  # in `exclude`: this query has no entry to leave out


def ranked(similarity: np.ndarray, exclude: np.ndarray | None = None) -> np.ndarray:
  """The whole archive in the order in which it answers each query.

  Args:
    similarity: (Q, A) scores, the higher the nearer.
    exclude: (Q,) int, the archive index to leave out of each query's ranking, or None. Every
      query has one, for the result is a rectangle.

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
  return order[order != np.asarray(exclude)[:, None]].reshape(queries, archive - 1)


def first(similarity: np.ndarray, k: int, exclude: np.ndarray | None = None) -> np.ndarray:
  """The k best answers to each query: `ranked(...)[:, :k]`, without sorting the rest.

  Args:
    similarity: (Q, A) scores.
    k: how many, at most A, or A - 1 if anything is left out.
    exclude: (Q,) int, as for `ranked`; `NOTHING` (-1) where a query leaves nothing out.

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
  # All above the k-th score, and of those equal to it the lowest indices: exactly k a row.
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
  """The place, from 1 on, at which each query's ranking has the archive's `item` (Q,) int.

  Returns:
    (Q,) int: 1 + the items scored higher + the equal ones of a lower index.

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
  """The k entries of an archive with the largest inner product with each query.

  Args:
    queries: (Q, K) descriptors; of unit length if the cosine is meant.
    archive: (A, K).
    k: how many.
    exclude: (Q,) int, as for `first`.

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
  """The inner products of queries (Q, K) with an archive (A, K), some queries at a time.

  Yields:
    Which queries, and their (rows, A) scores; at most `BLOCK_SCORES`, but one query at least.

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
  """Refuses scores that have no order.

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
  """Scores with each query's excluded entry last."""
  if exclude is None:
    return similarity
  scores = similarity.copy()
  queries = np.flatnonzero(np.asarray(exclude) != NOTHING)
  scores[queries, np.asarray(exclude)[queries]] = -np.inf
  return scores
