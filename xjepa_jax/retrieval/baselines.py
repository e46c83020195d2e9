"""What needs no network, in the same table as the model: image statistics, mutual information."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from xjepa_jax.config import parse_bands
from xjepa_jax.data.pipeline import Pipeline
from xjepa_jax.retrieval import image_statistics, mutual_information
from xjepa_jax.retrieval.directions import Row, evaluate_similarity
from xjepa_jax.retrieval.evaluate import CUTS, Evaluation
from xjepa_jax.sensors import Sensor
from xjepa_jax.training.experiment import Experiment, open_split

_FITTED_PAIRS = 2000  # training pairs that the regression is fitted on
_MOST_BANDS = (
  3  # of a sensor in mutual information: its time grows with the product of two sensors'
)
_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Measured:
  """Something of every pair's images, each array with a row a pair.

  Attributes:
    values: sensor -> (P, ...), of absent images of zeros.
    present: sensor -> (P,) bool.
  """

  values: Mapping[str, np.ndarray]
  present: Mapping[str, np.ndarray]


def baseline_rows(experiment: Experiment, evaluation: Evaluation, split: str) -> list[Row]:
  """Rows of the baselines for every direction across sensors, on the pairs of an evaluation.

  A direction is measured on the pairs that have both sensors. Mutual information compares every
  image with every other and needs one grid: it is left out for many pairs, and for others.
  """
  sensors = {key: given.sensor for key, given in experiment.inputs.items()}
  settings = experiment.config.evaluation
  labels = evaluation.described.label_sets()
  tested = measured(experiment, split, settings.pairs, _statistics(sensors))
  fitted = measured(experiment, experiment.config.data.train, _FITTED_PAIRS, _statistics(sensors))
  shared: dict[tuple[str, str], np.ndarray] = {}
  if len(next(iter(tested.present.values()))) <= settings.mutual_information:
    shared = _shared_information(experiment, split)
  rows = []
  for a, b in itertools.permutations(sensors, 2):
    both = tested.present[a] & tested.present[b]
    if both.sum() < 2:
      continue
    found = {
      image_statistics.METHOD: _ridge_similarity(a, b, fitted, tested),
      mutual_information.METHOD: shared.get((a, b)),
    }
    rows += [
      evaluate_similarity(
        a, b, similarity, None if labels is None else labels[both], CUTS, method=method
      )
      for method, similarity in found.items()
      if similarity is not None
    ]
  return rows


def protocol(experiment: Experiment) -> dict[str, str]:
  """How the baselines are measured, in words, by method."""
  bands = "; ".join(
    f"{key}: {', '.join(given.sensor.band_names[band] for band in _chosen(given.bands))}"
    for key, given in experiment.inputs.items()
  )
  return {
    image_statistics.METHOD: "mean, deviation and percentiles of every band; one sensor's "
    f"predicted from the other's by ridge regression on at most {_FITTED_PAIRS:,} training pairs",
    mutual_information.METHOD: f"of the pixels of at most {_MOST_BANDS} bands a sensor ({bands})",
  }


def measured(
  experiment: Experiment,
  split: str,
  most: int,
  measure: Callable[[str, np.ndarray], np.ndarray],
) -> Measured:
  """Measures the first pairs of a split, a batch at a time.

  Args:
    experiment: where they are, and which bands of them count.
    split: of the data sets.
    most: pairs.
    measure: (sensor, (R, H, W, C) as stored) -> (R, ...).
  """
  parts = []
  left = most
  for batch in _batches(experiment, split):
    rows = np.flatnonzero(batch["valid"])[:left]
    values = {key: measure(key, each[rows]) for key, each in batch["values"].items()}
    parts.append((values, {key: each[rows] for key, each in batch["present"].items()}))
    left -= len(rows)
    if left <= 0:
      break
  values, present = jax.tree.map(lambda *each: np.concatenate(each), *parts)
  return Measured(values, present)


def _batches(experiment: Experiment, split: str) -> Iterator[dict[str, Any]]:
  """All pairs of a split on the host, with the bands that the model sees."""
  bands = parse_bands(experiment.config.data.bands)
  for dataset in open_split(experiment.config, split):
    held = tuple(key for key in experiment.inputs if key in dataset.format.sensors)
    chosen = {key: names for key, names in bands.items() if key in held}
    with (
      Pipeline(dataset, _BATCH, shuffle=False, once=True, bands=chosen, sensors=held) as pipeline,
      contextlib.closing(pipeline.batches()) as batches,  # its reading threads end with it
    ):
      for _, batch in batches:
        for key in set(experiment.inputs) - set(held):
          slot = experiment.slots[key]
          batch["values"][key] = np.zeros((_BATCH, *slot.shape), slot.sensor.dtype)
          batch["present"][key] = np.zeros(_BATCH, bool)
        yield batch


def _statistics(sensors: Mapping[str, Sensor]) -> Callable[[str, np.ndarray], np.ndarray]:
  return lambda key, stored: image_statistics.image_statistics(sensors[key], stored)


def _ridge_similarity(a: str, b: str, fitted: Measured, tested: Measured) -> np.ndarray | None:
  """(P, P) of the P pairs with both sensors; None if no training pair has seen pixels of both."""
  known = fitted.present[a] & fitted.present[b]
  known &= np.isfinite(fitted.values[a]).all(axis=1) & np.isfinite(fitted.values[b]).all(axis=1)
  if not known.any():
    return None
  both = tested.present[a] & tested.present[b]
  ridge = image_statistics.fit_ridge(fitted.values[a][known], fitted.values[b][known])
  return ridge.similarity(tested.values[a][both], tested.values[b][both])


def _shared_information(experiment: Experiment, split: str) -> dict[tuple[str, str], np.ndarray]:
  """(a, b) -> (P, P) mutual information of the P pairs with both sensors, if on one grid."""
  sensors = {key: given.sensor for key, given in experiment.inputs.items()}
  most = experiment.config.evaluation.mutual_information
  stored = measured(experiment, split, most, lambda _, values: values)
  found: dict[tuple[str, str], np.ndarray] = {}
  for a, b in itertools.combinations(sensors, 2):
    both = stored.present[a] & stored.present[b]
    one, other = stored.values[a][both], stored.values[b][both]
    if both.sum() < 2 or one.shape[1:3] != other.shape[1:3]:
      continue
    found[a, b] = mutual_information.mutual_information(
      one[..., _chosen(one.shape[-1])],
      other[..., _chosen(other.shape[-1])],
      seen_queries=sensors[a].valid(one),
      seen_archive=sensors[b].valid(other),
    )
    found[b, a] = found[a, b].T  # what two images share does not depend on which of them asks
  return found


def _chosen(bands: int) -> list[int]:
  """Bands that are compared: all if they are few, else the middle one of each of equal parts."""
  if bands <= _MOST_BANDS:
    return list(range(bands))
  return [(2 * part + 1) * bands // (2 * _MOST_BANDS) for part in range(_MOST_BANDS)]
