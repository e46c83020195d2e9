"""A data set of TFRecord pairs as an archive: all sensors of all pairs that the encoder knows.

Images are identified by split and record number, and by the record's checksum, so that a replaced
data set is noticed. Images of one pair share their id, which makes them a pair in the index too.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import math
import os
from collections.abc import Mapping, Sequence

import numpy as np

from xjepa_jax.data import storage
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.description import SENSORS_FILE, describe
from xjepa_jax.data.example import ExampleView
from xjepa_jax.data.pairs import NO_TRANSFORM, PairFormat
from xjepa_jax.errors import OptionError
from xjepa_jax.retrieval.embedding.conforming import Fit, fit_values, of_dataset
from xjepa_jax.retrieval.embedding.items import Collected, Item, Window
from xjepa_jax.sensors import Sensor


def collect_pairs(
  directory: str, sensors: Mapping[str, Sensor], splits: Sequence[str], geometry: bool
) -> Collected:
  """Lists the images of a data set's pairs, reading only the metadata of each record.

  Args:
    directory: directory of the data set, local or remote.
    sensors: key -> description of the requested sensors that the encoder knows.
    splits: split names; empty for all.
    geometry: whether to take the pairs' coordinates.

  Raises:
    DatasetError: there is no complete data set, or no such split.
    SensorError: a sensor is a different product in the data set and in the encoder.
    OptionError: the data set has none of the requested sensors.
  """
  description = describe(directory)
  known = [key for key in sensors if key in description.format.sensors]
  if not known:
    raise OptionError(
      f"{directory}: has the sensors {', '.join(description.format.sensors)}, none of "
      f"{', '.join(sensors)}, which the encoder is to describe."
    )
  fits = {key: of_dataset(key, sensors[key], description.format.sensors[key]) for key in known}
  items: list[Item] = []
  chosen = list(splits) or list(description.splits)
  for split in chosen:
    with PairDataset(directory, split, verify=False) as dataset:
      for number in range(len(dataset)):
        record = dataset.records[number]
        with dataset.naming(record, number):
          items += _items(
            ExampleView(record),
            dataset.format,
            known,
            f"{split}/{number}",
            dataset.records.digest_of(number),
            geometry,
          )
  notes = [
    f"{key}: stored values are shifted by {fit.shift:+g} to the encoder's {fit.sensor.product}."
    for key, (fit, _) in fits.items()
    if fit.shift
  ]
  return Collected(
    kind="pairs",
    path=directory if storage.is_remote(directory) else os.path.abspath(directory),
    items=_distinct(items),
    left_out=(),
    reader=functools.partial(PairReader, directory, fits),
    tiled=False,
    settings={
      "splits": chosen,
      # This file holds checksums of the other two, and those the number of records.
      SENSORS_FILE: sensors_digest(directory),
    },
    notes=notes,
  )


def sensors_digest(directory: str) -> str:
  """SHA-256 of a data set's sensors file. Raises FileNotFoundError, DatasetError."""
  return hashlib.sha256(storage.read_file(f"{directory.rstrip('/')}/{SENSORS_FILE}")).hexdigest()


class PairReader:
  """Reads windows of a data set's images, and checks every byte of a record against its CRC."""

  def __init__(self, directory: str, fits: Mapping[str, tuple[Fit, tuple[int, ...]]]):
    self._directory = directory
    self._fits = fits
    self._splits: dict[str, PairDataset] = {}

  def read(self, item: Item, window: Window) -> tuple[np.ndarray, float]:
    """See `Reader`."""
    dataset, number = self._record(item)
    record = dataset.records[number]
    fit, bands = self._fits[item.sensor]
    with dataset.naming(record, number):
      values = dataset.format.values(ExampleView(record), item.sensor)
    assert values is not None  # only images that exist were listed
    column, row, width, height = window
    cut = values[row : row + height, column : column + width]
    if bands != tuple(range(values.shape[-1])):
      cut = cut[..., list(bands)]
    nodata = dataset.format.sensors[item.sensor].nodata
    return fit_values(fit, cut, nodata, item.source)

  def digest(self, item: Item) -> str:
    """Digest of the record that holds an image."""
    dataset, number = self._record(item)
    return dataset.records.digest_of(number)

  def close(self) -> None:
    """See `Reader`."""
    for dataset in self._splits.values():
      dataset.close()

  def _record(self, item: Item) -> tuple[PairDataset, int]:
    split, _, number = item.source.rpartition("/")
    if split not in self._splits:
      self._splits[split] = PairDataset(self._directory, split)
    return self._splits[split], int(number)


def _items(
  view: ExampleView,
  form: PairFormat,
  keys: Sequence[str],
  source: str,
  digest: str,
  geometry: bool,
) -> list[Item]:
  numbers = {
    name: tuple(float(x) for x in np.frombuffer(view.bytes(name), "<f8"))
    for name in ("longitude", "latitude", "transform")
  }
  crs = view.text("crs") if geometry else ""
  # A pair's transform is that of its first sensor.
  first = form.shapes[next(iter(form.sensors))]
  found = []
  for key in keys:
    if not view.number(f"sensors/{key}/valid_fraction"):  # 0 if the pair lacks the sensor
      continue
    height, width = form.shapes[key]
    found.append(
      Item(
        id=view.text("pair_id"),
        sensor=key,
        source=source,
        height=height,
        width=width,
        crs=crs,
        transform=_scaled(numbers["transform"], first, (height, width)) if crs else NO_TRANSFORM,
        longitude=numbers["longitude"][0] if geometry else math.nan,
        latitude=numbers["latitude"][0] if geometry else math.nan,
        time=view.text(f"sensors/{key}/acquired"),
        labels=view.texts("labels"),
        digest=digest,
      )
    )
  return found


def _scaled(
  transform: tuple[float, ...], first: tuple[int, int], shape: tuple[int, int]
) -> tuple[float, ...]:
  """Transform of an image with the first sensor's extent, but a pixel size of its own."""
  a, b, c, d, e, f = transform
  x, y = first[1] / shape[1], first[0] / shape[0]
  return a * x, b * y, c, d * x, e * y, f


def _distinct(items: Sequence[Item]) -> list[Item]:
  """Makes ids shared by several records unique by appending split and number."""
  records = {(item.id, item.source) for item in items}
  count = collections.Counter(name for name, _ in records)
  taken = set(count)
  names: dict[tuple[str, str], str] = {}
  for item in items:
    key = item.id, item.source
    if count[item.id] == 1 or key in names:
      continue
    name = item.id
    while name in taken:  # usually once; again if another record already has that name
      name = f"{name}_{item.source.replace('/', '_')}"
    taken.add(name)
    names[key] = name
  return [
    dataclasses.replace(item, id=names.get((item.id, item.source), item.id)) for item in items
  ]
