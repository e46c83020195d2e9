"""Random access to the records of many TFRecord shards.

Local shards are memory-mapped: a record is a view of the page cache. Where the values go into a
batch, one scattering read puts them there directly (`read_into`), because a copy out of a map pays
for page faults and measured 6,500 records of 460 kB per second instead of 11,000. Shards in object
storage are read by range, many ranges at once. However large the data set, only the shards in use
are open, and mapped pages are released, so memory stays bounded.
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
_OPEN_SHARDS = 128  # each holds two file descriptors; the usual limit is 1,024 per process
_REQUESTS = 32  # concurrent requests for indexes in object storage
_MAPPED_BYTES = 128 << 20  # bytes read through maps before their pages are released


class RecordSource:
  """The records of some shards, in order: a random-access source with Grain's interface.

  Args:
    shards: paths or addresses, in order. A missing index is built once.
    verify: check every byte of a record against its CRC on each read.

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
    self._resident = 0  # bytes read through maps since their pages were last released

  def __len__(self) -> int:
    return self._ends[-1]

  def __getitem__(self, number: int) -> np.ndarray:
    """Record `number` as (n,) uint8, read-only; a view of the map if the shard is local.

    Raises:
      CorruptRecordError: its bytes are not as they were written; names shard and record.
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
    """Read record `number` of a local shard, with parts of it going directly into given arrays.

    Args:
      number: number of the record.
      parts: (start, stop, array) in ascending order without overlap. Bytes [start, stop) of the
        record go into the array, (stop - start,) uint8; the bounds are negative, counted from the
        record's end.

    Returns:
      The bytes before the first part, between consecutive parts, and after the last one; or None,
      with nothing read, if the record is too short for the parts.

    Raises:
      CorruptRecordError: its bytes are not as they were written; names shard and record.
    """
    shard, row = self._locate(number)
    begin, end = shard.span(row)
    length = end - begin - framing.OVERHEAD
    gaps: list[np.ndarray] = []
    pieces: list[Any] = []  # arrays; mypy accepts these as buffers only from Python 3.12 on
    at = -length - framing.HEADER.size  # start of the header, counted from the end of the data
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
    """SHA-256 of all shard indexes' summaries, which cover the checksums of all records.

    Only a few bytes of each index are read.

    Raises:
      ShardIndexError: an index is damaged, stale or gone.
    """
    return hashlib.sha256(b"".join(_of_each(shard_index.summary, self.shards))).hexdigest()

  def digest_of(self, number: int) -> str:
    """Checksum of record `number` from the shard's index, in hexadecimal."""
    shard, row = self._locate(number)
    return f"{shard.index.crcs.item(row):08x}"

  def lengths(self) -> list[int]:
    """Number of records of each shard."""
    return [end - start for start, end in zip([0, *self._ends], self._ends, strict=False)]

  def where(self, number: int) -> str:
    """Shard and row of a record, for messages: "train.tfrecord-00000: record 3"."""
    shard, row = self._split(number)
    return f"{self.shards[shard]}: record {row}"

  def close(self) -> None:
    """Close all files. Views already handed out stay valid; the next read opens the files again."""
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
    """Open a shard; beyond `_OPEN_SHARDS`, the one opened first is dropped."""
    with self._lock:
      if number not in self._open:
        shard = _Shard(self.shards[number])
        self._check_count(number, shard)
        if len(self._open) >= _OPEN_SHARDS:
          del self._open[next(iter(self._open))]
        self._open[number] = shard
      return self._open[number]

  def _give_back(self, size: int) -> None:
    """Count bytes read through maps, and release all mapped pages once there are many."""
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
  """Number of records of each shard, from its index."""
  return [count for count, _ in _of_each(shard_index.ensure, shards)]


def _of_each(ask: Callable[[str], T], shards: Sequence[str]) -> list[T]:
  """Result of `ask` for each shard; indexes in object storage are read concurrently."""
  if not any(storage.is_remote(shard) for shard in shards):
    return [ask(shard) for shard in shards]
  with concurrent.futures.ThreadPoolExecutor(_REQUESTS) as pool:
    return list(pool.map(ask, shards))


class _Shard:
  """One open shard: its index and, if it is local, its memory map."""

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
        # Another thread may still read from a shard that was dropped, so only its end closes it.
        weakref.finalize(self, os.close, self.descriptor)
        if self.index.shard_size > 0:
          self._mmap = mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ)
          self.map = np.frombuffer(self._mmap, np.uint8)

  def span(self, row: int) -> tuple[int, int]:
    """Start and stop of a record in the file, framing included."""
    start = self.index.offsets.item(row) - framing.HEADER.size
    stop = start + framing.OVERHEAD + self.index.lengths.item(row)
    if start < 0 or stop > self.index.shard_size:
      raise CorruptRecordError(
        f"{self.name(row)}: its index places it at {start} to {stop}, outside the shard's "
        f"{self.index.shard_size} bytes. Delete {self.path}{shard_index.SUFFIX} to have it rebuilt."
      )
    return start, stop

  def view(self, row: int) -> np.ndarray:
    """A record of a local shard, framing included, without a copy."""
    start, stop = self.span(row)
    if self.map is None or os.fstat(self.descriptor).st_size < stop:
      # Touching a map beyond the end of its file would kill the process with SIGBUS.
      raise CorruptRecordError(f"{self.name(row)}: the file ends within it. {framing.REPAIR}")
    return self.map[start:stop]

  def name(self, row: int) -> str:
    return f"{self.path}: record {row}"

  def give_back(self) -> None:
    """Release the mapped pages, which stay in the page cache; the map itself stays usable."""
    if self._mmap is not None and hasattr(mmap, "MADV_DONTNEED"):
      self._mmap.madvise(mmap.MADV_DONTNEED)


def _fetch(places: Sequence[tuple[_Shard, int]]) -> list[np.ndarray]:
  ranges = [(shard.path, *shard.span(row)) for shard, row in places]
  return [np.frombuffer(content, np.uint8) for content in storage.read_ranges(ranges)]
