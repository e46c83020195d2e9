"""A data set's pairs: random access to those of a split, each checked and decoded."""

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
  """The pairs of one split, or of all: a random-access source as Grain wants one.

  Args:
    directory: of the data set, local or an address.
    split: "train", "validation", "test", or None for all splits one after another.
    verify: check every byte of a record at each reading.
    bad_records: how many damaged ones batches do without, see `BadRecords`.
    sensors: what to read differently in the descriptions of sensors, by their name; see
      `sensors.redescribe`. Those that the data set lacks are ignored.

  Raises:
    SensorError: a sensor cannot be described so.
    DatasetError: there is no complete data set, or no such split, or it is empty.
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
    """Pair `number`, its values copied.

    Raises:
      CorruptRecordError, ExampleError: the record is damaged, or not one of this data set's.
      IndexError: there is no such pair.
    """
    return self.decode(self.records[number], number)

  def decode(self, record: Any, number: int) -> Pair:
    """The pair in a record; `number` is for the message of an error."""
    with self.naming(record, number):
      return self.format.decode(record)

  @contextlib.contextmanager
  def naming(self, record: Any, number: int) -> Iterator[None]:
    """Puts shard, record and pair in front of an ExampleError's message."""
    try:
      yield
    except ExampleError as error:
      try:
        pair = f", pair {ExampleView(record).text('pair_id')!r}"
      except ExampleError:
        pair = ""
      raise ExampleError(f"{self.records.where(number)}{pair}: {error}") from error

  def close(self) -> None:
    """Closes all files; reading again opens them again."""
    self.records.close()

  def __enter__(self) -> PairDataset:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def __repr__(self) -> str:
    sensors = ", ".join(self.format.sensors)
    return f"PairDataset({self.directory!r}, {self.split!r}: {len(self)} pairs of {sensors})"

  def _check_lengths(self, expected: Sequence[int]) -> None:
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
