"""Imports a prepared TensorFlow Datasets directory whose examples hold several images of a place.

The directory (`<data set>/<config>/<version>`) holds `dataset_info.json`, `features.json` and
shards of TFRecord or ArrayRecord; TensorFlow is not needed. TFRecord has no random access, so an
index `<shard>.index` is built once next to each shard. Example: so2sat/all, with the features
sentinel1 (32, 32, 8) and sentinel2 (32, 32, 10).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from xjepa_jax.data.archive import Archive, Entry, Skip
from xjepa_jax.data.importers import so2sat
from xjepa_jax.data.importers.tfds_directory import (
  count_records,
  decoding,
  open_builder,
  open_records,
)
from xjepa_jax.data.importing.splits import in_order, split_name
from xjepa_jax.data.pairs import Observation, Pair
from xjepa_jax.errors import ArchiveError, DataError, SensorError
from xjepa_jax.sensor_presets import PRESETS, preset
from xjepa_jax.sensors import DTYPES, Sensor, check_key

SUMMARY = "a TensorFlow Datasets directory, such as so2sat/all, with an image feature a sensor"
EXAMPLE = (
  "python -m xjepa_jax.data.importers tfds --src so2sat/all/2.1.0 --out data/so2sat "
  "--sensor s1=sentinel1:so2sat_s1 --sensor s2=sentinel2:so2sat_s2 --label label"
)

_PRESETS = {**PRESETS, "so2sat_s1": so2sat.SEN1, "so2sat_s2": so2sat.SEN2}


@dataclasses.dataclass(frozen=True)
class _Reading:
  """The settings with which all records are read. `features` maps a sensor key to its feature."""

  directory: str
  shards: tuple[str, ...]
  sensors: Mapping[str, Sensor]
  features: Mapping[str, str]
  label: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Add the options specific to this importer."""
  parser.add_argument(
    "--sensor",
    metavar="KEY=FEATURE:PRESET",
    action="append",
    default=[],
    help=f"an image feature and what it holds: {', '.join(_PRESETS)}",
  )
  parser.add_argument("--label", metavar="FEATURE", default="", help="a class, text, or list")


def open_archive(args: argparse.Namespace) -> Archive:
  """List the records of a prepared data set.

  A shard that cannot be read becomes one row of `skipped`.

  Raises:
    ArchiveError: the directory is not a prepared data set, or lacks a feature that was named.
    SensorError: a sensor's key or preset is wrong.
  """
  builder = open_builder(args.src)
  sensors, features = _sensors(args, builder.info.features)
  if args.label:
    _check_label(args.src, args.label, _feature(args.src, builder.info.features, args.label))
  splits: dict[str, list[Entry]] = {}
  skipped: list[Skip] = []
  shards: list[str] = []
  listed = 0
  for name, info in sorted(builder.info.splits.items()):
    entries = splits.setdefault(_split(args.src, name), [])
    number = 0  # of the record within its split; counts shards that are left out, so ids are stable
    for shard, expected in zip(sorted(info.filenames), info.shard_lengths, strict=True):
      try:
        count = count_records(os.path.join(args.src, shard), expected)
      except DataError as error:
        skipped.append(
          Skip(f"{name}: {shard}", f"{error} None of its records was imported.", expected)
        )
      else:
        entries += [Entry(f"{name}_{number + i:07d}", listed + i) for i in range(count)]
        shards.append(os.path.join(args.src, shard))
        listed += count
      number += expected
  reading = _Reading(args.src, tuple(shards), sensors, features, args.label)
  return Archive(
    name=re.sub(r"[^a-z0-9_]", "_", builder.info.full_name.rpartition("/")[0].lower()),
    sensors=sensors,
    splits=in_order(splits),
    read=functools.partial(read_pair, reading=reading),
    skipped=skipped,
    notes=(f"splits: the data set's own, {', '.join(sorted(builder.info.splits))}",),
  )


