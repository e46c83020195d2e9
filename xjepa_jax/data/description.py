"""The description of a data set in its directory: splits, sensors, scaling, statistics.

A directory holds, for each split, shards `NAME-SPLIT.tfrecord-00000-of-00010` with their indexes,
and `dataset_info.json` and `features.json`, which make it a TFDS data set
(`tfds.builder_from_directory`). `sensors.json` is specific to this package: the sensors, their
image sizes, the encoding, the training split's statistics, and a checksum of each of the three
files, because training would run without an error on a scaling with one wrong digit. A checksum is
the CRC32C of a file's parsed content, so the layout of its JSON does not matter. Data sets written
before checksums were introduced are read without them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import google_crc32c

from xjepa_jax.data import storage
from xjepa_jax.data.pairs import PairFormat
from xjepa_jax.errors import DatasetError, XJepaError
from xjepa_jax.paths import StrPath
from xjepa_jax.sensors import sensor_from_json, sensor_to_json

SENSORS_FILE = "sensors.json"
INFO_FILE = "dataset_info.json"
FEATURES_FILE = "features.json"
_FORMAT = "xjepa_jax pairs 1"
_CHECKSUM = "crc32c"  # key of the checksum of all other keys of sensors.json
_KEYS = ("format", "encoding", "sensors", "statistics", "files", _CHECKSUM)


@dataclasses.dataclass(frozen=True)
class Description:
  """The content of a data set's `sensors.json` and `dataset_info.json`.

  Attributes:
    name: name of the data set.
    format: sensors, image sizes, encoding.
    statistics: sensor key -> statistics of the training split, see `SensorStatistics.to_json`.
    splits: split -> number of pairs in each of its shards.
  """

  name: str
  format: PairFormat
  statistics: Mapping[str, Any]
  splits: Mapping[str, tuple[int, ...]]

  def digest(self) -> str:
    """SHA-256 of sensors, scaling, image sizes, encoding and statistics, but not of the splits."""
    return hashlib.sha256(json.dumps(_of_sensors(self), sort_keys=True).encode()).hexdigest()

  def shards(self, directory: str, split: str) -> list[str]:
    """Paths of a split's shards, in order."""
    count = len(self.splits[split])
    return [
      f"{directory.rstrip('/')}/{shard_name(self.name, split, i, count)}" for i in range(count)
    ]


def shard_name(name: str, split: str, number: int, count: int) -> str:
  """The file name of a shard by the TFDS convention."""
  return f"{name}-{split}.tfrecord-{number:05d}-of-{count:05d}"


def describe(directory: StrPath) -> Description:
  """Read the description of a data set.

  Raises:
    DatasetError: it is missing or incomplete, or one of its three files is not as it was written.
    SensorError: a sensor's description is wrong.
  """
  directory = os.fspath(directory)
  info = _read_json(directory, INFO_FILE)
  content = _read_sensors(directory)
  # Data sets written before checksums were introduced have no "files": nothing is compared then.
  _check_files(directory, content.get("files", {}), info)
  where = f"{directory}/{SENSORS_FILE}"
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
  """Write the three JSON files, `dataset_info.json` last, because its presence marks completion."""
  content = _of_sensors(description)
  info: dict[str, Any] = {
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
  features = description.format.features().to_json()
  content["files"] = {FEATURES_FILE: _checksum(features), INFO_FILE: _checksum(info)}
  content[_CHECKSUM] = _checksum(content)
  _write_json(directory, FEATURES_FILE, features)
  _write_json(directory, SENSORS_FILE, content)
  _write_json(directory, INFO_FILE, info)


def _of_sensors(description: Description) -> dict[str, Any]:
  """The content of `sensors.json`, without the checksums."""
  form = description.format
  return {
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


def _read_sensors(directory: str) -> dict[str, Any]:
  """The content of `sensors.json`, after its keys and its checksum have been checked."""
  content = _read_json(directory, SENSORS_FILE)
  where = f"{directory}/{SENSORS_FILE}"
  if content.get("format") != _FORMAT:
    raise DatasetError(f"{where}: format {content.get('format')!r}, expected {_FORMAT!r}.")
  unknown = sorted(set(content) - set(_KEYS))
  if unknown:
    raise DatasetError(
      f"{where}: unknown key {unknown[0]!r}; expected {', '.join(_KEYS)}. Copy it again from its "
      "source."
    )
  # A missing checksum is accepted: deleting it is how a user marks a deliberate change.
  if content.get(_CHECKSUM, _checksum(content)) != _checksum(content):
    raise DatasetError(
      f"{where}: its content does not match its checksum. Copy it again from its source. If it was "
      f"changed on purpose, delete its key {_CHECKSUM!r}."
    )
  return content


def _check_files(directory: str, checksums: Any, info: dict[str, Any]) -> None:
  """Raise a DatasetError if a file beside `sensors.json` is not as it was written."""
  where = f"{directory}/{SENSORS_FILE}: files"
  if not isinstance(checksums, dict) or not set(checksums) <= {FEATURES_FILE, INFO_FILE}:
    raise DatasetError(f"{where}: {checksums!r}, expected {FEATURES_FILE} and {INFO_FILE}.")
  for name, expected in checksums.items():
    content = info if name == INFO_FILE else _read_json(directory, name)
    if _checksum(content) != expected:
      raise DatasetError(
        f"{directory}/{name}: its content does not match its checksum in {SENSORS_FILE}. Copy it "
        "again from its source."
      )


def _checksum(content: Mapping[str, Any]) -> str:
  rest = {key: value for key, value in content.items() if key != _CHECKSUM}
  return f"{google_crc32c.value(json.dumps(rest, sort_keys=True).encode()):08x}"


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
