"""Describes a data set's pairs with an exported encoder, plain and predicted.

The data set has to store values as the encoder was trained on them; a sensor with another dtype,
unit, offset or gain is refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.errors import EvaluationError
from xjepa_jax.loaded_encoder import LoadedEncoder
from xjepa_jax.retrieval.evaluating.pair_batches import PairBatch, pair_batches
from xjepa_jax.retrieval.scene_vectors import SceneVectors
from xjepa_jax.sensors import Sensor


def encoder_vectors(
  encoder: LoadedEncoder, directory: str, splits: Sequence[str], head: str | None = None
) -> SceneVectors:
  """Describes the pairs of some splits.

  Args:
    encoder: describes the sensors that it knows; predicts if it was loaded with its predictor.
    directory: directory of the data set.
    splits: distinct split names.
    head: name of the head; None for the encoder's default.

  Raises:
    DataError: the pairs cannot be read.
    EvaluationError: the data set and the encoder have no sensor in common, or one is scaled
      differently.
  """
  with PairDataset(directory, splits[0]) as pairs:
    held = pairs.format.sensors
  keys = [key for key in encoder.inputs if key in held]
  if not keys:
    raise EvaluationError(
      f"{directory}: its sensors {', '.join(held)} are none of the encoder's, "
      f"{', '.join(encoder.inputs)}."
    )
  for key in keys:
    _check_alike(directory, key, held[key], encoder.inputs[key].sensor)
  bands = {key: encoder.inputs[key].sensor.band_names for key in keys}
  ways = [
    f"{one}->{other}"
    for one, other in itertools.permutations(keys, 2)
    if (one, other) in encoder.predicts(head)
  ]
  found: dict[str, list[np.ndarray]] = {name: [] for name in (*keys, *ways)}
  batches: list[PairBatch] = []
  names: list[str] = []
  for split in splits:
    for batch in pair_batches(directory, split, bands):
      for key in keys:
        found[key].append(_described(encoder, batch, key, head, None))
      for way in ways:
        one, _, other = way.partition("->")
        found[way].append(_described(encoder, batch, one, head, other))
      # Images are dropped here, as those of a whole split may exceed the memory.
      batches.append(PairBatch(batch.ids, batch.labels, {}, batch.present))
      names += [split] * len(batch.ids)
  joined = {name: np.concatenate(parts) for name, parts in found.items()}
  return SceneVectors(
    ids=tuple(each for batch in batches for each in batch.ids),
    splits=np.array(names, object),
    labels=tuple(each for batch in batches for each in batch.labels),
    present={key: np.concatenate([batch.present[key] for batch in batches]) for key in keys},
    vectors={key: joined[key] for key in keys},
    predicted={way: joined[way] for way in ways},
  )


def _described(
  encoder: LoadedEncoder, batch: PairBatch, key: str, head: str | None, to: str | None
) -> np.ndarray:
  """(B, K) descriptors of one sensor's images, 0 where the pair lacks it."""
  vectors = encoder.describe(
    {key: batch.values[key]}, head, to=to, trust_units=True, min_valid=0, unseen="nan"
  )
  return np.where(batch.present[key][:, None], vectors, np.float32(0))


def _check_alike(directory: str, key: str, stored: Sensor, expected: Sensor) -> None:
  """Refuses stored values that mean something else than those that the encoder was trained on."""
  for what, one, other in (
    ("type", stored.dtype, expected.dtype),
    ("units", stored.units, expected.units),
    ("offset", stored.scaling.offset, expected.scaling.offset),
    ("gain", stored.scaling.gain, expected.scaling.gain),
  ):
    if one != other:
      raise EvaluationError(
        f"{directory}: sensor {key!r} is stored with {what} {one}, and the encoder was trained on "
        f"{what} {other}. Import the archive again with the encoder's sensor."
      )
