"""A data set's directory: also a TFDS data set, read without TensorFlow."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.description import describe
from xjepa_jax.errors import DatasetError


def test_tfds_opens_the_directory_and_decodes_its_records(simulated: str) -> None:
  builder = tfds.builder_from_directory(simulated)
  assert {name: info.num_examples for name, info in builder.info.splits.items()} == {
    "train": 128,
    "validation": 16,
    "test": 16,
  }
  pairs = PairDataset(simulated, "validation")
  for number in range(len(pairs)):
    record = pairs.records[number].tobytes()
    decoded = builder.info.features.deserialize_example_np(record)
    pair = pairs[number]
    assert decoded["pair_id"].decode() == pair.pair_id
    for key, observation in pair.observations.items():
      np.testing.assert_array_equal(decoded["sensors"][key]["values"][0], observation.values)


def test_all_splits_one_after_another(simulated: str) -> None:
  whole = PairDataset(simulated, None)
  parts = [PairDataset(simulated, split) for split in describe(simulated).splits]
  assert [pair.pair_id for pair in map(whole.__getitem__, range(len(whole)))] == [
    part[number].pair_id for part in parts for number in range(len(part))
  ]


def test_grain_takes_a_data_set_as_it_is(simulated: str) -> None:
  import grain

  pairs = PairDataset(simulated)
  shuffled = grain.MapDataset.source(pairs).shuffle(seed=0)
  assert sorted(shuffled[i].pair_id for i in range(128)) == sorted(
    pairs[i].pair_id for i in range(128)
  )


def test_an_unknown_split_names_those_there_are(simulated: str) -> None:
  with pytest.raises(DatasetError, match="no split 'dev'; there are train, validation, test"):
    PairDataset(simulated, "dev")


def test_a_shard_of_another_state_of_the_data_set_is_refused(
  simulated: str, tmp_path: Path
) -> None:
  copy = Path(shutil.copytree(simulated, tmp_path / "copy"))
  shards = PairDataset(str(copy)).records.shards
  lengths = PairDataset(str(copy)).records.lengths()
  other = next(i for i, length in enumerate(lengths) if length != lengths[0])
  shutil.copy(shards[other], shards[0])
  shutil.copy(shards[other] + ".index", shards[0] + ".index")
  with pytest.raises(DatasetError, match=f"{lengths[other]} records, but .* says {lengths[0]}"):
    PairDataset(str(copy))
