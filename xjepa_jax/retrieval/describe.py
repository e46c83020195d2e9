"""Descriptors of a split's pairs, centred on the training split and normalised.

Centres come from training pairs and never from the pairs that are searched, so nothing is learnt
from the evaluated scenes. Several encoders describe a split in a single pass over the data.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from xjepa_jax.config import HeadConfig
from xjepa_jax.data.batch_source import Batch
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.model.activation_sharding import on_mesh
from xjepa_jax.model.predicted_descriptors import predicted_descriptors
from xjepa_jax.processes import watchdog
from xjepa_jax.retrieval.relevance import label_sets
from xjepa_jax.training.experiment import Experiment
from xjepa_jax.training.geometry import position_share
from xjepa_jax.training.mesh import batch_sharding, replicated
from xjepa_jax.training.splits import shares
from xjepa_jax.training.step import plain_images, token_sums
from xjepa_jax.training.target import find_target

Descriptors = dict[str, dict[str, np.ndarray]]
DescribeBatch = Callable[[Mapping[str, Any]], Mapping[str, Any]]
_CENTRE_PAIRS = 512  # training pairs; enough to estimate a mean


@dataclasses.dataclass(frozen=True)
class Described:
  """Descriptors of the P pairs of a split.

  Attributes:
    pair_ids: one id per pair; empty if ids were not requested.
    labels: the names of each pair's labels; empty if labels were not requested.
    present: sensor -> (P,) bool, whether the pair has the sensor.
    descriptors: head -> sensor -> (P, K), straight from the encoder.
    predicted: head -> "a->b" -> (P, K), the descriptor of b that the predictor derives from sensor
      a's image; empty if not requested.
    position_share: sensor -> fraction of its tokens' variance that position explains, see
      `training.geometry`; empty if not requested.
  """

  pair_ids: tuple[str, ...]
  labels: tuple[tuple[str, ...], ...]
  present: Mapping[str, np.ndarray]
  descriptors: Descriptors
  predicted: Descriptors = dataclasses.field(default_factory=dict)
  position_share: Mapping[str, float] = dataclasses.field(default_factory=dict)

  def label_sets(self) -> np.ndarray | None:
    """(P, L) bool over all label names that occur, or None if no pair has a label."""
    return label_sets(self.labels)


def describe_split(
  experiment: Experiment,
  encoder: Any,
  split: str,
  most: int,
  shuffle: bool = False,
  named: bool = True,
) -> Described:
  """Describes a split with one encoder; see `describe_by_several`."""
  by = {"": functools.partial(experiment.describe, encoder)}
  return describe_by_several(experiment, by, split, most, shuffle, named)[""]


def describe_by_several(
  experiment: Experiment,
  describers: Mapping[str, DescribeBatch],
  split: str,
  most: int,
  shuffle: bool = False,
  named: bool = True,
) -> dict[str, Described]:
  """Describes at most `most` pairs of a split with several describers in one pass.

  If there are several data sets, each contributes its share, see `training.splits.shares`.

  Args:
    experiment: supplies the pairs.
    describers: name -> function that describes a batch: `experiment.describe` of an encoder, or
      `predicting`.
    split: split of the data sets.
    most: maximum number of pairs.
    shuffle: take pairs in a random order that depends on the seed only, rather than the first ones.
    named: also read ids and labels, which reads every record a second time.
  """
  parts: dict[str, list[Batch]] = {name: [] for name in describers}
  sums: dict[str, list[Any]] = {name: [] for name in describers}
  names: list[tuple[str, tuple[str, ...]]] = []
  for dataset, batch, left in _batches(experiment, split, most, shuffle):
    for name, describe in describers.items():
      found = dict(jax.device_get(describe(batch)))
      sums[name].append(found.pop("sums", {}))
      # The last batch is padded, and no more than `left` pairs may be taken.
      chosen = np.flatnonzero(found["valid"])[:left]
      parts[name].append(jax.tree.map(lambda rows, chosen=chosen: rows[chosen], found))
    if named:
      names += [_names(dataset, int(record)) for record in found["record"][chosen]]
  return {name: _described(found, names, sums[name]) for name, found in parts.items()}


def _described(
  parts: Sequence[Batch], names: Sequence[tuple[str, tuple[str, ...]]], sums: Sequence[Any]
) -> Described:
  joined = jax.tree.map(lambda *rows: np.concatenate(rows), *parts)
  return Described(
    pair_ids=tuple(name for name, _ in names),
    labels=tuple(labels for _, labels in names),
    present=joined["present"],
    descriptors=joined["descriptors"],
    predicted=joined.get("predicted", {}),
    position_share={
      key: position_share(each["tokens"], float(each["squares"]), float(each["count"]))
      for key, each in jax.tree.map(lambda *each: sum(map(np.float64, each)), *sums).items()
    },
  )


def predicting(experiment: Experiment, encoder: Any, predictor: Any) -> DescribeBatch:
  """A describer that also predicts each sensor's descriptors from the other sensors' images.

  Args:
    experiment: the run.
    encoder, predictor: their parameters.

  Returns:
    batch -> the result of `training.step.describe`, plus "predicted": head -> "a->b" -> (B, K).
  """
  model = experiment.model

  def described(encoder: Any, predictor: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    values, seen = plain_images(model, batch["values"])
    tokens, descriptors = model.encode(encoder, values, seen)
    valid = batch["valid"]
    present = {key: each & valid for key, each in batch["present"].items()}
    return {
      "descriptors": descriptors,
      "predicted": predicted_descriptors(model, encoder, predictor, tokens),
      "present": present,
      "sums": token_sums(tokens, present),
      "valid": valid,
      "record": batch["record"],
    }

  # Parameters stay sharded as in training, and only the small results are gathered.
  shardings = jax.tree.map(lambda leaf: leaf.sharding, experiment.abstract_state())
  run = jax.jit(
    on_mesh(described, experiment.mesh.abstract_mesh),
    in_shardings=(
      find_target(shardings.opt_state),
      shardings.params["predictor"],
      batch_sharding(experiment.mesh),
    ),
    out_shardings=replicated(experiment.mesh),
  )
  return functools.partial(run, encoder, predictor)


def centres(
  experiment: Experiment, describers: Mapping[str, DescribeBatch]
) -> dict[str, tuple[Descriptors, Descriptors]]:
  """Mean descriptors of training pairs, for all describers in one pass.

  What all scenes of a sensor have in common carries no information about any one of them, and
  subtracting it closes most of the gap between sensors. The mean is that of training pairs, so that
  nothing is learnt from the pairs that are searched.

  Returns:
    Name -> (head -> sensor -> (K,) of descriptors, head -> "a->b" -> (K,) of predicted ones).
  """
  split = experiment.config.data.train
  found = describe_by_several(
    experiment, describers, split, _CENTRE_PAIRS, shuffle=True, named=False
  )
  return {name: (_centres(each), _predicted_centres(each)) for name, each in found.items()}


def _predicted_centres(found: Described) -> Descriptors:
  return {
    head: {
      way: _mean(values[found.present[way.partition("->")[0]]]) for way, values in each.items()
    }
    for head, each in found.predicted.items()
  }


def _centres(found: Described) -> Descriptors:
  return {
    head: {key: _mean(values[found.present[key]]) for key, values in by_sensor.items()}
    for head, by_sensor in found.descriptors.items()
  }


def normalised(descriptors: Descriptors, centre: Descriptors) -> Descriptors:
  """Descriptors minus their sensor's centre, scaled to unit length, as compared and stored."""
  return {
    head: {
      key: _unit(values.astype(np.float32) - centre[head][key]) for key, values in by_sensor.items()
    }
    for head, by_sensor in descriptors.items()
  }


