"""How well scenes of one sensor find those of another, and what the space looks like."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from xjepa_jax.retrieval.describe import Described, Descriptors, centres, describe_split, normalised
from xjepa_jax.retrieval.directions import Row, evaluate_directions
from xjepa_jax.retrieval.validation_score import validation_score
from xjepa_jax.training.collapse import MIN_STEP, Measurement, diagnose
from xjepa_jax.training.experiment import Experiment, device_batch
from xjepa_jax.training.geometry import describe_geometry
from xjepa_jax.training.state import TrainState
from xjepa_jax.training.target import find_target

CUTS = (1, 5, 10)
_JUDGED = "recall@5"  # the hit rate that a collapse is judged by


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """One split, measured.

  Attributes:
    described: its pairs.
    centre: head -> sensor -> (K,), what was taken from the descriptors.
    descriptors: head -> sensor -> (P, K), centred and of length 1.
    rows: head -> a row for every direction.
    geometry: of the head ranked first, see `training.geometry`.
  """

  described: Described
  centre: Descriptors
  descriptors: Descriptors
  rows: Mapping[str, Sequence[Row]]
  geometry: Mapping[str, float]


def chosen_encoder(experiment: Experiment, state: TrainState) -> Any:
  """The encoder's parameters that the config evaluates: the target's or the trained ones."""
  if experiment.config.evaluation.encoder == "online":
    return state.params["encoder"]
  return find_target(state.opt_state)


def evaluate(experiment: Experiment, state: TrainState, split: str) -> Evaluation:
  """Describes a split and ranks it, in every direction, by every head."""
  encoder = chosen_encoder(experiment, state)
  described = describe_split(experiment, encoder, split, experiment.config.evaluation.pairs)
  centre = centres(experiment, encoder)
  descriptors = normalised(described.descriptors, centre)
  labels = described.label_sets()
  return Evaluation(
    described=described,
    centre=centre,
    descriptors=descriptors,
    rows={
      head: evaluate_directions(by_sensor, described.present, labels, CUTS)
      for head, by_sensor in descriptors.items()
    },
    geometry=geometry_of(experiment, state, described, split),
  )


def geometry_of(
  experiment: Experiment, state: TrainState, described: Described, split: str
) -> dict[str, float]:
  """The geometry of the head ranked first, on the pairs of a split that are described."""
  return describe_geometry(
    described.descriptors[experiment.config.evaluation.head],
    described.present,
    _predictions(experiment, state, split),
  )


def first_tokens(experiment: Experiment, encoder: Any, split: str) -> dict[str, np.ndarray]:
  """sensor -> (B, N, D): tokens of the first batch of a split, of at most `SHOWN` samples."""
  for _, batches in experiment.passes(split):
    for batch in batches:
      found: dict[str, np.ndarray] = jax.device_get(experiment.tokens(encoder, device_batch(batch)))
      return found
  return {}


def scalars(evaluation: Evaluation, head: str) -> dict[str, float]:
  """An evaluation as numbers for the metric writers.

  Retrieval by the head ranked first is "validation/a->b/recall@1" and the like, by another head
  "validation/HEAD/a->b/recall@1"; "geometry/rankme/a" and the like; and "validation/score", by
  which the best checkpoint is chosen, where there is one: see `validation_score`.
  "chance/a->b/recall@5" and "chance/queries" are what a collapse is judged against.
  """
  found = {f"geometry/{name}": value for name, value in evaluation.geometry.items()}
  for name, rows in evaluation.rows.items():
    for row in rows:
      where = "validation/" if name == head else f"validation/{name}/"
      for metric, value in row.metrics.items():
        found[f"{where}{row.query}->{row.archive}/{metric}"] = value
  across = [row for row in evaluation.rows[head] if row.query != row.archive]
  if across:
    found["chance/queries"] = float(min(row.co_located for row in across))
  for row in across:
    if _JUDGED in row.chance:
      found[f"chance/{row.query}->{row.archive}/{_JUDGED}"] = row.chance[_JUDGED]
  score = validation_score(evaluation.rows[head], CUTS)
  if score is not None:
    found["validation/score"] = score
  return found


class Validation:
  """Evaluates while training, and remembers what it saw, to tell a collapse.

  A run that is continued is judged as one that was not interrupted.
  """

  def __init__(self, experiment: Experiment, rows: Sequence[Mapping[str, float]] = ()):
    """Begins with what was measured before.

    Args:
      experiment: the run.
      rows: of `metrics.jsonl`, up to the step from which it is continued.
    """
    self.experiment = experiment
    size = experiment.config.heads[experiment.config.evaluation.head].size
    self.latest: Evaluation | None = None  # what the last call measured
    self.history = [found for row in rows if (found := _remembered(row, size)) is not None]

  @property
  def verdict(self) -> str:
    """What is wrong with the space by all that was measured, in words, "" if nothing is."""
    warmup = self.experiment.config.optimizer.warmup
    verdict = diagnose(self.history, max(MIN_STEP, warmup))
    return "" if verdict is None else str(verdict)

  def __call__(self, state: TrainState, step: int) -> tuple[dict[str, float], str]:
    """Scalars of the validation split, and a verdict in words, "" if all is well."""
    config = self.experiment.config
    head = config.evaluation.head
    evaluation = evaluate(self.experiment, state, config.data.validation)
    self.latest = evaluation
    self.history.append(_measurement(evaluation, head, step))
    return scalars(evaluation, head), self.verdict


def _measurement(evaluation: Evaluation, head: str, step: int) -> Measurement:
  across = [
    row
    for row in evaluation.rows[head]
    if row.query != row.archive and _JUDGED in row.metrics and _JUDGED in row.chance
  ]
  return Measurement(
    step=step,
    dimensions=next(iter(evaluation.descriptors[head].values())).shape[1],
    geometry=evaluation.geometry,
    recall={f"{row.query}->{row.archive}": row.metrics[_JUDGED] for row in across},
    chance={f"{row.query}->{row.archive}": row.chance[_JUDGED] for row in across},
    queries=min((row.co_located for row in across), default=0),
  )


def _remembered(row: Mapping[str, float], dimensions: int) -> Measurement | None:
  """The measurement that `scalars` made a row of; None for a row of something else."""
  chance = {
    key.split("/")[1]: value
    for key, value in row.items()
    if key.startswith("chance/") and key.endswith(f"/{_JUDGED}")
  }
  recall = {each: row.get(f"validation/{each}/{_JUDGED}", math.nan) for each in chance}
  described = any(key.startswith("geometry/rankme/") for key in row)
  if not described or any(map(math.isnan, recall.values())):
    return None
  return Measurement(
    step=int(row["step"]),
    dimensions=dimensions,
    geometry={
      # JSON has no infinity, and nothing else of the geometry is ever not finite.
      key.removeprefix("geometry/"): math.inf if math.isnan(value) else value
      for key, value in row.items()
      if key.startswith("geometry/")
    },
    recall=recall,
    chance=chance,
    queries=int(row.get("chance/queries", 0)),
  )


def _predictions(
  experiment: Experiment, state: TrainState, split: str
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """route -> predicted and target tokens and their places, of a batch's first under one mask.

  Of the first batch of the first data set that has the route's sensors in it.
  """
  seen: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
  if not experiment.model.routes:
    return seen
  target = find_target(state.opt_state)
  for _, batches in experiment.passes(split):
    for batch in itertools.islice(batches, 1):
      found = experiment.predict(state.params, target, device_batch(batch))
      for route, arrays in _seen_predictions(jax.device_get(found)).items():
        if not len(seen.get(route, ((),))[0]):
          seen[route] = arrays
    if all(len(predicted) for predicted, _, _ in seen.values()):
      break
  return seen


def _seen_predictions(outputs: Any) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Of the samples that have both sensors of a route; places are alike for all samples."""
  found = {}
  for route, predicted in outputs.predicted.items():
    there = np.all([outputs.present[key] for key in route.split("->")], axis=0)
    places = np.broadcast_to(np.arange(predicted.shape[1]), predicted.shape[:2])
    found[route] = (predicted[there], outputs.target[route][there], places[there])
  return found
