"""Baselines without a network, in the same table as the model.

These are image statistics and mutual information, measured on the same pairs and by the same
protocol as the model.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from xjepa_jax.config import parse_bands
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.pipeline import Pipeline
from xjepa_jax.retrieval import image_statistics, mutual_information
from xjepa_jax.retrieval.bootstrap import RESAMPLES
from xjepa_jax.retrieval.direction import Direction
from xjepa_jax.retrieval.directions import Row
from xjepa_jax.retrieval.protocol_rows import scene_rows
from xjepa_jax.retrieval.protocols import Protocol
from xjepa_jax.retrieval.relevance import label_sets
from xjepa_jax.retrieval.row import Measures, measure
from xjepa_jax.retrieval.scene_vectors import SceneVectors
from xjepa_jax.retrieval.statistics_baseline import FITTED_PAIRS, as_vectors
from xjepa_jax.sensors import Sensor
from xjepa_jax.training.experiment import Experiment
from xjepa_jax.training.splits import open_split, shares

# Mutual information compares at most this many bands of a sensor, because its run time grows with
# the product of the two sensors' band counts.
_MOST_BANDS = 3
_BATCH = 64


def baseline_rows(experiment: Experiment, protocol: Protocol) -> list[Row]:
  """Baseline rows under a protocol, measured on the pairs of the end-of-run evaluation.

  Mutual information compares every image with every other and needs both sensors on one grid. It is
  left out if there are many pairs, if the sensors' grids differ, or if queries and archive are
  different splits.

  Args:
    experiment: the run.
    protocol: the protocol, with split names already mapped to the data set's.
  """
  settings = experiment.config.evaluation
  splits = dict.fromkeys((protocol.archive, protocol.queries))
  statistics = _statistics({key: given.sensor for key, given in experiment.inputs.items()})
  tested = _joined([measured(experiment, split, settings.pairs, statistics) for split in splits])
  training = measured(experiment, experiment.config.data.train, FITTED_PAIRS, statistics, False)
  labels = label_sets(tested.labels)
  methods = (image_statistics.METHOD, image_statistics.METHOD)
  rows = scene_rows(protocol, as_vectors(tested, training), labels, methods)
  if len(splits) == 1 and len(tested.ids) <= settings.mutual_information:
    rows += _information_rows(experiment, protocol, tested, labels)
  return rows


def _information_rows(
  experiment: Experiment, protocol: Protocol, tested: SceneVectors, labels: np.ndarray | None
) -> list[Row]:
  """Mutual information rows for every cross-sensor direction, on pairs that have both sensors."""
  rows = []
  for (a, b), similarity in _shared_information(
    experiment, protocol.archive, len(tested.ids)
  ).items():
    both = np.flatnonzero(tested.present[a] & tested.present[b])
    direction = Direction(a, b, both, both, protocol.leave_out)
    if not direction.located and labels is None:
      continue
    measures = Measures(protocol.cuts, protocol.whole, RESAMPLES)
    blocks = [(slice(0, len(both)), similarity)]
    method = mutual_information.METHOD
    rows.append(measure(direction, blocks, labels, measures, method, method))
  return rows


def protocol(experiment: Experiment) -> dict[str, str]:
  """Method name -> a description of how that baseline is measured."""
  bands = "; ".join(
    f"{key}: {', '.join(given.sensor.band_names[band] for band in _chosen(given.bands))}"
    for key, given in experiment.inputs.items()
  )
  return {
    image_statistics.METHOD: "mean, deviation and percentiles of every band; one sensor's "
    f"predicted from the other's by ridge regression on at most {FITTED_PAIRS:,} training pairs",
    mutual_information.METHOD: "of means of 2 x 2 pixels, for speckle has none in common, of at "
    f"most {_MOST_BANDS} bands a sensor ({bands})",
  }


def measured(
  experiment: Experiment,
  split: str,
  most: int,
  of: Callable[[str, np.ndarray], np.ndarray],
  named: bool = True,
) -> SceneVectors:
  """Applies a measurement to the first pairs of a split, batch by batch.

  If there are several data sets, each contributes its share of the pairs.

  Args:
    experiment: supplies the data sets and the bands that count.
    split: split of the data sets.
    most: maximum number of pairs.
    of: measurement, (sensor, (R, H, W, C) stored values) -> (R, ...).
    named: also read ids and labels, which reads every record a second time.

  Returns:
    The measurements, in place of the scenes' vectors. An absent image has the measurement of an
    all-zero image.
  """
  ids: list[str] = []
  labels: list[tuple[str, ...]] = []
  parts = []
  for dataset, batch, left in _batches(experiment, split, most):
    rows = np.flatnonzero(batch["valid"])[:left]
    values = {key: of(key, each[rows]) for key, each in batch["values"].items()}
    parts.append((values, {key: each[rows] for key, each in batch["present"].items()}))
    # Batches carry neither ids nor labels, so the records are read again for them.
    pairs = [dataset[int(number)] if named else None for number in batch["record"][rows]]
    ids += ["" if pair is None else pair.pair_id for pair in pairs]
    labels += [() if pair is None else pair.labels for pair in pairs]
  values, present = jax.tree.map(lambda *each: np.concatenate(each), *parts)
  return SceneVectors(tuple(ids), np.full(len(ids), split, object), tuple(labels), present, values)


def _joined(parts: Sequence[SceneVectors]) -> SceneVectors:
  """Concatenates the scenes of several splits."""
  keys = parts[0].vectors
  return SceneVectors(
    ids=tuple(each for part in parts for each in part.ids),
    splits=np.concatenate([part.splits for part in parts]),
    labels=tuple(each for part in parts for each in part.labels),
    present={key: np.concatenate([part.present[key] for part in parts]) for key in keys},
    vectors={key: np.concatenate([part.vectors[key] for part in parts]) for key in keys},
  )


def _batches(
  experiment: Experiment, split: str, most: int
) -> Iterator[tuple[PairDataset, dict[str, Any], int]]:
  """Host batches of a split with the model's bands, and how many more pairs may be taken."""
  bands = parse_bands(experiment.config.data.bands)
  datasets = open_split(experiment.config, split)
  for dataset, left in zip(datasets, shares(experiment.config, split, most), strict=True):
    held = tuple(key for key in experiment.inputs if key in dataset.format.sensors)
    chosen = {key: names for key, names in bands.items() if key in held}
    with (
      Pipeline(dataset, _BATCH, shuffle=False, once=True, bands=chosen, sensors=held) as pipeline,
      contextlib.closing(pipeline.batches()) as batches,  # stops its reader threads as well
    ):
      for _, batch in batches if left else ():
        # A sensor that this data set lacks becomes an absent image, so that all batches are alike.
        for key in set(experiment.inputs) - set(held):
          slot = experiment.slots[key]
          batch["values"][key] = np.zeros((_BATCH, *slot.shape), slot.sensor.dtype)
          batch["present"][key] = np.zeros(_BATCH, bool)
        yield dataset, batch, left
        left -= len(batch["valid"])
        if left <= 0:
          break


