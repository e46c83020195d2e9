"""Memory for batches, reused once nobody holds the batch.

Asking the system for the memory of each batch anew costs as much as a third of reading it, because
the system clears every page first. A buffer comes back when the last array on it is gone, whoever
held it, so a batch that is kept stays as it is.
"""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np

_ALIGNMENT = 64  # bytes; what JAX needs to use an array on the CPU without a copy
_KEPT = 16  # largest number of free buffers of one size that are kept


class Buffers:
  """Arrays on reused memory."""

  def __init__(self) -> None:
    self._free: dict[int, list[np.ndarray]] = {}

  def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array with arbitrary content, like `numpy.empty`, aligned to 64 bytes."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    free = self._free.setdefault(size, [])
    try:
      memory = free.pop()
    except IndexError:
      memory = _aligned(size)
    # A memoryview between keeps NumPy from taking `memory` as the base of views of this array:
    # every view holds on to `lent`, whose end is therefore the end of them all.
    lent = np.frombuffer(memoryview(memory), np.uint8)  # type: ignore[arg-type,unused-ignore]
    weakref.finalize(lent, _give_back, free, memory).atexit = False
    return lent.view(dtype).reshape(shape)

  def __getstate__(self) -> dict[str, Any]:  # memory does not travel to a worker process
    return {"_free": {}}


def _give_back(free: list[np.ndarray], memory: np.ndarray) -> None:
  if len(free) < _KEPT:
    free.append(memory)


def _aligned(size: int) -> np.ndarray:
  memory = np.empty(size + _ALIGNMENT, np.uint8)
  start = -memory.ctypes.data % _ALIGNMENT
  return memory[start : start + size]
