"""Retrieval and geometry of a split while training: how well sensors find each other.

Averaged and trained encoders are described in one pass over the data. `Validation` keeps the
history of a run, including the part before a restart, so that a continued run is judged like an
uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from xjepa_jax.model.outputs import Outputs
from xjepa_jax.retrieval.describe import (
  Described,
  Descriptors,
  beginnings,
  centres,
  describe_by_several,
  normalised,
)
from xjepa_jax.retrieval.directions import Row, evaluate_directions
from xjepa_jax.retrieval.encoder_choice import AVERAGED, choose, encoders
from xjepa_jax.retrieval.predictions import latent_scalars, predicted_outputs, route_predictions
from xjepa_jax.retrieval.quantise import cut
from xjepa_jax.retrieval.validation_score import validation_score
from xjepa_jax.training.collapse import MIN_STEP, Measurement, diagnose
from xjepa_jax.training.experiment import Experiment, device_batch
from xjepa_jax.training.geometry import describe_geometry
from xjepa_jax.training.state import TrainState
from xjepa_jax.training.triviality import triviality
from xjepa_jax.training.worsening import worsening

CUTS = (1, 5, 10)
_FIRST = ", first "  # separates head and prefix size in the names of `describe.beginnings`
_JUDGED = "recall@5"  # the metric by which a collapse is diagnosed


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """One split, measured with one encoder.

  Attributes:
    described: descriptors of its pairs.
    centre: head -> sensor -> (K,), subtracted from the descriptors.
    descriptors: head -> sensor -> (P, K), centred and of unit length.
    rows: head -> one row per direction; those of a head's prefixes are keyed "HEAD, first N".
    geometry: geometry of the head ranked first, see `training.geometry`.
  """

  described: Described
  centre: Descriptors
  descriptors: Descriptors
  rows: Mapping[str, Sequence[Row]]
  geometry: Mapping[str, float]


def evaluate(
  experiment: Experiment, state: TrainState, split: str, predicted: Outputs
) -> dict[str, Evaluation]:
  """Describes a split with both encoders in one pass, and ranks every direction with every head.

  Args:
    experiment, state: the run, and the state that is measured.
    split: split of the data sets.
    predicted: outputs for the same split, see `predictions`.

  Returns:
    Evaluations by name, "averaged" and "trained", see `encoder_choice`.
  """
  describers = {
    name: functools.partial(experiment.describe, encoder)
    for name, encoder in encoders(state).items()
  }
  most = experiment.config.evaluation.pairs
  found = describe_by_several(experiment, describers, split, most)
  centre = centres(experiment, describers)
  return {
    name: _evaluation(experiment, described, centre[name][0], predicted)
    for name, described in found.items()
  }


def _evaluation(
  experiment: Experiment, described: Described, centre: Descriptors, predicted: Outputs
) -> Evaluation:
  descriptors = normalised(described.descriptors, centre)
  labels = described.label_sets()
  ranked = dict(descriptors)
  for name, (head, size) in beginnings(experiment.config.heads).items():
    ranked[name] = {key: cut(vectors, size) for key, vectors in descriptors[head].items()}
  return Evaluation(
    described=described,
    centre=centre,
    descriptors=descriptors,
    rows={
      name: evaluate_directions(by_sensor, described.present, labels, CUTS)
      for name, by_sensor in ranked.items()
    },
    geometry=geometry_of(experiment, described, predicted),
  )


def geometry_of(
  experiment: Experiment, described: Described, predicted: Outputs
) -> dict[str, float]:
  """Geometry metrics of the head ranked first, on the described pairs, and of the tokens."""
  found = describe_geometry(
    described.descriptors[experiment.config.evaluation.head],
    described.present,
    route_predictions(predicted),
  )
  shares = described.position_share.items()
  return found | {f"position_share/{key}": each for key, each in shares if math.isfinite(each)}


def first_tokens(experiment: Experiment, encoder: Any, split: str) -> dict[str, np.ndarray]:
  """sensor -> (B, N, D): tokens of the first batch of a split, at most `SHOWN` samples."""
  for _, batches in experiment.passes(split):
    for batch in batches:
      found: dict[str, np.ndarray] = jax.device_get(experiment.tokens(encoder, device_batch(batch)))
      return found
  return {}


def scalars(evaluation: Evaluation, head: str) -> dict[str, float]:
  """An evaluation as flat metrics for the metric writers.

  Retrieval metrics of the head ranked first are named "validation/a->b/recall@1" and so on, those
  of another head "validation/HEAD/a->b/recall@1", and those of its first N numbers
  "validation/HEAD/N/a->b/recall@1". Geometry is named "geometry/rankme/a" and so on.
  "validation/score", which selects the best checkpoint, is the mean of `validation_score` over the
  head ranked first and its prefixes, if any of them has one. "chance/a->b/recall@5" and
  "chance/queries" are the reference by which a collapse is diagnosed.
  """
  found = {f"geometry/{name}": value for name, value in evaluation.geometry.items()}
  found |= {f"validation/{key}": value for key, value in _retrieval(evaluation, head).items()}
  across = [row for row in evaluation.rows[head] if row.query != row.archive]
  if across:
    found["chance/queries"] = float(min(row.co_located for row in across))
  for row in across:
    if _JUDGED in row.chance:
      found[f"chance/{row.query}->{row.archive}/{_JUDGED}"] = row.chance[_JUDGED]
  return found


def scalars_by_encoder(evaluations: Mapping[str, Evaluation], head: str) -> dict[str, float]:
  """Retrieval metrics of both encoders, named "validation/trained/a->b/recall@1" and so on."""
  return {
    f"validation/{name}/{key}": value
    for name, evaluation in evaluations.items()
    for key, value in _retrieval(evaluation, head).items()
  }


def _retrieval(evaluation: Evaluation, head: str) -> dict[str, float]:
  """Metrics of all rows, and the score of the head ranked first."""
  found: dict[str, float] = {}
  for name, rows in evaluation.rows.items():
    before = "" if name == head else f"{name.replace(_FIRST, '/')}/"
    for row in rows:
      way = f"{before}{row.query}->{row.archive}"
      found |= {f"{way}/{metric}": value for metric, value in row.metrics.items()}
  own = [rows for name, rows in evaluation.rows.items() if name.partition(_FIRST)[0] == head]
  scores = [score for rows in own if (score := validation_score(rows, CUTS)) is not None]
  return found | ({"score": float(np.mean(scores))} if scores else {})


class Validation:
  """Evaluates during training, and keeps the history that a collapse is diagnosed from.

  A continued run is judged as if it had not been interrupted.
  """

  def __init__(self, experiment: Experiment, rows: Sequence[Mapping[str, float]] = ()):
    """Starts from the metrics logged so far.

    Args:
      experiment: the run.
      rows: rows of `metrics.jsonl`, up to the step from which the run continues.
    """
    self.experiment = experiment
    size = experiment.config.heads[experiment.config.evaluation.head].size
    # The latest evaluation, and the name of the encoder that it measured.
    self.latest: Evaluation | None = None
    self.chosen = AVERAGED
    remembered = [(row, found) for row in rows if (found := _remembered(row, size)) is not None]
    self.rows = [row for row, _ in remembered]
    self.history = [found for _, found in remembered]

  @property
  def verdict(self) -> str:
    """Diagnosis of the embedding space from all measurements so far; "" if it is healthy."""
    warmup = self.experiment.config.optimizer.warmup
    verdict = diagnose(self.history, max(MIN_STEP, warmup))
    return "" if verdict is None else str(verdict)

  @property
  def warnings(self) -> list[str]:
    """Further warnings from all measurements so far, one or two sentences each.

    There is none before the end of the warm-up, since nothing has been learnt by then.
    """
    experiment = self.experiment
    # The state before the first step is measured too, but gives no warning.
    if not self.rows or self.rows[-1]["step"] < max(experiment.config.optimizer.warmup, 1):
      return []
    step = int(self.rows[-1]["step"])
    taught = {
      label: float(term.weight_at(step)) > 0 for label, term in experiment.objective.terms.items()
    }
    return [words for words in (triviality(self.rows[-1], taught), worsening(self.rows)) if words]

  def __call__(self, state: TrainState, step: int) -> tuple[dict[str, float], str]:
    """Metrics of the validation split, and a diagnosis, "" if all is well."""
    experiment, config = self.experiment, self.experiment.config
    head, split = config.evaluation.head, config.data.validation
    predicted = predicted_outputs(experiment, state, split)
    evaluations = evaluate(experiment, state, split, predicted)
    measured = scalars_by_encoder(evaluations, head)
    self.chosen = choose(config.evaluation.encoder, measured)
    self.latest = evaluations[self.chosen]
    self.history.append(_measurement(self.latest, head, step))
    measured |= scalars(self.latest, head)
    measured |= latent_scalars(experiment, state, predicted, step)
    self.rows.append({"step": step, **measured})
    return measured, self.verdict


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
  """The measurement from which `scalars` made this row; None for rows of another kind."""
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
      # JSON has no infinity, so it is read back as NaN; no other geometry value is ever not finite.
      key.removeprefix("geometry/"): math.inf if math.isnan(value) else value
      for key, value in row.items()
      if key.startswith("geometry/")
    },
    recall=recall,
    chance=chance,
    queries=int(row.get("chance/queries", 0)),
  )
