"""Real processes on loopback: the global batches do not depend on their number."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("batches_worker.py")
STEPS = 3


def free_port() -> int:
  with socket.socket() as sock:
    sock.bind(("127.0.0.1", 0))
    return int(sock.getsockname()[1])


def rows_of(directory: str, processes: int, start: int) -> list[str]:
  """What all processes together hold, sorted: step, array, row, digest."""
  flags = f"--xla_force_host_platform_device_count={4 // processes}"
  environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
  coordinator = f"127.0.0.1:{free_port()}"
  started = [
    subprocess.Popen(
      [sys.executable, str(WORKER), directory, coordinator]
      + [str(number) for number in (processes, process, start, STEPS)],
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for process in range(processes)
  ]
  rows: list[str] = []
  try:
    for process in started:
      out, errors = process.communicate(timeout=180)
      assert process.returncode == 0, errors
      rows += [line for line in out.splitlines() if line.startswith("row ")]
  finally:
    for process in started:
      process.kill()
  return sorted(rows)


@pytest.fixture(scope="module")
def alone(simulated: str) -> list[str]:
  return rows_of(simulated, processes=1, start=4)


@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_hold_together_what_one_holds(
  simulated: str, alone: list[str], processes: int
) -> None:
  assert len(alone) == STEPS * 16 * 7  # values and presence of two sensors, validity, two places
  assert rows_of(simulated, processes, start=4) == alone


def test_a_restart_on_another_number_of_processes_continues_the_same_batches(
  simulated: str, alone: list[str]
) -> None:
  later = rows_of(simulated, processes=2, start=5)
  assert set(alone) - set(later) == {row for row in alone if row.startswith("row 4 ")}
