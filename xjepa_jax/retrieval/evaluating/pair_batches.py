"""Reads a data set's pairs for an evaluation: their names, and batches of their images.

Order is that of the split, without shuffling, so that several sources can be compared row by row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from xjepa_jax.data.dataset import PairDataset

_ROWS = 64


@dataclasses.dataclass(frozen=True)
class PairBatch:
  """A batch of pairs.

  Attributes:
    ids, labels: one per pair.
    values: sensor -> (B, H, W, C) as stored, zeros where the pair lacks the sensor.
    present: sensor -> (B,) bool.
  """

  ids: tuple[str, ...]
  labels: tuple[tuple[str, ...], ...]
  values: Mapping[str, np.ndarray]
  present: Mapping[str, np.ndarray]


def pair_batches(
  directory: str, split: str, bands: Mapping[str, Sequence[str]], most: int = 0
) -> Iterator[PairBatch]:
  """The pairs of a split, in order.

  Args:
    directory: directory of the data set.
    split: split of the data set.
    bands: sensor -> names of the bands to read, in order.
    most: maximum number of pairs; 0 for all.

  Raises:
    DatasetError, SensorError: there is no such split, sensor or band.
  """
  with PairDataset(directory, split) as pairs:
    indices = {key: pairs.format.sensors[key].index(names) for key, names in bands.items()}
    shapes = {key: (*pairs.format.shapes[key], len(each)) for key, each in indices.items()}
    end = min(len(pairs), most) if most else len(pairs)
    for start in range(0, end, _ROWS):
      chosen = [pairs[number] for number in range(start, min(start + _ROWS, end))]
      values, present = {}, {}
      for key, index in indices.items():
        stack = np.zeros((len(chosen), *shapes[key]), pairs.format.sensors[key].dtype)
        there = np.array([key in pair.observations for pair in chosen])
        for row in np.flatnonzero(there):
          stack[row] = chosen[row].observations[key].values[..., list(index)]
        values[key], present[key] = stack, there
      yield PairBatch(
        tuple(pair.pair_id for pair in chosen),
        tuple(pair.labels for pair in chosen),
        values,
        present,
      )


def pair_names(directory: str, splits: Sequence[str]) -> dict[str, tuple[str, tuple[str, ...]]]:
  """Pair id -> (split, labels), for all pairs of some splits."""
  return {
    name: (split, labels)
    for split in splits
    for batch in pair_batches(directory, split, {})
    for name, labels in zip(batch.ids, batch.labels, strict=True)
  }
