"""Descriptors of the pairs of a split, centred on the training split and normalised."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from xjepa_jax.data.batch_source import Batch
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.training.experiment import Experiment

Descriptors = dict[str, dict[str, np.ndarray]]
_CENTRE_PAIRS = 512  # of the training split: a mean needs no more


@dataclasses.dataclass(frozen=True)
class Described:
  """The pairs of a split.

  Attributes:
    pair_ids: one a pair, P of them; none if they were not asked for.
    labels: the names of each pair's labels; none if they were not asked for.
    present: sensor -> (P,) bool, whether the pair has the sensor.
    descriptors: head -> sensor -> (P, K), as the encoder gives them.
  """

  pair_ids: tuple[str, ...]
  labels: tuple[tuple[str, ...], ...]
  present: Mapping[str, np.ndarray]
  descriptors: Descriptors

  def label_sets(self) -> np.ndarray | None:
    """(P, L) bool over all names that occur, or None where no pair has a label."""
    names = sorted({name for labels in self.labels for name in labels})
    if not names:
      return None
    place = {name: number for number, name in enumerate(names)}
    sets = np.zeros((len(self.labels), len(names)), bool)
    for row, labels in enumerate(self.labels):
      sets[row, [place[name] for name in labels]] = True
    return sets


def describe_split(
  experiment: Experiment,
  encoder: Any,
  split: str,
  most: int,
  shuffle: bool = False,
  named: bool = True,
) -> Described:
  """Describes at most `most` pairs of a split, the first ones or, shuffled, any.

  Args:
    experiment: what describes them, and where they are.
    encoder: parameters of an encoder, trained or averaged.
    split: of the data sets.
    most: pairs.
    shuffle: take them in random order, the same for a seed.
    named: read ids and labels, for which every record is read a second time.
  """
  parts: list[Batch] = []
  names: list[tuple[str, tuple[str, ...]]] = []
  for dataset, batch in _batches(experiment, split, most, shuffle):
    found = jax.device_get(experiment.describe(encoder, batch))
    part = jax.tree.map(lambda rows, valid=found["valid"]: rows[valid], found)
    parts.append(part)
    if named:
      names += [_names(dataset, int(record)) for record in part["record"]]
  joined = jax.tree.map(lambda *rows: np.concatenate(rows)[:most], *parts)
  return Described(
    pair_ids=tuple(name for name, _ in names[:most]),
    labels=tuple(labels for _, labels in names[:most]),
    present=joined["present"],
    descriptors=joined["descriptors"],
  )


def centres(experiment: Experiment, encoder: Any) -> Descriptors:
  """Mean descriptors of training pairs, head -> sensor -> (K,).

  What all scenes of a sensor have in common says nothing about a scene; taking it away closes most
  of the gap between sensors. It is taken from training pairs, so nothing is learnt from those
  that are searched.
  """
  split = experiment.config.data.train
  found = describe_split(experiment, encoder, split, _CENTRE_PAIRS, shuffle=True, named=False)
  return {
    head: {key: _mean(values[found.present[key]]) for key, values in by_sensor.items()}
    for head, by_sensor in found.descriptors.items()
  }


def normalised(descriptors: Descriptors, centre: Descriptors) -> Descriptors:
  """Descriptors less their sensor's centre, of length 1: what is compared and stored."""
  return {
    head: {
      key: _unit(values.astype(np.float32) - centre[head][key]) for key, values in by_sensor.items()
    }
    for head, by_sensor in descriptors.items()
  }


def _mean(values: np.ndarray) -> np.ndarray:
  """(K,) mean of (P, K); 0 where no pair has the sensor."""
  total = values.sum(axis=0, dtype=np.float64)
  return (total / max(len(values), 1)).astype(np.float32)


def _unit(values: np.ndarray) -> np.ndarray:
  length = np.linalg.norm(values, axis=-1, keepdims=True)
  return values / np.maximum(length, np.finfo(np.float32).tiny)


def _batches(
  experiment: Experiment, split: str, most: int, shuffle: bool
) -> Iterator[tuple[PairDataset, Batch]]:
  """Batches of all data sets one after another, no more than hold `most` pairs."""
  left = most
  for dataset, batches in experiment.passes(split, shuffle):
    if left <= 0:
      break
    for batch in batches:
      yield dataset, batch
      left -= len(batch["valid"])
      if left <= 0:
        break


def _names(dataset: PairDataset, record: int) -> tuple[str, tuple[str, ...]]:
  pair = dataset[record]
  return pair.pair_id, pair.labels
