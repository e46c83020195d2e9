"""A data set on disk: its description, its splits, and random access to its pairs.

A directory holds, for each split, shards `NAME-SPLIT.tfrecord-00000-of-00010` with their indexes,
and `dataset_info.json` and `features.json`, which make it a TFDS data set
(`tfds.builder_from_directory`). `sensors.json` is ours: the sensors, their image sizes, the
encoding, and the training split's statistics.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xjepa_jax.data import storage
from xjepa_jax.data.example import ExampleView
from xjepa_jax.data.pairs import Pair, PairFormat
from xjepa_jax.data.tfrecord import RecordSource
from xjepa_jax.errors import DatasetError, ExampleError, XJepaError
from xjepa_jax.sensors import sensor_from_json, sensor_to_json

SENSORS_FILE = "sensors.json"
INFO_FILE = "dataset_info.json"
FEATURES_FILE = "features.json"
_FORMAT = "xjepa_jax pairs 1"


@dataclasses.dataclass(frozen=True)
class Description:
  """What `sensors.json` and `dataset_info.json` say of a data set.

  Attributes:
    name: of the data set.
    format: sensors, image sizes, encoding.
    statistics: sensor key -> statistics of the training split, see `SensorStatistics.to_json`.
    splits: split -> number of pairs in each of its shards.
  """

  name: str
  format: PairFormat
  statistics: Mapping[str, Any]
  splits: Mapping[str, tuple[int, ...]]

  def shards(self, directory: str, split: str) -> list[str]:
    """Paths of a split's shards, in order."""
    count = len(self.splits[split])
    return [
      f"{directory.rstrip('/')}/{shard_name(self.name, split, i, count)}" for i in range(count)
    ]


def shard_name(name: str, split: str, number: int, count: int) -> str:
  """The file name of a shard, as TFDS has it."""
  return f"{name}-{split}.tfrecord-{number:05d}-of-{count:05d}"


def describe(directory: str) -> Description:
  """Reads the description of a data set.

  Raises:
    DatasetError: there is none, or it is not whole.
    SensorError: a sensor's description is wrong.
  """
  info = _read_json(directory, INFO_FILE)
  content = _read_json(directory, SENSORS_FILE)
  where = f"{directory}/{SENSORS_FILE}"
  if content.get("format") != _FORMAT:
    raise DatasetError(f"{where}: format {content.get('format')!r}, expected {_FORMAT!r}.")
  try:
    sensors = {
      key: sensor_from_json(entry["description"], f"{where}: sensors.{key}.description")
      for key, entry in content["sensors"].items()
    }
    shapes = {
      key: (int(entry["height"]), int(entry["width"])) for key, entry in content["sensors"].items()
    }
    splits = {
      split["name"]: tuple(int(length) for length in split["shardLengths"])
      for split in info["splits"]
    }
    return Description(
      name=info["name"],
      format=PairFormat(sensors, shapes, content["encoding"]),
      statistics=content["statistics"],
      splits=splits,
    )
  except XJepaError:
    raise
  except (KeyError, TypeError, AttributeError, ValueError) as error:
    raise DatasetError(
      f"{where} or {INFO_FILE}: {type(error).__name__} {error} where a description was expected. "
      "Copy both again from their source."
    ) from error


def write_description(
  directory: str, description: Description, num_bytes: Mapping[str, int]
) -> None:
  """Writes the three JSON files; `dataset_info.json` last, for it makes the data set complete."""
  form = description.format
  content = {
    "format": _FORMAT,
    "encoding": form.encoding,
    "sensors": {
      key: {
        "height": form.shapes[key][0],
        "width": form.shapes[key][1],
        "description": sensor_to_json(sensor),
      }
      for key, sensor in form.sensors.items()
    },
    "statistics": description.statistics,
  }
  info = {
    "name": description.name,
    "version": "1.0.0",
    "description": "Co-located pairs written by xjepa_jax; sensors.json describes the sensors.",
    "fileFormat": "tfrecord",
    "splits": [
      {
        "name": split,
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "shardLengths": [str(length) for length in lengths],
        "numBytes": str(num_bytes[split]),
      }
      for split, lengths in description.splits.items()
    ],
  }
  _write_json(directory, FEATURES_FILE, form.features().to_json())
  _write_json(directory, SENSORS_FILE, content)
  _write_json(directory, INFO_FILE, info)


class PairDataset:
  """The pairs of one split, or of all: a random-access source as Grain wants one.

  Args:
    directory: of the data set, local or an address.
    split: "train", "validation", "test", or None for all splits one after another.
    verify: check every byte of a record at each reading.

  Raises:
    DatasetError: there is no complete data set, or no such split, or it is empty.
    ShardIndexError, CorruptRecordError: a shard or its index is damaged, stale or missing.
  """

  def __init__(self, directory: str, split: str | None = "train", verify: bool = True):
    self.directory = directory
    self.description = describe(directory)
    self.format = self.description.format
    self.split = split
    splits = self.description.splits
    if split is not None and split not in splits:
      raise DatasetError(f"{directory}: no split {split!r}; there are {', '.join(splits)}.")
    chosen = list(splits) if split is None else [split]
    shards = [shard for each in chosen for shard in self.description.shards(directory, each)]
    if not shards:
      raise DatasetError(f"{directory}: the split {split!r} is empty.")
    self.records = RecordSource(shards, verify)
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


def _read_json(directory: str, name: str) -> dict[str, Any]:
  path = f"{directory.rstrip('/')}/{name}"
  try:
    content = json.loads(storage.read_file(path))
  except FileNotFoundError:
    raise DatasetError(
      f"{path} is missing: {directory} is no data set, or an import into it was not finished. "
      "Continue an import with the same command and --resume."
    ) from None
  except XJepaError:
    raise
  except ValueError as error:
    raise DatasetError(f"{path}: not JSON ({error}). Copy it again from its source.") from error
  if not isinstance(content, dict):
    raise DatasetError(f"{path}: holds a {type(content).__name__}, expected a mapping.")
  return content


def _write_json(directory: str, name: str, content: Any) -> None:
  text = json.dumps(content, indent=1, sort_keys=True) + "\n"
  storage.write_file(f"{directory}/{name}", text.encode())
