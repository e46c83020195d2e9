"""Computes the descriptors of parts, reading tiles ahead so that the devices never wait for them.

A batch holds tiles of one part only, in reading order, and the last batch of a part is padded with
zeros. What shares a batch with a tile therefore depends on its part alone, and a part has the same
bytes whichever process writes it. The number of rows per device does not depend on the number of
devices.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from xjepa_jax.data import units
from xjepa_jax.errors import DataError, EmbeddingError
from xjepa_jax.retrieval.embedding.items import LeftOut, Reader
from xjepa_jax.retrieval.embedding.listing import Tiles
from xjepa_jax.retrieval.embedding.reading import PerThread, read_ahead

_CHUNK = 32  # tiles that a thread reads in one go; neighbours share file blocks, which it caches
_IN_FLIGHT = 3  # batches on the devices: one being computed, the others queued


class Describer(Protocol):
  """Starts the computation of a batch; see `LoadedEncoder.start`."""

  def start(
    self, values: dict[str, np.ndarray], head: str, *, trust_units: bool, unseen: str
  ) -> Any:
    """(B, K) descriptors, which may still be being computed."""


@dataclasses.dataclass
class DescribedPart:
  """A part with its descriptors.

  Attributes:
    number: number of the part.
    tiles: (n,) numbers of the tiles that have a row, increasing.
    vectors: (n, K) float32.
    valid_fraction: (n,) fraction of valid pixels.
    left_out: tiles without a row.
  """

  number: int
  tiles: np.ndarray
  vectors: np.ndarray
  valid_fraction: np.ndarray
  left_out: tuple[LeftOut, ...]


def describe_parts(
  numbers: Sequence[int],
  parts: Sequence[tuple[int, int]],
  tiles: Tiles,
  readers: PerThread[Reader],
  describer: Describer,
  head: str,
  rows: int,
  min_valid: float,
  threads: int,
  judges: Mapping[str, units.Judge],
  skip_odd: bool,
) -> Iterator[DescribedPart]:
  """Describes parts one after another.

  Args:
    numbers: numbers of the parts, in the order in which they are computed.
    parts: first and last tile (exclusive) of every part.
    tiles: all tiles of the archive.
    readers: one reader per thread.
    describer: describes a batch.
    head: head of the encoder.
    rows: batch size.
    min_valid: tiles with a smaller fraction of valid pixels are left out.
    threads: number of reader threads.
    judges: judges of the sensors whose tiles are refused if their values contradict the sensor.
    skip_odd: leave such tiles out instead of refusing them.

  Raises:
    EmbeddingError: the encoder produced a descriptor that is not finite, or a tile's values
      contradict its sensor.
    DataError: see `Reader`. An error that concerns a single tile is not raised; the tile is left
      out.
  """

  def read(task: tuple[int, np.ndarray]) -> tuple[int, list[_Read]]:
    reader = readers.get()
    return task[0], [
      _read(reader, tiles, int(tile), min_valid, judges, skip_odd) for tile in task[1]
    ]

  tasks = (
    (number, chunk) for number in numbers for chunk in _chunks(reading_order(tiles, *parts[number]))
  )
  # Chunks for two batches, in addition to one per thread.
  ahead = threads + max(2 * rows // _CHUNK, 2)
  batches = _Batches(describer, head, rows, tiles)
  current: int | None = None
  for number, found in read_ahead(tasks, read, threads, ahead):
    if current is not None and number != current:
      batches.end_part(current)
      yield from batches.finished()
    current = number
    for each in found:
      batches.add(each)
    yield from batches.finished()
  if current is not None:
    batches.end_part(current)
  yield from batches.finished(wait=True)


def reading_order(tiles: Tiles, start: int, stop: int) -> np.ndarray:
  """Numbers of a part's tiles, image by image and row by row, which is the order in the files."""
  numbers = np.arange(start, stop)
  windows = tiles.windows[start:stop]
  return numbers[np.lexsort((windows[:, 0], windows[:, 1], tiles.item[start:stop]))]


@dataclasses.dataclass(frozen=True)
class _Read:
  """A tile after reading: its values, or the reason why it is left out."""

  tile: int
  values: np.ndarray | None
  valid_fraction: float
  left_out: LeftOut | None


def _read(
  reader: Reader,
  tiles: Tiles,
  tile: int,
  min_valid: float,
  judges: Mapping[str, units.Judge],
  skip_odd: bool,
) -> _Read:
  item, window = tiles.of(tile)
  try:
    values, seen = reader.read(item, window)
    reason = ""
    if seen == 0 or seen < min_valid:
      reason = f"{seen:.1%} of its pixels were seen, expected at least {min_valid:.1%}."
    elif item.sensor in judges:
      reason = " ".join(judges[item.sensor].of_image(values))
      if reason and not skip_odd:
        raise EmbeddingError(
          f"{tiles.id(tile)} of {item.source}: {reason} Correct it and run the same command again, "
          "or give --skip-odd to leave such tiles out."
        )
  except DataError as error:
    values, seen, reason = None, 0.0, str(error)
  if reason or values is None:
    return _Read(tile, None, seen, LeftOut(tiles.id(tile), item.sensor, item.source, reason))
  return _Read(tile, values, seen, None)


