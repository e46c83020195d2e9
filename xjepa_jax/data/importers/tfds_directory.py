"""A directory prepared by TensorFlow Datasets: its description, and the records of its shards.

The directory is not trusted: its description may name no code but TFDS's own, and any error from
the libraries that read it becomes an error that names the file.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from xjepa_jax.data import shard_index
from xjepa_jax.data.tfrecord import RecordSource
from xjepa_jax.errors import ArchiveError, DataError, ExampleError

_FILES = ("dataset_info.json", "features.json")
_MODULES = "tensorflow_datasets."
_FORMATS = ("tfrecord", "array_record")


def open_builder(directory: str) -> Any:
  """The TFDS builder of a directory, cached in this process.

  Raises:
    ArchiveError: the directory holds no prepared data set, or a damaged one, or one in another file
      format.
  """
  return _opened(directory, os.getpid())


def count_records(path: str, expected: int) -> int:
  """Number of records of a shard, which is read completely if it has no index yet.

  Raises:
    ExampleError: the shard is missing, or does not hold `expected` records.
    DataError: it is damaged.
  """
  if not os.path.isfile(path):
    raise ExampleError(f"{path}: there is no such file. Copy it again.")
  with decoding(path):
    found = len(_array_records([path])) if _is_array_record(path) else shard_index.ensure(path)[0]
  if found != expected:
    raise ExampleError(
      f"{path}: holds {found} records, but dataset_info.json says {expected}. Copy it again."
    )
  return found


def open_records(shards: Sequence[str]) -> Any:
  """The records of all shards by number, cached in this process."""
  return _kept_records(tuple(shards), os.getpid())


@contextlib.contextmanager
def decoding(where: str) -> Iterator[None]:
  """Turn any error from reading `where` into an ExampleError, except this package's own."""
  try:
    yield
  except DataError:
    raise
  except Exception as error:  # array_record, protobuf, Pillow and TFDS have their own errors
    reason = str(error) or type(error).__name__
    raise ExampleError(f"{where}: cannot be decoded ({reason}). Copy the file again.") from error


@functools.lru_cache(maxsize=4)
def _opened(directory: str, process: int) -> Any:
  try:
    import tensorflow_datasets as tfds
  except ImportError as error:
    raise ArchiveError("TFDS needs tensorflow-datasets: pip install xjepa_jax") from error
  for name in _FILES:
    if not os.path.isfile(os.path.join(directory, name)):
      raise ArchiveError(
        f"{directory}: holds no {name}. Give --src the directory of one prepared version, which "
        f"holds {' and '.join(_FILES)}."
      )
  try:
    _check_classes(directory)
    builder = tfds.builder_from_directory(directory)
    builder.info.features.items()
  except DataError:
    raise
  except Exception as error:  # JSON, protobuf and TFDS have their own errors
    raise ArchiveError(
      f"{directory}: {' or '.join(_FILES)} is damaged ({type(error).__name__}: {error}). Copy both "
      "again."
    ) from error
  kind = builder.info.file_format.value if builder.info.file_format else "tfrecord"
  if kind not in _FORMATS:
    raise ArchiveError(f"{directory}: its files are {kind}; expected {' or '.join(_FORMATS)}.")
  return builder


def _check_classes(directory: str) -> None:
  """Refuse features.json if it names foreign classes; TFDS imports every module named in it."""
  path = os.path.join(directory, "features.json")
  with open(path, encoding="utf-8") as file:
    waiting: list[Any] = [json.load(file)]
  while waiting:
    content = waiting.pop()
    if isinstance(content, dict):
      for key in ("pythonClassName", "type"):
        name = content.get(key)
        if isinstance(name, str) and "." in name and not name.startswith(_MODULES):
          raise ArchiveError(f"{path}: names the class {name}; expected one of {_MODULES[:-1]}.")
      waiting += content.values()
    elif isinstance(content, list):
      waiting += content


@functools.cache  # a process imports one data set
def _kept_records(shards: Sequence[str], process: int) -> Any:
  return _array_records(shards) if _is_array_record(shards[0]) else RecordSource(shards)


def _is_array_record(path: str) -> bool:
  return ".array_record" in os.path.basename(path)


def _array_records(shards: Sequence[str]) -> Any:
  try:
    from array_record.python.array_record_data_source import ArrayRecordDataSource
  except ImportError as error:
    raise ArchiveError(f"{shards[0]}: needs array_record: pip install array_record") from error
  return ArrayRecordDataSource(list(shards))
