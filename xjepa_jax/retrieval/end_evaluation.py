"""The evaluation at the end of a run, by the protocol that its config names.

The encoder that is not exported is ranked beside the exported one, and predict-then-search is
ranked as well if the config asks for it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from xjepa_jax.config import DataConfig, HeadConfig
from xjepa_jax.retrieval.confidence import Confidence, fit_directions
from xjepa_jax.retrieval.describe import (
  Described,
  Descriptors,
  beginnings,
  centres,
  describe_by_several,
  describe_split,
  normalised,
  predicting,
)
from xjepa_jax.retrieval.directions import Row, unit_rows
from xjepa_jax.retrieval.encoder_choice import encoders
from xjepa_jax.retrieval.evaluation import Evaluation, geometry_of
from xjepa_jax.retrieval.predictions import predicted_outputs
from xjepa_jax.retrieval.protocol_rows import PREDICTED, scene_rows
from xjepa_jax.retrieval.protocols import Protocol, protocol_of
from xjepa_jax.retrieval.relevance import label_sets
from xjepa_jax.retrieval.scene_vectors import SceneVectors
from xjepa_jax.training.experiment import Experiment, open_split
from xjepa_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class EndEvaluation:
  """Results of the end-of-run evaluation.

  Attributes:
    protocol: the protocol, with split names mapped to the data set's.
    evaluation: evaluation of the archive split, with the protocol's rows. Rows of
      predict-then-search, if requested, are keyed "HEAD, predict-then-search"; those of the encoder
      that is not exported are keyed "HEAD, trained encoder (not exported)", or the same with
      "averaged".
    predicted_centre: head -> "a->b" -> (K,), subtracted from predicted descriptors.
    confidence: head -> "a->b" -> confidence of scores, fitted on the validation split.
  """

  protocol: Protocol
  evaluation: Evaluation
  predicted_centre: Descriptors
  confidence: dict[str, dict[str, Confidence]]


def evaluate_at_end(experiment: Experiment, state: TrainState, chosen: str) -> EndEvaluation:
  """Describes the queries and the archive, and ranks them with every head.

  Args:
    experiment: the run.
    state: the best state of the run.
    chosen: name of the encoder that is exported, see `encoder_choice`. The other one is ranked
      beside it.
  """
  config = experiment.config
  protocol = run_protocol(config.evaluation.protocol, config.data)
  both, wanted = encoders(state), config.evaluation.predicted
  describers = {
    name: predicting(experiment, encoder, state.params["predictor"])
    if name == chosen
    else functools.partial(experiment.describe, encoder)
    for name, encoder in both.items()
  }
  centre = centres(experiment, describers)
  described: dict[str, dict[str, Described]] = {name: {} for name in both}
  for split in dict.fromkeys((protocol.archive, protocol.queries)):
    found = describe_by_several(experiment, describers, split, config.evaluation.pairs)
    for name, each in found.items():
      described[name][split] = each
  rows = _rows(config.heads, protocol, described[chosen], centre[chosen], wanted)
  # Before the first step the average equals the trained weights, so there is no other encoder.
  others = set(both) - {chosen} if int(state.step) else ()
  beside = {
    f"{head}, {other} encoder (not exported)": found
    for other in others
    for head, found in _rows(
      config.heads, protocol, described[other], centre[other], wanted
    ).items()
  }
  searched = described[chosen][protocol.archive]
  evaluation = Evaluation(
    described=searched,
    centre=centre[chosen][0],
    descriptors=normalised(searched.descriptors, centre[chosen][0]),
    rows={
      # Key order is report order: heads, prefixes, the other encoder, then predict-then-search.
      **{name: rows[name] for name in (*config.heads, *beginnings(config.heads))},
      **beside,
      **rows,
    },
    geometry=geometry_of(
      experiment, searched, predicted_outputs(experiment, state, protocol.archive)
    ),
  )
  confidence = _confidence(experiment, both[chosen], centre[chosen][0])
  return EndEvaluation(protocol, evaluation, centre[chosen][1], confidence)


def _rows(
  heads: Mapping[str, HeadConfig],
  protocol: Protocol,
  described: dict[str, Described],
  centre: tuple[Descriptors, Descriptors],
  predicted: bool,
) -> dict[str, list[Row]]:
  """The protocol's rows by head, with predict-then-search under names of its own.

  Args:
    heads: heads by name; their prefixes are ranked too.
    protocol: the protocol, which chooses queries and archive.
    described: split -> descriptors of its pairs.
    centre: see `describe.centres`.
    predicted: whether to rank predict-then-search.
  """
  rows: dict[str, list[Row]] = {}
  whole = {head: joined(described, head, *centre) for head in heads}
  short = {name: whole[head].cut(size) for name, (head, size) in beginnings(heads).items()}
  for head, each in (whole | short).items():
    scenes = each if predicted else dataclasses.replace(each, predicted={})
    measured = scene_rows(protocol, scenes, label_sets(scenes.labels))
    rows[head] = [row for row in measured if row.method != PREDICTED]
    crossed = [row for row in measured if row.method == PREDICTED]
    if crossed:
      rows[f"{head}, {PREDICTED}"] = crossed
  return rows


def _confidence(
  experiment: Experiment, encoder: Any, centre: Descriptors
) -> dict[str, dict[str, Confidence]]:
  config = experiment.config
  seen = describe_split(
    experiment, encoder, config.data.validation, config.evaluation.pairs, named=False
  )
  return {
    head: fit_directions(by_sensor, seen.present)
    for head, by_sensor in normalised(seen.descriptors, centre).items()
  }


def check_protocol(experiment: Experiment) -> None:
  """Refuses a run whose data sets lack a split of the protocol, before anything is trained.

  Raises:
    DatasetError: a split does not exist.
  """
  config = experiment.config
  protocol = run_protocol(config.evaluation.protocol, config.data)
  for split in dict.fromkeys((protocol.queries, protocol.archive)):
    for dataset in open_split(config, split):
      dataset.close()


def run_protocol(name: str, data: DataConfig) -> Protocol:
  """The named protocol, with its splits mapped to those of the run's data.

  Raises:
    EvaluationError: there is no such protocol.
  """
  usual = {"train": data.train, "validation": data.validation, "test": data.test}
  return protocol_of(name).in_splits(usual)


def joined(
  found: dict[str, Described], head: str, centre: Any, predicted_centre: Any
) -> SceneVectors:
  """The scenes of several splits, concatenated, with unit vectors of one head.

  Args:
    found: split -> descriptors of its pairs.
    head: name of the head.
    centre: head -> sensor -> (K,).
    predicted_centre: head -> "a->b" -> (K,).
  """
  parts = list(found.values())
  present = {key: np.concatenate([part.present[key] for part in parts]) for key in parts[0].present}

  def units(of: str, centres: Any) -> dict[str, np.ndarray]:
    return {
      key: unit_rows(
        np.concatenate([getattr(part, of)[head][key] for part in parts]) - middle,
        present[key.partition("->")[0]],
      )
      for key, middle in centres.get(head, {}).items()
    }

  return SceneVectors(
    ids=tuple(each for part in parts for each in part.pair_ids),
    splits=np.array([split for split, part in found.items() for _ in part.pair_ids], object),
    labels=tuple(each for part in parts for each in part.labels),
    present=present,
    vectors=units("descriptors", centre),
    predicted=units("predicted", predicted_centre),
  )