def _chunks(numbers: np.ndarray) -> Iterator[np.ndarray]:
  for at in range(0, len(numbers), _CHUNK):
    yield numbers[at : at + _CHUNK]


class _Batches:
  """Collects tiles into batches, runs the batches on the devices, and assembles the parts."""

  def __init__(self, describer: Describer, head: str, rows: int, tiles: Tiles):
    self._describer, self._head, self._rows, self._tiles = describer, head, rows, tiles
    self._buffer: np.ndarray | None = None
    self._filled: list[_Read] = []
    self._free: dict[tuple[Any, ...], list[np.ndarray]] = collections.defaultdict(list)
    # (result, its tiles, buffer), in the order of starting.
    self._flying: collections.deque[tuple[Any, list[_Read], np.ndarray]] = collections.deque()
    self._done: list[tuple[list[_Read], np.ndarray]] = []
    self._left_out: list[LeftOut] = []
    # Parts whose batches have all been started: number, batches started by then, tiles left out.
    self._ended: collections.deque[tuple[int, int, list[LeftOut]]] = collections.deque()
    self._started = self._fetched = self._taken = 0

  def add(self, read: _Read) -> None:
    """Adds a tile to the batch, and starts the batch once it is full."""
    if read.values is None:
      assert read.left_out is not None
      self._left_out.append(read.left_out)
      return
    if self._buffer is None:
      self._buffer = self._new_buffer(read.values)
    self._buffer[len(self._filled)] = read.values
    # The buffer holds the values now, so they are not kept twice.
    self._filled.append(dataclasses.replace(read, values=None))
    if len(self._filled) == self._rows:
      self._start()

  def end_part(self, number: int) -> None:
    """Starts the last, incomplete batch of a part."""
    if self._filled:
      self._start()
    self._ended.append((number, self._started, self._left_out))
    self._left_out = []

  def finished(self, wait: bool = False) -> Iterator[DescribedPart]:
    """Yields the finished parts; waits for the devices if too many batches are in flight."""
    while len(self._flying) > (0 if wait else _IN_FLIGHT - 1):
      self._fetch()
    while self._ended and self._ended[0][1] <= self._fetched:
      number, batches, left_out = self._ended.popleft()
      mine, self._done = self._done[: batches - self._taken], self._done[batches - self._taken :]
      self._taken = batches
      yield _part(number, mine, left_out)

  def _start(self) -> None:
    assert self._buffer is not None
    # Padding keeps the shape static, so that one program serves all batches.
    self._buffer[len(self._filled) :] = 0
    sensor = self._tiles.of(self._filled[0].tile)[0].sensor
    # The tiles have been judged one by one, and the padding of a last batch is not to be judged.
    result = self._describer.start(
      {sensor: self._buffer}, self._head, trust_units=True, unseen="take"
    )
    self._flying.append((result, self._filled, self._buffer))
    self._started += 1
    self._buffer, self._filled = None, []

  def _fetch(self) -> None:
    result, reads, buffer = self._flying.popleft()
    found = np.asarray(result)[: len(reads)]
    wrong = ~np.isfinite(found).all(axis=1)
    if wrong.any():
      item, window = self._tiles.of(reads[int(np.flatnonzero(wrong)[0])].tile)
      raise EmbeddingError(
        f"{item.source}, {tuple(window)}: the encoder's descriptor is not finite. Its weights, or "
        "the values there, are not what they should be."
      )
    self._done.append((reads, found))
    self._free[buffer.shape, buffer.dtype].append(buffer)
    self._fetched += 1

  def _new_buffer(self, values: np.ndarray) -> np.ndarray:
    """A batch buffer. On a CPU the devices read from it, so it is reused only after the fetch."""
    free = self._free[(self._rows, *values.shape), values.dtype]
    return free.pop() if free else np.zeros((self._rows, *values.shape), values.dtype)


def _part(
  number: int, batches: Sequence[tuple[list[_Read], np.ndarray]], left_out: Sequence[LeftOut]
) -> DescribedPart:
  """A part's descriptors in the order of its tiles."""
  reads = [read for batch, _ in batches for read in batch]
  tiles = np.array([read.tile for read in reads], np.int64)
  order = np.argsort(tiles)
  vectors = np.concatenate([found for _, found in batches]) if batches else np.zeros((0, 0))
  return DescribedPart(
    number,
    tiles[order],
    vectors[order].astype(np.float32, copy=False),
    np.array([read.valid_fraction for read in reads])[order],
    tuple(sorted(left_out, key=lambda each: (each.sensor, each.id, each.source))),
  )
