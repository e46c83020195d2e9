"""The bound: read each record's bytes and check its CRC, in one thread, and nothing else.

Nothing is parsed, copied to a batch or handed to another thread, so a reader of one thread that
checks what it reads cannot be faster; one of several threads can.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

import google_crc32c
import numpy as np

from xjepa_jax.data import shard_index
from xjepa_jax.data.description import describe

_HEADER, _FOOTER = 12, 4  # bytes of a TFRecord's frame before and after its data


def batches(directory: str, size: int, batch: int) -> Iterator[tuple[np.ndarray, ...]]:
  """Endless groups of as many records as a batch has, in the random order of a permutation.

  Args:
    directory: of the data set.
    size: of an image in pixels; of no use here.
    batch: records of a group.

  Yields:
    The last record of a group, (n,) uint8, the others being dropped as they come.

  Raises:
    ValueError: a record does not match its CRC.
  """
  shards = describe(directory).shards(directory, "train")
  files = [open(shard, "rb", buffering=0) for shard in shards]  # noqa: SIM115 (until the end)
  places = [
    (file, int(offset) - _HEADER, _HEADER + int(length) + _FOOTER)
    for file, index in zip(files, map(shard_index.read, shards), strict=True)
    for offset, length in zip(index.offsets, index.lengths, strict=True)
  ]
  generator = np.random.default_rng(0)
  epochs = (generator.permutation(len(places)) for _ in itertools.count())
  order = itertools.chain.from_iterable(epochs)
  while True:
    for number in itertools.islice(order, batch):
      file, start, length = places[number]
      file.seek(start)
      record = np.frombuffer(file.read(length), np.uint8)
      _check(record)
    yield (record,)


def _check(record: np.ndarray) -> None:
  crc = google_crc32c.value(record[_HEADER:-_FOOTER])
  masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
  if record[-_FOOTER:].tobytes() != struct.pack("<I", masked):
    raise ValueError("a record does not match its checksum")
