"""PyTorch's DataLoader over one memory-mapped .npy a sensor, sampled at random.

Either as most write it, a pair an item and the default collation; or a whole batch an item
(`BatchSampler` as the sampler, no collation), gathered with one indexing operation a sensor, which
needs pairs of one size in one file. Nothing is parsed or checked: files hold the bare pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from benchmarks.peers.pair_format import SENSORS, npy_path


class MappedPairs(Dataset[tuple[torch.Tensor, ...]]):
  """Pairs in .npy files, indexed by lists of rows."""

  def __init__(self, directory: str):
    # "c": torch takes only arrays that can be written, though nobody writes
    self.arrays = [np.load(npy_path(directory, key), mmap_mode="c") for key in SENSORS]

  def __len__(self) -> int:
    return len(self.arrays[0])

  def __getitem__(self, rows: list[int] | int) -> tuple[torch.Tensor, ...]:
    """A pair, or for a list a batch: a tensor (len(rows), H, W, C) for each sensor."""
    if isinstance(rows, int):
      return tuple(torch.from_numpy(array[rows]) for array in self.arrays)
    return tuple(_gather(array, rows) for array in self.arrays)


def batches(
  directory: str, size: int, batch: int, workers: int = 0, gather: bool = True
) -> Iterator[tuple[np.ndarray, ...]]:
  """Endless batches in a global shuffle.

  Args:
    directory: of the .npy files.
    size: of an image in pixels; the files know it.
    batch: pairs of a batch.
    workers: processes that make batches; 0 makes them in the consumer's thread.
    gather: make a batch with one indexing operation, instead of pair by pair.

  Yields:
    An array (batch, size, size, C) for each sensor, a view of the tensor.
  """
  pairs = MappedPairs(directory)
  sampler = RandomSampler(pairs, num_samples=1 << 40)  # epoch upon epoch, no pause in between
  loader: DataLoader[tuple[torch.Tensor, ...]] = DataLoader(
    pairs,
    batch_size=None if gather else batch,
    sampler=BatchSampler(sampler, batch, drop_last=True) if gather else sampler,
    drop_last=not gather,
    num_workers=workers,
    prefetch_factor=2 if workers else None,
  )
  for tensors in loader:
    yield tuple(tensor.numpy() for tensor in tensors)


def _gather(array: np.ndarray, rows: list[int]) -> torch.Tensor:
  """The rows as one tensor; a worker's is in the memory that it shares, so it is copied once."""
  dtype = torch.from_numpy(array[:0]).dtype
  tensor = torch.empty((len(rows), *array.shape[1:]), dtype=dtype)
  if torch.utils.data.get_worker_info() is not None:
    tensor.share_memory_()
  np.take(array, rows, axis=0, out=tensor.numpy(), mode="clip")
  return tensor
