"""Memory of batches is used again, and never while anyone still looks at it."""

from __future__ import annotations

import gc
import pickle

import jax
import numpy as np
import pytest

from xjepa_jax.data.buffers import Buffers


def address(array: np.ndarray) -> int:
  return int(array.ctypes.data)


def test_memory_comes_back_when_the_array_is_gone() -> None:
  buffers = Buffers()
  first = buffers.empty((3, 5), np.uint16)
  place = address(first)
  del first
  assert address(buffers.empty((3, 5), np.uint16)) == place


@pytest.mark.parametrize(
  "view",
  [
    lambda array: array[1:],
    lambda array: array.reshape(-1)[3:].view(np.uint8),
    lambda array: array.T[2],
    lambda array: memoryview(array),
    lambda array: np.asarray(array.data),
  ],
)
def test_a_view_of_any_kind_keeps_the_memory(view: object) -> None:
  buffers = Buffers()
  array = buffers.empty((4, 6), np.uint16)
  array[:] = 7
  kept = view(array)  # type: ignore[operator]
  del array
  gc.collect()
  for _ in range(3):
    buffers.empty((4, 6), np.uint16)[:] = 9
  assert (np.ascontiguousarray(kept).view(np.uint8) != 9).all()


def test_an_array_on_a_device_keeps_its_values() -> None:
  buffers = Buffers()
  for value in range(20):
    array = buffers.empty((64, 1024), np.float32)
    array[:] = value
    placed = jax.device_put(array)
    del array
    again = buffers.empty((64, 1024), np.float32)
    again[:] = -1
    assert (np.asarray(placed) == value).all()


def test_arrays_are_aligned_for_use_without_a_copy() -> None:
  buffers = Buffers()
  kept = [buffers.empty((size,), np.uint8) for size in range(1, 200, 7)]
  assert all(address(array) % 64 == 0 for array in kept)


def test_arrays_that_live_at_once_share_nothing() -> None:
  buffers = Buffers()
  kept = [buffers.empty((100,), np.uint8) for _ in range(10)]
  assert not any(np.shares_memory(a, b) for i, a in enumerate(kept) for b in kept[:i])


def test_buffers_pickle_without_their_memory() -> None:
  buffers = Buffers()
  buffers.empty((1 << 20,), np.uint8)
  assert len(pickle.dumps(buffers)) < 1000
