"""A data set of ten million records that takes hardly any room, to be opened and not read.

Its indexes are real; its shards are holes of the right size.
"""

from __future__ import annotations

import os

import numpy as np

from benchmarks.peers.pair_format import SENSORS, pair_bytes
from xjepa_jax.data import framing, shard_index
from xjepa_jax.data.description import INFO_FILE, Description, write_description
from xjepa_jax.data.pairs import PairFormat

_SIZE = 120  # pixels of an image
_STRINGS = 420  # bytes of a record that are not values


def write_index_only(directory: str, shards: int = 1000, records: int = 10_000) -> None:
  """Writes a data set of `shards` shards of `records` records each, which cannot be read."""
  if os.path.exists(f"{directory}/{INFO_FILE}"):
    return
  os.makedirs(directory, exist_ok=True)
  length = pair_bytes(_SIZE) + _STRINGS
  shard_size = records * (length + framing.OVERHEAD)
  index = shard_index.ShardIndex(
    shard_size=shard_size,
    offsets=(np.arange(records) * (length + framing.OVERHEAD) + framing.HEADER.size).astype("<u8"),
    lengths=np.full(records, length, "<u4"),
    crcs=np.random.default_rng(0).integers(0, 1 << 32, records).astype("<u4"),
  ).to_bytes()
  description = Description(
    name="ten_million",
    format=PairFormat(SENSORS, dict.fromkeys(SENSORS, (_SIZE, _SIZE))),
    statistics={},
    splits={"train": (records,) * shards},
  )
  for shard in description.shards(directory, "train"):
    with open(shard, "wb") as file:
      file.truncate(shard_size)
    with open(shard + shard_index.SUFFIX, "wb") as file:
      file.write(index)
  write_description(directory, description, {"train": shards * shard_size})
