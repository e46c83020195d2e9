"""Batches of pairs, in the order of the steps, on a mesh of any size.

  with Pipeline(datasets, batch=256, sharding=sharding, seed=0) as pipeline:
    for step, batch in pipeline.batches(start=step):
      state = train_step(state, batch)

Values are transferred as stored; scaling, flips and masks are applied on the device. The batches
from step n on are the same for any number of processes and after any restart, because a batch
depends only on its step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np

from xjepa_jax.data.batch_source import Batch, BatchSource
from xjepa_jax.data.cores import usable_cores
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.order import Order
from xjepa_jax.errors import DatasetError
from xjepa_jax.sensors import Sensor

_PREFETCH_BYTES = 512 << 20  # memory for prefetched batches, for the default of `prefetch`
_MOST_THREADS = 16


@dataclasses.dataclass(frozen=True)
class Reading:
  """How a process reads. `choose` adapts it to the machine; every number can be set.

  Attributes:
    threads: number of threads that assemble batches, each a whole batch. Copying and CRCs release
      Python's lock or hold it for microseconds, so threads suffice for uncompressed local data.
    prefetch: number of batches that may be ready or under way ahead of the step.
    workers: number of processes that assemble batches instead of threads of this one; 0 for none.
      They only pay off where decoding is slow (zlib on a machine with many cores).
  """

  threads: int = 1
  prefetch: int = 2
  workers: int = 0

  @classmethod
  def choose(cls, batch_bytes: int, cores: int | None = None) -> Reading:
    """Threads for half the cores, at least two, and twice as many batches, limited to 512 MiB.

    A single thread leaves half of the memory bandwidth unused (7,800 pairs of 460 kB per second;
    two threads read 13,100).

    Args:
      batch_bytes: size of one batch of this process.
      cores: number of cores; None for those that this process may use.
    """
    cores = cores or usable_cores()
    # Writing batches to memory, one thread reaches 60 % of the rate at which it reads and checks
    # records in its cache; two reach 95 %.
    fit = max(_PREFETCH_BYTES // max(batch_bytes, 1), 2)
    threads = int(min(max(cores // 2, 2), cores, _MOST_THREADS, fit))
    return cls(threads=threads, prefetch=int(min(2 * threads, fit)))


class Pipeline:
  """Global batches of co-located pairs.

  Args:
    datasets: one or several; several are mixed.
    batch: number of pairs in a global batch, over all processes.
    sharding: a `jax.sharding.Sharding` of the batch's first axis; None leaves batches on the host,
      as NumPy arrays.
    seed: seed of the shuffle.
    shuffle: False keeps the order of the data sets.
    weights: share of each data set; None shares by size.
    once: end after one pass over the pairs, with the last batch padded by rows that are not
      "valid"; only for a single data set.
    bands: sensor key -> names of the bands wanted, in order.
    sensors: sensor keys wanted, or None for all.
    reading: threads and prefetch; None adapts to the machine.

  Raises:
    DatasetError: the batch does not divide over the sharding, or the data sets are incompatible.
  """

  def __init__(
    self,
    datasets: PairDataset | Sequence[PairDataset],
    batch: int,
    sharding: Any = None,
    seed: int = 0,
    shuffle: bool = True,
    weights: Sequence[float] | None = None,
    once: bool = False,
    bands: Mapping[str, Sequence[str]] | None = None,
    sensors: Sequence[str] | None = None,
    reading: Reading | None = None,
  ):
    datasets = [datasets] if isinstance(datasets, PairDataset) else list(datasets)
    if batch < 1:
      raise DatasetError(f"batch {batch}: a global batch has at least one pair.")
    if once and len(datasets) > 1:
      raise DatasetError(f"once: {len(datasets)} data sets are mixed without end; give one.")
    self.batch = batch
    self.sharding = sharding
    order = Order([len(dataset) for dataset in datasets], weights, seed, shuffle)
    self.source = BatchSource(
      datasets,
      order,
      batch,
      local_rows(sharding, batch),
      bands,
      sensors,
      pairs=len(datasets[0]) if once else None,
    )
    self.reading = reading or Reading.choose(self.source.nbytes())
    self._iterators: list[Any] = []

  @property
  def sensors(self) -> dict[str, Sensor]:
    """Sensor key -> description, with only the bands that batches have."""
    return {key: slot.sensor for key, slot in self.source.slots.items()}

  @property
  def steps(self) -> int | None:
    """Number of batches of a pipeline that ends, else None."""
    return None if self.source.pairs is None else len(self.source)

  def batches(self, start: int = 0) -> Generator[tuple[int, Batch], None, None]:
    """Yield (step, batch) from step `start` on; `BatchSource` describes the batches.

    With a sharding, every array is one global `jax.Array`, and the next batch is transferred to the
    devices while a step runs.

    Raises:
      CorruptRecordError, ExampleError: a record is damaged; the message names shard, record and
        pair.
    """
    iterator = self._iterator(start)
    self._iterators.append(iterator)
    try:
      # Stay one batch ahead: `place` only starts the transfer, which then overlaps with the step.
      ahead: Batch | None = None
      for step, batch in enumerate(iterator, start):
        placed = place(batch, self.sharding, self.source.rows, self.batch)
        if ahead is not None:
          yield step - 1, ahead
        ahead = placed
      if ahead is not None:
        yield len(self.source) - 1, ahead
    finally:
      self._iterators.remove(iterator)
      iterator.close()

  def close(self) -> None:
    """Stop reading and close all files."""
    for iterator in list(self._iterators):
      iterator.close()
    self.source.close()

  def __enter__(self) -> Pipeline:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def _iterator(self, start: int) -> Any:
    import grain
    from absl import flags

    steps: Any = grain.MapDataset.source(_From(self.source, start))
    # A worker process hands over a batch through fresh shared memory, which measured a third of one
    # thread's rate. Hence threads are the default.
    if self.reading.workers:
      if not flags.FLAGS.is_parsed():  # Grain reads absl flags, which only an absl app parses
        flags.FLAGS.mark_as_parsed()
      options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
      dataset = steps.to_iter_dataset(options).mp_prefetch(
        grain.MultiprocessingOptions(
          num_workers=self.reading.workers,
          per_worker_buffer_size=max(self.reading.prefetch // self.reading.workers, 1),
        )
      )
    else:
      dataset = steps.to_iter_dataset(
        grain.ReadOptions(
          num_threads=self.reading.threads, prefetch_buffer_size=self.reading.prefetch
        )
      )
    return iter(dataset)


class _From:
  """The batches of a source from a step on, numbered from 0 as Grain requires."""

  def __init__(self, source: BatchSource, start: int):
    self.source = source
    self.start = start

  def __len__(self) -> int:
    return max(len(self.source) - self.start, 0)

  def __getitem__(self, index: int) -> Batch:
    return self.source[self.start + index]

  def __repr__(self) -> str:
    return f"{self.source!r} from step {self.start}"


def local_rows(sharding: Any, batch: int) -> tuple[int, ...]:
  """The rows of a global batch that this process's devices hold, in ascending order.

  Raises:
    DatasetError: the batch does not divide over the sharding.
  """
  if sharding is None:
    return tuple(range(batch))
  try:
    places = sharding.addressable_devices_indices_map((batch,))
  except ValueError as error:
    raise DatasetError(
      f"batch {batch} does not divide over the devices of {sharding}: {error}"
    ) from error
  rows: set[int] = set()
  for (place,) in places.values():
    rows.update(range(*place.indices(batch)))
  return tuple(sorted(rows))


def place(batch: Batch, sharding: Any, rows: Sequence[int], size: int) -> Batch:
  """This process's rows as global arrays over the mesh; see `Pipeline.batches`."""
  if sharding is None:
    return batch
  import jax

  # The rows of a device are consecutive in the global batch, and so in `rows`.
  first_of = {row: i for i, row in enumerate(rows)}

  def to_devices(local: np.ndarray) -> Any:
    def part(index: Any) -> np.ndarray:
      start, stop, _ = index[0].indices(size)
      return local[first_of[start] : first_of[start] + stop - start]

    return jax.make_array_from_callback((size, *local.shape[1:]), sharding, part)

  return jax.tree.map(to_devices, batch)
