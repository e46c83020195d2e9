"""Memory that a run has now and had at most, for the metric writers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from xjepa_jax.training.process_memory import peak_resident, resident

_OF_DEVICES = {
  "device_bytes": "bytes_in_use",
  "device_peak_bytes": "peak_bytes_in_use",
  "device_limit_bytes": "bytes_limit",
}


def memory_scalars(devices: Sequence[Any] | None = None) -> dict[str, float]:
  """Bytes of this process in the host's memory, and on the fullest of its devices.

  Args:
    devices: that are asked; None asks all of this process.

  Returns:
    What is known: a CPU's memory is the host's, and outside of Linux the host does not tell.
  """
  found = {"host_bytes": resident(), "host_peak_bytes": peak_resident()}
  stats = [device.memory_stats() or {} for device in devices or jax.local_devices()]
  for name, key in _OF_DEVICES.items():
    found[name] = max((each.get(key, 0) for each in stats), default=0)
  return {f"memory/{name}": float(value) for name, value in found.items() if value}