def read_pair(entry: Entry, reading: _Reading) -> Pair:
  """Decode one record.

  Raises:
    CorruptRecordError, ExampleError: the record is damaged, or does not fit this data set.
  """
  features = open_builder(reading.directory).info.features
  with decoding(f"{reading.directory}: {entry.pair_id}"):
    record = open_records(reading.shards)[entry.source]
    wanted = {*reading.features.values(), reading.label}
    example = features.deserialize_example_np(bytes(record), decoders=_skipping(features, wanted))
    observations = {}
    for key, name in reading.features.items():
      values = np.asarray(_item(example, name))
      if values.dtype == np.float64:
        values = values.astype(np.float32)
      observations[key] = Observation(np.ascontiguousarray(values))
    labels: tuple[str, ...] = ()
    if reading.label:
      labels = tuple(_names(_item(features, reading.label), _item(example, reading.label)))
  return Pair(entry.pair_id, observations, labels=labels)


# Options


def _sensors(args: argparse.Namespace, features: Any) -> tuple[dict[str, Sensor], dict[str, str]]:
  sensors: dict[str, Sensor] = {}
  names: dict[str, str] = {}
  images = [name for name, feature in _flat(features) if len(feature.shape or ()) == 3]
  if not args.sensor:
    raise ArchiveError(
      f"{args.src}: name its sensors with --sensor KEY=FEATURE:PRESET. Its features with the shape "
      f"of an image: {', '.join(images) or '(none)'}; presets: {', '.join(_PRESETS)}."
    )
  for text in args.sensor:
    match = re.fullmatch(r"([^=]+)=(.+):([^:]+)", text)
    if not match:
      raise ArchiveError(f"--sensor {text!r}: expected KEY=FEATURE:PRESET.")
    key, name, product = match.groups()
    if check_key(key) in sensors:
      raise SensorError(f"--sensor {text!r}: {key!r} is named twice; give each its own name.")
    described = _PRESETS[product] if product in _PRESETS else preset(product)
    feature = _feature(args.src, features, name)
    if name not in images or feature.shape[-1] not in (None, len(described.bands)):
      raise ArchiveError(
        f"{args.src}: feature {name!r} is {feature}; expected (H, W, {len(described.bands)}) for "
        f"{product}, with the bands {', '.join(described.band_names)}."
      )
    dtype = np.dtype(feature.np_dtype).name
    dtype = "float32" if dtype == "float64" else dtype
    if dtype not in DTYPES:
      raise ArchiveError(f"{args.src}: feature {name!r} is {dtype}; expected {', '.join(DTYPES)}.")
    sensors[key], names[key] = dataclasses.replace(described, dtype=dtype), name
  return sensors, names


def _flat(features: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
  for name, feature in sorted(features.items()):  # protobuf maps have no order
    if hasattr(feature, "items"):
      yield from _flat(feature, f"{prefix}{name}/")
    else:
      yield prefix + name, feature


def _feature(src: str, features: Any, name: str) -> Any:
  known = dict(_flat(features))
  if name not in known:
    raise ArchiveError(f"{src}: has no feature {name!r}; its features are {', '.join(known)}.")
  return known[name]


def _split(src: str, name: str) -> str:
  try:
    return split_name(name)
  except ValueError as error:
    raise ArchiveError(f"{src}: a split: {error}.") from None


def _check_label(src: str, name: str, feature: Any) -> None:
  from tensorflow_datasets import features as kinds

  inner = feature.feature if isinstance(feature, kinds.Sequence) else feature
  if not isinstance(inner, kinds.ClassLabel | kinds.Text):
    raise ArchiveError(f"{src}: feature {name!r} is {feature}; expected classes or texts.")


def _names(feature: Any, value: Any) -> Iterator[str]:
  """Names of classes, or texts; data sets mark a missing class by -1."""
  if hasattr(feature, "feature"):
    for one in value:
      yield from _names(feature.feature, one)
  elif hasattr(feature, "int2str"):
    if int(value) >= 0:
      yield feature.int2str(int(value))
  elif value:
    yield value.decode() if isinstance(value, bytes) else str(value)


def _skipping(features: Any, wanted: set[str], prefix: str = "") -> dict[str, Any]:
  """Decoders that keep TFDS from decoding images that are not wanted."""
  from tensorflow_datasets import decode
  from tensorflow_datasets import features as kinds

  decoders: dict[str, Any] = {}
  for name, feature in features.items():
    if hasattr(feature, "items"):
      decoders[name] = _skipping(feature, wanted, f"{prefix}{name}/")
    elif isinstance(feature, kinds.Image) and prefix + name not in wanted:
      decoders[name] = decode.SkipDecoding()
  return decoders


def _item(content: Any, name: str) -> Any:
  for part in name.split("/"):
    content = content[part]
  return content
