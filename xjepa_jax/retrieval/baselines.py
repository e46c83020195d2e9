"""What needs no network, in the same table as the model: image statistics, mutual information."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np

from xjepa_jax.data.pipeline import Pipeline
from xjepa_jax.retrieval import image_statistics, mutual_information
from xjepa_jax.retrieval.directions import Row, evaluate_similarity
from xjepa_jax.retrieval.evaluate import CUTS, Evaluation
from xjepa_jax.training.experiment import Experiment, open_split

_FITTED_PAIRS = 2000  # training pairs that the regression is fitted on
_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Stored:
  """Values of pairs as stored.

  Attributes:
    values: sensor -> (P, H, W, C).
    present: sensor -> (P,) bool.
  """

  values: Mapping[str, np.ndarray]
  present: Mapping[str, np.ndarray]


def baseline_rows(experiment: Experiment, evaluation: Evaluation, split: str) -> list[Row]:
  """Rows of the baselines for every direction across sensors, on the pairs of an evaluation.

  A direction is measured on the pairs that have both sensors. Mutual information compares every
  image with every other and needs one grid: it is left out for many pairs, and for others.
  """
  settings = experiment.config.evaluation
  test = read_split(experiment, split, settings.pairs)
  training = read_split(experiment, experiment.config.data.train, _FITTED_PAIRS)
  labels = evaluation.described.label_sets()
  features = {
    key: (_statistics(experiment, key, training), _statistics(experiment, key, test))
    for key in experiment.inputs
  }
  rows = []
  for a, b in itertools.permutations(experiment.inputs, 2):
    both = test.present[a] & test.present[b]
    shown = None if labels is None else labels[both]
    if both.sum() < 2:
      continue
    fitted = training.present[a] & training.present[b]
    ridge = image_statistics.fit_ridge(features[a][0][fitted], features[b][0][fitted])
    similarity = ridge.similarity(features[a][1][both], features[b][1][both])
    method = image_statistics.METHOD
    rows.append(evaluate_similarity(a, b, similarity, shown, CUTS, method=method))
    one, other = test.values[a][both], test.values[b][both]
    if len(one) <= settings.mutual_information and one.shape[1:3] == other.shape[1:3]:
      shared = mutual_information.mutual_information(
        one,
        other,
        seen_queries=experiment.inputs[a].sensor.valid(one),
        seen_archive=experiment.inputs[b].sensor.valid(other),
      )
      method = mutual_information.METHOD
      rows.append(evaluate_similarity(a, b, shared, shown, CUTS, method=method))
  return rows


def read_split(experiment: Experiment, split: str, most: int) -> Stored:
  """The first pairs of a split as stored, with the bands that the model sees."""
  parts = []
  left = most
  for dataset in open_split(experiment.config, split):
    bands = {key: given.sensor.band_names for key, given in experiment.inputs.items()}
    with Pipeline(
      dataset, _BATCH, shuffle=False, once=True, bands=bands, sensors=tuple(bands)
    ) as pipeline:
      batches = pipeline.batches()
      for _, batch in batches:
        rows = np.flatnonzero(batch["valid"])[: max(left, 0)]
        left -= len(rows)
        parts.append(
          (
            {key: values[rows] for key, values in batch["values"].items()},
            {key: present[rows] for key, present in batch["present"].items()},
          )
        )
        if left <= 0:
          break
      batches.close()  # its reading threads end now
  return Stored(
    values={key: np.concatenate([values[key] for values, _ in parts]) for key in parts[0][0]},
    present={key: np.concatenate([present[key] for _, present in parts]) for key in parts[0][1]},
  )


def _statistics(experiment: Experiment, key: str, stored: Stored) -> np.ndarray:
  return image_statistics.image_statistics(experiment.inputs[key].sensor, stored.values[key])
