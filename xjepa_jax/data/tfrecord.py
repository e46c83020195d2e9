"""Random access to the records of many TFRecord shards.

Local shards are memory maps: a record is a view of the page cache. Where its values go to a
batch, one scattering read takes them straight there (`read_into`), for a copy out of a map pays
for page faults and measured 6,500 records of 460 kB a second instead of 11,000. Shards in object
storage are read by range, many ranges at once. Of a data set of any size, only the shards in use
are open, and mapped pages are given back, so memory stays bounded.
"""

from __future__ import annotations

import bisect
import concurrent.futures
import hashlib
import itertools
import mmap
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from xjepa_jax.data import framing, shard_index, storage
from xjepa_jax.errors import CorruptRecordError, DatasetError, ShardIndexError

T = TypeVar("T")
_OPEN_SHARDS = 128  # each holds two file descriptors; the usual limit is 1,024 a process
_REQUESTS = 32  # indexes in object storage that are asked for at once
_MAPPED_BYTES = 128 << 20  # how much of the maps may count as resident before it is given back


class RecordSource:
  """The records of some shards, in order: a random-access source as Grain wants one.

  Args:
    shards: paths or addresses, in order. An index that is missing is built once.
    verify: check every byte of a record against its CRC at each reading.

  Raises:
    ShardIndexError: an index is damaged or stale.
    CorruptRecordError: a shard is missing, or has no index and is damaged.
    DatasetError: no shard is given, or one cannot be reached at all.
  """

  def __init__(self, shards: Sequence[str], verify: bool = True):
    if not shards:
      raise DatasetError("no shards: a data set needs at least one file to read.")
    self.shards = tuple(shards)
    self.verify = verify
    self._ends = list(itertools.accumulate(_counts(self.shards)))
    self._reset()

  def _reset(self) -> None:
    self._scatters = hasattr(os, "preadv") and not any(map(storage.is_remote, self.shards))
    self._lock = threading.Lock()
    self._open: dict[int, _Shard] = {}  # in the order in which they were opened
    self._resident = 0

  def __len__(self) -> int:
    return self._ends[-1]

  def __getitem__(self, number: int) -> np.ndarray:
    """Record `number` as (n,) uint8, read-only; a view of the map where the shard is local.

    Raises:
      CorruptRecordError: its bytes are not those that were written; names shard and record.
      IndexError: there is no such record.
    """
    return self.read([number])[0]

  def read(self, numbers: Sequence[int]) -> list[np.ndarray]:
    """Several records; those in object storage are fetched concurrently. See `__getitem__`."""
    places = [self._locate(number) for number in numbers]
    self._give_back(sum(shard.index.lengths.item(row) for shard, row in places))
    remote = [i for i, (shard, _) in enumerate(places) if shard.map is None]
    fetched = dict(zip(remote, _fetch([places[i] for i in remote]), strict=True)) if remote else {}
    records = []
    for i, (shard, row) in enumerate(places):
      framed = fetched[i] if shard.map is None else shard.view(row)
      length = len(framed) - framing.OVERHEAD
      if self.verify and not framing.intact([framed], length, shard.index.crcs.item(row)):
        raise framing.damaged(shard.name(row))
      records.append(framed[framing.HEADER.size : framing.HEADER.size + length])
    return records

  @property
  def scatters(self) -> bool:
    """Whether `read_into` can be used: every shard is local, and the system has preadv."""
    return self._scatters

  def read_into(
    self, number: int, parts: Sequence[tuple[int, int, np.ndarray]]
  ) -> list[np.ndarray] | None:
    """Reads record `number` of a local shard, some stretches of it into given arrays.

    Args:
      number: of the record.
      parts: (start, stop, array) in rising order without overlap: bytes [start, stop) of the
        record, negative as they are counted from its end, go to the array, (stop - start,) uint8.

    Returns:
      The bytes before the first stretch, between each and the next, and after the last; or None,
      with nothing read, where the record is too short for the stretches.

    Raises:
      CorruptRecordError: its bytes are not those that were written; names shard and record.
    """
    shard, row = self._locate(number)
    begin, end = shard.span(row)
    length = end - begin - framing.OVERHEAD
    gaps: list[np.ndarray] = []
    pieces: list[Any] = []  # arrays, which mypy takes for buffers from Python 3.12 on only
    at = -length - framing.HEADER.size
    for start, stop, array in parts:
      if start < max(at, -length):
        return None
      gap = np.empty(start - at, np.uint8)
      gaps.append(gap)
      pieces += (gap, array)
      at = stop
    gaps.append(np.empty(framing.FOOTER.size - at, np.uint8))
    pieces.append(gaps[-1])
    try:
      count = os.preadv(shard.descriptor, pieces, begin)
    except OSError as error:
      raise DatasetError(f"{shard.path}: cannot be read ({error}). Check the disk.") from error
    if count != end - begin:
      raise CorruptRecordError(f"{shard.name(row)}: the file ends within it. {framing.REPAIR}")
    if self.verify and not framing.intact(pieces, length, shard.index.crcs.item(row)):
      raise framing.damaged(shard.name(row))
    return gaps

  def digest(self) -> str:
    """SHA-256 of what the shards' indexes say of all records, their checksums among it; a few
    bytes of each index are read.

    Raises:
      ShardIndexError: an index is damaged, stale or gone.
    """
    return hashlib.sha256(b"".join(_of_each(shard_index.summary, self.shards))).hexdigest()

  def digest_of(self, number: int) -> str:
    """Of record `number`: the checksum of its bytes that the shard's index has, hexadecimal."""
    shard, row = self._locate(number)
    return f"{shard.index.crcs.item(row):08x}"

  def lengths(self) -> list[int]:
    """Number of records of each shard."""
    return [end - start for start, end in zip([0, *self._ends], self._ends, strict=False)]

  def where(self, number: int) -> str:
    """Shard and record of a record's number, for messages: "train.tfrecord-00000: record 3"."""
    shard, row = self._split(number)
    return f"{self.shards[shard]}: record {row}"

  def close(self) -> None:
    """Closes all files. Views that were given out stay valid; reading again opens them again."""
    with self._lock:
      self._open.clear()

  def __enter__(self) -> RecordSource:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def __repr__(self) -> str:
    return f"RecordSource({len(self)} records in {len(self.shards)} shards)"

  def __getstate__(self) -> dict[str, Any]:  # maps and locks do not travel to a worker process
    return {"shards": self.shards, "verify": self.verify, "_ends": self._ends}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._reset()

  def _split(self, number: int) -> tuple[int, int]:
    if not 0 <= number < len(self):
      raise IndexError(f"record {number} of {len(self)}")
    shard = bisect.bisect_right(self._ends, number)
    return shard, int(number) - (self._ends[shard - 1] if shard else 0)

  def _locate(self, number: int) -> tuple[_Shard, int]:
    """The open shard that holds a record, and the record's row in it."""
    shard_number, row = self._split(number)
    shard = self._open.get(shard_number)
    return (shard or self._open_shard(shard_number)), row

  def _open_shard(self, number: int) -> _Shard:
    """Opens a shard, and lets go of the one that has been open for longest if there are many."""
    with self._lock:
      if number not in self._open:
        shard = _Shard(self.shards[number])
        self._check_count(number, shard)
        if len(self._open) >= _OPEN_SHARDS:
          del self._open[next(iter(self._open))]
        self._open[number] = shard
      return self._open[number]

  def _give_back(self, size: int) -> None:
    """Counts bytes read through maps, and lets go of all their pages when there are many."""
    with self._lock:
      self._resident += size
      if self._resident > _MAPPED_BYTES:
        self._resident = 0
        for shard in self._open.values():
          shard.give_back()

  def _check_count(self, number: int, shard: _Shard) -> None:
    expected = self._ends[number] - (self._ends[number - 1] if number else 0)
    if len(shard.index) != expected:
      raise ShardIndexError(
        f"{shard.path}{shard_index.SUFFIX}: {len(shard.index)} records, but {expected} when it was "
        "opened. The file was replaced while in use; start again."
      )


