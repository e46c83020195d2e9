"""Reads, decodes and stacks the rows of a batch: from records to arrays with a single copy.

An element of this source is a whole step's batch, or one process's share of it. A batch is one
call, so there is no overhead per pair. Its position is its step, so a resumed run needs no stored
state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xjepa_jax.data.buffers import Buffers
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.example import ExampleView
from xjepa_jax.data.layout import Layout, Stretch
from xjepa_jax.data.order import Order
from xjepa_jax.errors import DataError, DatasetError
from xjepa_jax.sensors import Sensor

Batch = dict[str, Any]
_ENDLESS = 1 << 40  # length that an endless source reports
_STRETCH = 8192  # positions computed at once, since a few cost as much as thousands


@dataclasses.dataclass(frozen=True)
class SensorSlot:
  """The place of a sensor's values in a batch.

  Attributes:
    sensor: sensor with only the bands that the batch has.
    shape: (H, W, C) of a row.
    bands: indices of those bands among the stored ones, or None if they are all, in order.
  """

  sensor: Sensor
  shape: tuple[int, int, int]
  bands: tuple[int, ...] | None


class BatchSource:
  """Batches by step: `source[n]` holds this process's rows of step n's global batch.

  A batch is a dict, in which every array has R rows:
    "values": sensor key -> (R, H, W, C) as stored; zeros where the pair lacks the sensor
    "present": sensor key -> (R,) bool, whether the pair has the sensor
    "valid": (R,) bool, False for rows that only pad the last batch of a finite order
    "dataset", "record": (R,) int32, where the pair is stored; if a damaged record was replaced,
      where its replacement is stored

  Args:
    datasets: data sets to read.
    order: order of the pairs.
    batch: number of pairs in a global batch.
    rows: rows of the global batch that this process reads.
    bands: sensor key -> names of the bands wanted, in order; other sensors keep all bands.
    sensors: sensor keys wanted, or None for all.
    pairs: number of positions after which the order ends, with the last batch padded; None never
      ends.

  Raises:
    DatasetError: the data sets disagree about a sensor, or a wanted sensor is in none.
    SensorError: a wanted band is not among a sensor's.
  """

  def __init__(
    self,
    datasets: Sequence[PairDataset],
    order: Order,
    batch: int,
    rows: Sequence[int],
    bands: Mapping[str, Sequence[str]] | None = None,
    sensors: Sequence[str] | None = None,
    pairs: int | None = None,
  ):
    self.datasets = tuple(datasets)
    self.order = order
    self.batch = batch
    self.rows = tuple(rows)
    self.pairs = pairs
    self.slots = _slots(self.datasets, bands or {}, sensors)
    self._layouts = [
      Layout(dataset.format, [key for key in self.slots if key in dataset.format.sensors])
      for dataset in self.datasets
    ]
    self._buffers = Buffers()
    self._stretches: dict[int, tuple[np.ndarray, np.ndarray]] = {}

  def __len__(self) -> int:
    return _ENDLESS if self.pairs is None else -(-self.pairs // self.batch)

  def __getitem__(self, step: int) -> Batch:
    """This process's rows of one step.

    Raises:
      CorruptRecordError, ExampleError: a record is damaged and no more may be replaced; the message
        names shard, record and pair.
    """
    positions = step * self.batch + np.asarray(self.rows, np.int64)
    batch = self._empty(len(positions))
    batch["valid"][:] = True if self.pairs is None else positions < self.pairs
    batch["dataset"][:], batch["record"][:] = self._places(step)
    for number, dataset in enumerate(self.datasets):
      rows = np.flatnonzero(batch["valid"] & (batch["dataset"] == number))
      self._fill(dataset, self._layouts[number], batch, rows)
    for key in self.slots:  # the memory is reused, and may still hold another batch
      batch["values"][key][~batch["present"][key]] = 0
    return batch

  def __repr__(self) -> str:
    return f"BatchSource({len(self.rows)} of {self.batch} rows a step, {list(self.datasets)})"

  def nbytes(self) -> int:
    """Size in bytes of the values of one batch."""
    return len(self.rows) * sum(
      int(np.prod(slot.shape)) * np.dtype(slot.sensor.dtype).itemsize
      for slot in self.slots.values()
    )

  def close(self) -> None:
    """Close the data sets' files."""
    for dataset in self.datasets:
      dataset.close()

  def _places(self, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Data set and record of each row, computed for many steps at once and cached."""
    steps = max(_STRETCH // self.batch, 1)
    stretch, inside = divmod(step, steps)
    known = self._stretches  # replaced as a whole below, because several threads may read it
    places = known.get(stretch)
    if places is None:
      first = stretch * steps * self.batch
      places = self.order.places(np.arange(first, first + steps * self.batch))
      kept = {key: known[key] for key in list(known)[-1:]}
      self._stretches = {**kept, stretch: places}
    rows = inside * self.batch + np.asarray(self.rows)
    return places[0][rows], places[1][rows]

  def _empty(self, rows: int) -> Batch:
    return {
      "values": {
        key: self._buffers.empty((rows, *slot.shape), slot.sensor.dtype)
        for key, slot in self.slots.items()
      },
      "present": {key: np.zeros(rows, bool) for key in self.slots},
      "valid": np.zeros(rows, bool),
      "dataset": np.zeros(rows, np.int32),
      "record": np.zeros(rows, np.int32),
    }

  def _fill(self, dataset: PairDataset, layout: Layout, batch: Batch, rows: np.ndarray) -> None:
    """Read the pairs of one data set into their rows, with replacements for damaged ones."""
    bad = dataset.bad_records
    batch["record"][rows] = [bad.read_instead(number) for number in batch["record"][rows].tolist()]
    try:
      self._read_pairs(dataset, layout, batch, rows)
    except DataError as error:
      if not bad.forgives(error):
        raise
      for row in rows:
        self._read_a_sound_pair(dataset, layout, batch, row)

  def _read_a_sound_pair(
    self, dataset: PairDataset, layout: Layout, batch: Batch, row: np.intp
  ) -> None:
    """Read the pair of one row, or the next one that is not damaged."""
    while True:
      try:
        self._read_pairs(dataset, layout, batch, np.array([row]))
        return
      except DataError as error:
        if not dataset.bad_records.forgives(error):
          raise
        batch["record"][row] = dataset.bad_records.replace(int(batch["record"][row]), error)

  def _read_pairs(
    self, dataset: PairDataset, layout: Layout, batch: Batch, rows: np.ndarray
  ) -> None:
    keys = layout.keys
    for key in keys:
      batch["present"][key][rows] = False  # may be set from a record that proved to be damaged
    # Scattering reads put stored bytes into the batch, so they need all bands, uncompressed.
    whole = all(self.slots[key].bands is None for key in keys)
    numbers = batch["record"][rows].tolist()
    if whole and dataset.format.encoding == "bytes" and dataset.records.scatters:
      self._scatter(dataset, layout, batch, list(zip(rows.tolist(), numbers, strict=True)))
      return
    for row, number, record in zip(rows, numbers, dataset.records.read(numbers), strict=True):
      with dataset.naming(record, number):
        view = ExampleView(record)
        for key in keys:
          values = dataset.format.values(view, key)
          if values is not None:
            batch["present"][key][row] = True
            _copy(values, self.slots[key], batch["values"][key][row])

  def _scatter(
    self, dataset: PairDataset, layout: Layout, batch: Batch, places: list[tuple[int, int]]
  ) -> None:
    """Read the values of the pairs (row, number) directly into their rows."""
    raw = {
      key: batch["values"][key].view(np.uint8).reshape(len(self.rows), -1) for key in layout.keys
    }
    for row, number in places:
      # Records of a data set mostly share one layout. Guess it, which saves a read of the record,
      # and parse the record only if the guess is not confirmed.
      stretches = layout.guess
      if stretches is None or not self._read(dataset, number, row, raw, stretches, layout):
        record = dataset.records[number]
        with dataset.naming(record, number):
          stretches = layout.find(record)
        self._read(dataset, number, row, raw, stretches, layout)
      for key, _, _ in stretches:
        batch["present"][key][row] = True

  @staticmethod
  def _read(
    dataset: PairDataset,
    number: int,
    row: int,
    raw: Mapping[str, np.ndarray],
    stretches: Sequence[Stretch],
    layout: Layout,
  ) -> bool:
    """Read a record by the expected places of its values; False if they are not there."""
    parts = [(start, stop, raw[key][row]) for key, start, stop in stretches]
    gaps = dataset.records.read_into(number, parts)
    return gaps is not None and layout.confirmed(stretches, gaps)


def _copy(values: np.ndarray, slot: SensorSlot, row: np.ndarray) -> None:
  if slot.bands is None:
    np.copyto(row, values)
  else:
    np.take(values, slot.bands, axis=-1, out=row)


def _slots(
  datasets: Sequence[PairDataset],
  bands: Mapping[str, Sequence[str]],
  wanted: Sequence[str] | None,
) -> dict[str, SensorSlot]:
  found: dict[str, tuple[SensorSlot, str]] = {}
  for dataset in datasets:
    for key, sensor in dataset.format.sensors.items():
      if wanted is not None and key not in wanted:
        continue
      names = tuple(bands.get(key, sensor.band_names))
      indices = sensor.index(names)
      chosen = sensor if names == sensor.band_names else sensor.select(names)
      slot = SensorSlot(
        sensor=chosen,
        shape=(*dataset.format.shapes[key], len(names)),
        bands=None if names == sensor.band_names else indices,
      )
      if key in found:
        _check_alike(key, found[key], (slot, dataset.directory))
      found.setdefault(key, (slot, dataset.directory))
  for key in [*(wanted or ()), *bands]:
    if key not in found:
      raise DatasetError(f"no data set has the sensor {key!r}; there are {', '.join(found)}.")
  order = found if wanted is None else {key: found[key] for key in wanted}
  return {key: slot for key, (slot, _) in order.items()}


def _check_alike(key: str, one: tuple[SensorSlot, str], other: tuple[SensorSlot, str]) -> None:
  """Data sets that share a sensor key must agree on its meaning, but not on its statistics."""

  def meaning(slot: SensorSlot) -> dict[str, Any]:
    sensor = slot.sensor
    return {
      "image size": slot.shape[:2],
      "bands": sensor.band_names,
      "dtype": sensor.dtype,
      "units": sensor.units,
      "nodata": str(sensor.nodata),
      "offset": sensor.scaling.offset,
      "gain": sensor.scaling.gain,
    }

  a, b = meaning(one[0]), meaning(other[0])
  for what in a:
    if a[what] != b[what]:
      raise DatasetError(
        f"sensor {key!r}: {what} is {a[what]} in {one[1]} and {b[what]} in {other[1]}. Mix only "
        "data sets that mean the same by a sensor; import one of them under another key."
      )