def _statistics(sensors: Mapping[str, Sensor]) -> Callable[[str, np.ndarray], np.ndarray]:
  return lambda key, stored: image_statistics.image_statistics(sensors[key], stored)


def _shared_information(
  experiment: Experiment, split: str, most: int
) -> dict[tuple[str, str], np.ndarray]:
  """(a, b) -> (P, P) mutual information of the P pairs that have both sensors on one grid."""
  sensors = {key: given.sensor for key, given in experiment.inputs.items()}
  stored = measured(experiment, split, most, lambda _, values: values, False)
  found: dict[tuple[str, str], np.ndarray] = {}
  for a, b in itertools.combinations(sensors, 2):
    both = stored.present[a] & stored.present[b]
    one, other = stored.vectors[a][both], stored.vectors[b][both]
    if both.sum() < 2 or one.shape[1:3] != other.shape[1:3]:
      continue
    (one, seen_one), (other, seen_other) = (
      _without_speckle(each[..., chosen], sensors[key].known(each)[..., chosen].all(axis=-1))
      for key, each in ((a, one), (b, other))
      for chosen in (_chosen(each.shape[-1]),)
    )
    found[a, b] = mutual_information.mutual_information(
      one, other, seen_queries=seen_one, seen_archive=seen_other
    )
    found[b, a] = found[a, b].T  # mutual information is symmetric
  return found


def _without_speckle(values: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Means of 2 x 2 pixels, (P, H // 2, W // 2, C), and a mask of those with any valid pixel."""
  count, height, width, bands = values.shape
  if min(height, width) < 2:
    return values, seen
  cut = slice(None), slice(height // 2 * 2), slice(width // 2 * 2)
  parts = (count, height // 2, 2, width // 2, 2)
  # Only valid pixels are averaged, since one nodata value would spoil the mean of its 2 x 2.
  weights = seen[cut].reshape(parts)
  known = np.where(seen[..., None], values, 0)[cut].astype(np.float32).reshape(*parts, bands)
  number = weights.sum(axis=(2, 4))
  return known.sum(axis=(2, 4)) / np.maximum(number, 1)[..., None], number > 0


def _chosen(bands: int) -> list[int]:
  """Indices of the bands to compare: all if few, else the middle band of each of equal parts."""
  if bands <= _MOST_BANDS:
    return list(range(bands))
  return [(2 * part + 1) * bands // (2 * _MOST_BANDS) for part in range(_MOST_BANDS)]