def beginnings(heads: Mapping[str, HeadConfig]) -> dict[str, tuple[str, int]]:
  """Name -> (head, size) for every size that a head's descriptors can be cut to (`prefixes`)."""
  return {
    f"{name}, first {size}": (name, size) for name, head in heads.items() for size in head.prefixes
  }


def _mean(values: np.ndarray) -> np.ndarray:
  """(K,) mean of (P, K); 0 if no pair has the sensor."""
  total = values.sum(axis=0, dtype=np.float64)
  return (total / max(len(values), 1)).astype(np.float32)


def _unit(values: np.ndarray) -> np.ndarray:
  length = np.linalg.norm(values, axis=-1, keepdims=True)
  return values / np.maximum(length, np.finfo(np.float32).tiny)


def _batches(
  experiment: Experiment, split: str, most: int, shuffle: bool
) -> Iterator[tuple[PairDataset, Batch, int]]:
  """Batches of all data sets in turn, and how many pairs may still be taken from each."""
  left = shares(experiment.config, split, most)
  for number, (dataset, batches) in enumerate(experiment.passes(split, shuffle)):
    for batch in batches if left[number] else ():
      watchdog.advanced()
      yield dataset, batch, left[number]
      left[number] -= len(batch["valid"])
      if left[number] <= 0:
        break


def _names(dataset: PairDataset, record: int) -> tuple[str, tuple[str, ...]]:
  pair = dataset[record]
  return pair.pair_id, pair.labels
