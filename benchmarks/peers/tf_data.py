"""tf.data over the same shards: interleaved files, a shuffle window, parse, batch, prefetch.

`TFRecordDataset` checks every record's CRC, as ours does. Its shuffle is not global: shards are
visited in random order, several at a time, and records are drawn from a window in memory.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.peers.pair_format import SENSORS

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


def batches(
  directory: str, size: int, batch: int, window: int = 1024
) -> Iterator[tuple[np.ndarray, ...]]:
  """Endless batches.

  Args:
    directory: of the data set.
    size: of an image in pixels.
    batch: pairs of a batch.
    window: records of the shuffle buffer.

  Yields:
    An array (batch, size, size, C) for each sensor, not copied out of TensorFlow.
  """
  import tensorflow as tf

  names = {key: f"sensors/{key}/values" for key in SENSORS}
  wanted = {name: tf.io.FixedLenFeature([], tf.string) for name in names.values()}

  def parse(record: Any) -> tuple[Any, ...]:
    example = tf.io.parse_single_example(record, wanted)
    return tuple(
      tf.reshape(
        tf.io.decode_raw(example[names[key]], tf.as_dtype(sensor.dtype)),
        (size, size, len(sensor.bands)),
      )
      for key, sensor in SENSORS.items()
    )

  files = sorted(glob.glob(glob.escape(directory) + "/*.tfrecord-*-of-?????"))
  tune = tf.data.AUTOTUNE
  dataset = (
    tf.data.Dataset.from_tensor_slices(files)
    .shuffle(len(files))
    .repeat()
    .interleave(
      tf.data.TFRecordDataset,
      cycle_length=len(files),
      num_parallel_calls=tune,
      deterministic=False,
    )
    .shuffle(window)
    .map(parse, num_parallel_calls=tune, deterministic=False)
    .batch(batch, drop_remainder=True)
    .prefetch(tune)
  )
  yield from dataset.as_numpy_iterator()
