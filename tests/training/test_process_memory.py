"""What the system counts of this process, and that freed memory goes back to it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from xjepa_jax.training import process_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
SIZE = 100_000_000


def test_an_array_counts_from_when_it_is_written_and_stays_in_the_peak() -> None:
  # In a process of its own: here, other tests' threads come and go.
  code = f"""
import numpy as np
from xjepa_jax.training.process_memory import peak_resident, resident
before = resident()
array = np.ones({SIZE}, np.uint8)
during = resident()
del array
print(before, during, resident(), peak_resident())
"""
  ended = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
  )
  before, during, after, peak = map(int, ended.stdout.split())
  assert 0.9 * SIZE < during - before < 1.5 * SIZE
  assert after < before + SIZE / 2
  assert peak > during - 1_000_000  # the system counts pages by thread, and adds up now and then


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
