"""Memory as metrics: of this process, and of the fullest device where the platform tells."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from xjepa_jax.training.memory import memory_scalars


def device(**stats: int) -> Any:
  return SimpleNamespace(memory_stats=lambda: stats or None)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_a_process_on_cpus_tells_of_the_hosts_memory_alone() -> None:
  found = memory_scalars()
  assert set(found) == {"memory/host_bytes", "memory/host_peak_bytes"}
  assert 1e8 < found["memory/host_bytes"] < 1e12  # JAX is loaded
  assert found == {key: float(int(value)) for key, value in found.items()}
  assert jax.default_backend() == "cpu"


def test_of_several_devices_the_fullest_counts() -> None:
  found = memory_scalars(
    [
      device(bytes_in_use=10, peak_bytes_in_use=40, bytes_limit=100, num_allocs=7),
      device(bytes_in_use=30, peak_bytes_in_use=35, bytes_limit=100),
      device(),
    ]
  )
  of_devices = {key: value for key, value in found.items() if "device" in key}
  assert of_devices == {
    "memory/device_bytes": 30,
    "memory/device_peak_bytes": 40,
    "memory/device_limit_bytes": 100,
  }
