"""Carries out an evaluation protocol on the vectors of scenes.

The same code serves encoders, baselines and other models, so that their rows can be compared. A
protocol that can measure nothing is an error with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from xjepa_jax.errors import EvaluationError
from xjepa_jax.retrieval.bootstrap import RESAMPLES
from xjepa_jax.retrieval.direction import Direction
from xjepa_jax.retrieval.directions import Row, evaluate_vectors
from xjepa_jax.retrieval.protocols import LABELS, Protocol
from xjepa_jax.retrieval.ranking import score_blocks
from xjepa_jax.retrieval.relevance import label_sets
from xjepa_jax.retrieval.row import Measures
from xjepa_jax.retrieval.scene_vectors import SceneVectors

PREDICTED = "predict-then-search"
# Two descriptors with at least this cosine agree to five digits.
_SAME = 1 - 1e-5
_SIMILARITY = {PREDICTED: "cosine of predicted and plain descriptors"}


def protocol_rows(
  protocol: Protocol,
  scenes: SceneVectors,
  methods: tuple[str, str] = ("descriptors", PREDICTED),
  resamples: int = RESAMPLES,
) -> list[Row]:
  """Rows of every direction that the protocol can measure, plain and predicted.

  Args:
    protocol: chooses queries, archive and what is relevant.
    scenes: the scenes, with their splits, and labels if the protocol needs them.
    methods: row names for plain and for predicted queries.
    resamples: number of bootstrap resamples.

  Raises:
    EvaluationError: nothing can be measured; the message has the reason.
  """
  labels = label_sets(scenes.labels) if protocol.relevant == LABELS else None
  if protocol.relevant == LABELS and labels is None:
    raise EvaluationError(
      f"protocol {protocol.name!r} compares labels, and no scene has any. Name a data set that has "
      "(--pairs), or a column (--labels-column)."
    )
  if protocol.queries != protocol.archive and not scenes.split_known:
    raise EvaluationError(
      f"protocol {protocol.name!r} lets the split {protocol.queries!r} ask and searches "
      f"{protocol.archive!r}, and it is not known which scenes are of which. Name the data set "
      "(--pairs), a column (--split-column), or one split for both (--split)."
    )
  found = scene_rows(protocol, scenes, labels, methods, resamples)
  if not found:
    raise EvaluationError(_nothing(protocol, scenes))
  return found


def scene_rows(
  protocol: Protocol,
  scenes: SceneVectors,
  labels: np.ndarray | None,
  methods: tuple[str, str] = ("descriptors", PREDICTED),
  resamples: int = RESAMPLES,
) -> list[Row]:
  """Same as `protocol_rows`, with labels (P, L) whether or not the protocol needs them.

  Across sensors, recall always refers to the co-located scene, whatever the labels. An empty result
  is not an error.
  """
  measures = Measures(protocol.cuts, protocol.whole, resamples)
  rows = [
    evaluate_vectors(
      direction,
      queries,
      scenes.vectors[direction.archive],
      labels,
      measures,
      method=method,
      similarity=_SIMILARITY.get(method, f"cosine of {method}"),
    )
    for direction in directions_of(protocol, scenes)
    for method, queries in _asking(direction, scenes, methods)
  ]
  return [row for row in rows if row is not None]


def directions_of(protocol: Protocol, scenes: SceneVectors) -> Iterator[Direction]:
  """All ordered pairs of sensors, including each sensor with itself."""
  asks, searched = scenes.of(protocol.queries), scenes.of(protocol.archive)
  for one in scenes.vectors:
    for other in scenes.vectors:
      yield Direction(
        one,
        other,
        np.flatnonzero(scenes.present[one] & asks),
        np.flatnonzero(scenes.present[other] & searched),
        protocol.leave_out,
      )


def duplicate_rate(protocol: Protocol, scenes: SceneVectors) -> dict[str, float]:
  """sensor -> fraction of archive vectors with a duplicate, a cosine of 1 to five digits.

  If many scenes share one descriptor, their ranking is random, whatever the recall.
  """
  searched = scenes.of(protocol.archive)
  found = {}
  for sensor, vectors in scenes.vectors.items():
    units = vectors[scenes.present[sensor] & searched]
    doubles = np.zeros(len(units), bool)
    for rows, block in score_blocks(units, units):
      # A vector is not a duplicate of itself.
      block[np.arange(len(block)), np.arange(len(units))[rows]] = -1
      doubles[rows] = block.max(axis=1, initial=-1) >= _SAME
    found[sensor] = float(doubles.mean()) if len(units) else 0.0
  return found


def _asking(
  direction: Direction, scenes: SceneVectors, methods: tuple[str, str]
) -> Iterator[tuple[str, np.ndarray]]:
  """Yields (method, (P, K) query vectors) for a direction."""
  plain, predicted = methods
  # Plain vectors of different sensors are comparable only if they share one space.
  if scenes.one_space or not direction.across:
    yield plain, scenes.asking.get(direction.query, scenes.vectors[direction.query])
  route = f"{direction.query}->{direction.archive}"
  if route in scenes.predicted:
    yield predicted, scenes.predicted[route]


def _nothing(protocol: Protocol, scenes: SceneVectors) -> str:
  splits = ", ".join(sorted({str(each) for each in scenes.splits} - {""})) or "none known"
  held = ", ".join(f"{key} {int(each.sum()):,}" for key, each in scenes.present.items())
  return (
    f"protocol {protocol.name!r} has nothing to measure: queries of split {protocol.queries!r}, "
    f"archive of split {protocol.archive!r}; the scenes' splits: {splits}, their sensors: {held}. "
    "A location can be searched across two sensors only, which share the scenes' ids."
  )
