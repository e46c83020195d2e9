"""The table of a retrieval evaluation: one row per direction, with what it measured.

Across two sensors the only true answer is the co-located scene (R@k, MRR). With labels, an answer
is relevant if it shares at least one with the query, and nDCG grades it by how many; without
labels, only the co-located scene is relevant. Within a sensor the query itself is left out, and
only labels can be evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from xjepa_jax.errors import EvaluationError
from xjepa_jax.retrieval.direction import Direction
from xjepa_jax.retrieval.ranking import score_blocks
from xjepa_jax.retrieval.row import Measures, Row, measure

__all__ = ["Row", "evaluate_directions", "evaluate_similarity", "evaluate_vectors", "unit_rows"]


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
  """Rows for all ordered pairs of sensors, ranked by the cosine of descriptors.

  Args:
    descriptors: sensor -> (P, K); row p of every sensor is scene p. Rows of absent scenes are not
      read.
    present: sensor -> (P,) bool, whether the scene has that sensor.
    labels: (P, L) bool, the scenes' label sets, or None. Without labels nothing can be measured
      within a sensor, and there is no such row.
    k: the cut-offs.
    queries: (P,) bool, the scenes used as queries (for example the validation split); all if None.
    archive: (P,) bool, the scenes that are searched (for example the test split); all if None.
    centre: subtract from each sensor's descriptors their own mean over the scenes that are queries
      or are searched. This removes a modality gap, but it uses the evaluated scenes to do so.

  Returns:
    A row for every ordered pair of sensors in the order of `descriptors`; none for a pair without
    queries or without an archive.

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
    sensor: unit_rows(values, asks[sensor] | searched[sensor], centre)
    for sensor, values in descriptors.items()
  }
  similarity = "cosine of descriptors" + (", each sensor centred on its mean" if centre else "")
  found = [
    evaluate_vectors(
      Direction(one, other, np.flatnonzero(asks[one]), np.flatnonzero(searched[other])),
      units[one],
      units[other],
      labels,
      Measures(k),
      similarity=similarity,
    )
    for one in descriptors
    for other in descriptors
  ]
  return [row for row in found if row is not None]


def evaluate_vectors(
  direction: Direction,
  queries: np.ndarray,
  archive: np.ndarray,
  labels: np.ndarray | None,
  measures: Measures,
  *,
  method: str = "descriptors",
  similarity: str = "cosine of descriptors",
) -> Row | None:
  """The row of one direction, with separate vectors for queries and archive.

  Args:
    direction: the queries and the archive.
    queries: (P, K) vectors of all scenes, of unit length; only those of the queries are read.
    archive: (P, K), the same for the archive.
    labels: (P, L) bool, or None.
    measures: the metrics to compute.
    method, similarity: names that the row carries.

  Returns:
    None if there are no queries, there is no archive, a scene could only find itself, or nothing is
    known to be relevant (no labels, and the query's own scene is left out).

  Raises:
    EvaluationError: shapes disagree, or a vector is not finite.
  """
  if not len(direction.asking) or not len(direction.found):
    return None
  if direction.answers.min() < 1 or (labels is None and not direction.located):
    return None
  blocks = score_blocks(queries[direction.asking], archive[direction.found])
  return measure(direction, blocks, labels, measures, method, similarity)


def evaluate_similarity(
  query: str,
  archive: str,
  similarity: np.ndarray,
  labels: np.ndarray | None = None,
  k: Sequence[int] = (1, 5, 10),
  *,
  method: str,
) -> Row:
  """The row of a baseline that has similarities but no descriptors.

  Args:
    query, archive: sensors.
    similarity: (P, P) for P scenes that have both sensors. Entry (p, p) belongs to the co-located
      scene, or within a sensor to the query itself.
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
  direction = Direction(query, archive, scenes, scenes)
  return measure(direction, blocks, labels, Measures(k), method, method)


def unit_rows(values: np.ndarray, used: np.ndarray, centre: bool = False) -> np.ndarray:
  """Descriptors (P, K) as float32 of unit length; rows not `used` and null vectors become 0."""
  values = np.where(used[:, None], values, 0).astype(np.float64)
  if centre and used.any():
    values = np.where(used[:, None], values - values[used].mean(axis=0), 0)
  length = np.linalg.norm(values, axis=1, keepdims=True)
  return (values / np.where(length == 0, 1, length)).astype(np.float32)


def _both(present: np.ndarray, chosen: np.ndarray | None) -> np.ndarray:
  return np.asarray(present, bool) if chosen is None else np.asarray(present & chosen, bool)
