"""Versions of the packages that results depend on, recorded with everything that is written."""

from __future__ import annotations

import importlib.metadata
import platform

PACKAGES = ("xjepa-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def versions() -> dict[str, str]:
  """Package -> version, including "python". Packages that are not installed are left out."""
  found = {"python": platform.python_version()}
  for package in PACKAGES:
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found