def _counts(shards: Sequence[str]) -> list[int]:
  """Records of each shard, from its index."""
  return [count for count, _ in _of_each(shard_index.ensure, shards)]


def _of_each(ask: Callable[[str], T], shards: Sequence[str]) -> list[T]:
  """What is asked of each shard's index; in object storage many are asked at once."""
  if not any(storage.is_remote(shard) for shard in shards):
    return [ask(shard) for shard in shards]
  with concurrent.futures.ThreadPoolExecutor(_REQUESTS) as pool:
    return list(pool.map(ask, shards))


class _Shard:
  """One open shard: its index and, where it is local, its map."""

  def __init__(self, path: str):
    self.path = path
    try:
      self.index = shard_index.read(path)
    except FileNotFoundError:
      raise ShardIndexError(
        f"{path}{shard_index.SUFFIX}: the index is gone since the shard was opened. Start again."
      ) from None
    self.map: np.ndarray | None = None
    self._mmap: mmap.mmap | None = None
    if not storage.is_remote(path):
      with storage.reading(path):
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self.descriptor)  # open as long as anyone reads from it
        if self.index.shard_size > 0:
          self._mmap = mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ)
          self.map = np.frombuffer(self._mmap, np.uint8)

  def span(self, row: int) -> tuple[int, int]:
    """Where a record, framing included, starts and stops."""
    start = self.index.offsets.item(row) - framing.HEADER.size
    stop = start + framing.OVERHEAD + self.index.lengths.item(row)
    if start < 0 or stop > self.index.shard_size:
      raise CorruptRecordError(
        f"{self.name(row)}: its index places it at {start} to {stop}, outside the shard's "
        f"{self.index.shard_size} bytes. Delete {self.path}{shard_index.SUFFIX} to have it rebuilt."
      )
    return start, stop

  def view(self, row: int) -> np.ndarray:
    """A record of a local shard, framing included, not copied."""
    start, stop = self.span(row)
    if self.map is None or os.fstat(self.descriptor).st_size < stop:
      # Touching a map beyond the end of its file would end the process without a word.
      raise CorruptRecordError(f"{self.name(row)}: the file ends within it. {framing.REPAIR}")
    return self.map[start:stop]

  def name(self, row: int) -> str:
    return f"{self.path}: record {row}"

  def give_back(self) -> None:
    """Lets go of the mapped pages, which the page cache keeps; the map itself stays usable."""
    if self._mmap is not None and hasattr(mmap, "MADV_DONTNEED"):
      self._mmap.madvise(mmap.MADV_DONTNEED)


def _fetch(places: Sequence[tuple[_Shard, int]]) -> list[np.ndarray]:
  ranges = [(shard.path, *shard.span(row)) for shard, row in places]
  return [np.frombuffer(content, np.uint8) for content in storage.read_ranges(ranges)]
