"""TensorFlow itself reads what was written. Runs where TensorFlow is installed."""

from __future__ import annotations

import numpy as np
import pytest

from xjepa_jax.data.dataset import PairDataset

tf = pytest.importorskip("tensorflow", reason="TensorFlow is only in the benchmark's environment")


def test_tfrecorddataset_reads_every_record(simulated: str) -> None:
  pairs = PairDataset(simulated)
  records = tf.data.TFRecordDataset(list(pairs.records.shards)).as_numpy_iterator()
  for number, record in enumerate(records):
    assert record == pairs.records[number].tobytes()
  assert number == len(pairs) - 1


def test_tfds_opens_the_directory_and_decodes_with_tensorflow(simulated: str) -> None:
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(simulated)
  assert {name: info.num_examples for name, info in builder.info.splits.items()} == {
    "train": 128,
    "validation": 16,
    "test": 16,
  }
  pairs = PairDataset(simulated, "test")
  examples = tfds.as_numpy(builder.as_dataset(split="test", shuffle_files=False))
  for number, example in enumerate(examples):
    pair = pairs[number]
    assert example["pair_id"].decode() == pair.pair_id
    for key, observation in pair.observations.items():
      np.testing.assert_array_equal(example["sensors"][key]["values"], observation.values[None])
  assert number == 15
