"""What the system counts of this process, and that freed memory goes back to it."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from xjepa_jax.training import process_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
SIZE = 100_000_000


def test_an_array_counts_from_when_it_is_written_and_stays_in_the_peak() -> None:
  before = process_memory.resident()
  array = np.ones(SIZE, np.uint8)
  during = process_memory.resident()
  assert 0.9 * SIZE < during - before < 1.5 * SIZE
  del array
  assert process_memory.resident() < before + SIZE / 2
  assert process_memory.peak_resident() >= during


def test_small_pieces_that_were_freed_go_back() -> None:
  pieces = [np.ones(1000, np.uint8) for _ in range(SIZE // 1000)]
  held = process_memory.resident()
  kept = pieces[-1]  # the last lies above all others, and keeps the library from shrinking
  del pieces
  process_memory.give_back()
  assert process_memory.resident() < held - SIZE / 2
  assert kept.all()


def test_nothing_is_known_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
  def refuse(*_: object, **__: object) -> None:
    raise FileNotFoundError("/proc")

  monkeypatch.setattr("builtins.open", refuse)
  assert process_memory.resident() == process_memory.peak_resident() == 0
