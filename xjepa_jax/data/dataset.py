"""Random access to the pairs of a data set's split; every pair is checked and decoded."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xjepa_jax.data.bad_records import BadRecords
from xjepa_jax.data.description import INFO_FILE, describe
from xjepa_jax.data.example import ExampleView
from xjepa_jax.data.pairs import Pair, PairFormat
from xjepa_jax.data.tfrecord import RecordSource
from xjepa_jax.errors import DatasetError, ExampleError
from xjepa_jax.paths import StrPath
from xjepa_jax.sensors import redescribe


class PairDataset:
  """The pairs of one split, or of all: a random-access source with Grain's interface.

  Args:
    directory: directory of the data set, as a local path or an address in object storage.
    split: "train", "validation", "test", or None for all splits one after another.
    verify: check every byte of a record against its checksum on each read.
    bad_records: number of damaged records that may be replaced, see `BadRecords`.
    sensors: changes to the sensors' descriptions, by sensor key; see `sensors.redescribe`. Sensors
      that the data set lacks are ignored.

  Raises:
    SensorError: a change does not fit its sensor.
    DatasetError: the data set is missing or incomplete, has no such split, or the split is empty.
    ShardIndexError, CorruptRecordError: a shard or its index is damaged, stale or missing.
  """

  def __init__(
    self,
    directory: StrPath,
    split: str | None = "train",
    verify: bool = True,
    bad_records: int = 0,
    sensors: Mapping[str, Mapping[str, Any]] | None = None,
  ):
    directory = os.fspath(directory)
    self.directory = directory
    self.description = describe(directory)
    self.format = _redescribed(self.description.format, sensors or {})
    self.split = split
    splits = self.description.splits
    if split is not None and split not in splits:
      raise DatasetError(f"{directory}: no split {split!r}; there are {', '.join(splits)}.")
    chosen = list(splits) if split is None else [split]
    shards = [shard for each in chosen for shard in self.description.shards(directory, each)]
    if not shards:
      raise DatasetError(f"{directory}: the split {split!r} is empty.")
    self.records = RecordSource(shards, verify)
    self.bad_records = BadRecords(self.records, bad_records)
    self._check_lengths([length for each in chosen for length in splits[each]])

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, number: int) -> Pair:
    """Pair `number`, with its values copied.

    Raises:
      CorruptRecordError, ExampleError: the record is damaged, or does not fit this data set.
      IndexError: there is no such pair.
    """
    return self.decode(self.records[number], number)

  def decode(self, record: Any, number: int) -> Pair:
    """Decode a record into a pair; `number` is only used in error messages."""
    with self.naming(record, number):
      return self.format.decode(record)

  @contextlib.contextmanager
  def naming(self, record: Any, number: int) -> Iterator[None]:
    """Prefix the message of an ExampleError with the shard, the record and the pair."""
    try:
      yield
    except ExampleError as error:
      try:
        pair = f", pair {ExampleView(record).text('pair_id')!r}"
      except ExampleError:  # the damage may include the id
        pair = ""
      raise ExampleError(f"{self.records.where(number)}{pair}: {error}") from error

  def close(self) -> None:
    """Close all files; the next read opens them again."""
    self.records.close()

  def __enter__(self) -> PairDataset:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def __repr__(self) -> str:
    sensors = ", ".join(self.format.sensors)
    return f"PairDataset({self.directory!r}, {self.split!r}: {len(self)} pairs of {sensors})"

  def _check_lengths(self, expected: Sequence[int]) -> None:
    # A shard copied from another version of the data set passes its own checksums, together with
    # its index. Only its number of records may give it away.
    for shard, found, length in zip(
      self.records.shards, self.records.lengths(), expected, strict=True
    ):
      if found != length:
        raise DatasetError(
          f"{shard}: {found} records, but {self.directory}/{INFO_FILE} says {length}. Copy the "
          "shard and its index again from their source."
        )


def _redescribed(held: PairFormat, changes: Mapping[str, Mapping[str, Any]]) -> PairFormat:
  sensors = {
    key: redescribe(sensor, changes[key], f"config key 'sensors.{key}'")
    if key in changes
    else sensor
    for key, sensor in held.sensors.items()
  }
  return dataclasses.replace(held, sensors=sensors)
