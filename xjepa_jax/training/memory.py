"""Current and peak memory of a run, for the metric writers."""

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
  """Return the bytes of this process in the host's memory, and on the fullest of its devices.

  Args:
    devices: the devices to query; None queries all devices of this process.

  Returns:
    The numbers that are known. A CPU device reports none, because its memory is the host's, and
    the host's are only known on Linux.
  """
  found = {"host_bytes": resident(), "host_peak_bytes": peak_resident()}
  stats = [device.memory_stats() or {} for device in devices or jax.local_devices()]
  for name, key in _OF_DEVICES.items():
    found[name] = max((each.get(key, 0) for each in stats), default=0)
  return {f"memory/{name}": float(value) for name, value in found.items() if value}
