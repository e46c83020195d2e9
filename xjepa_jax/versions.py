"""Versions of what results depend on, for everything that is written down."""

from __future__ import annotations

import importlib.metadata
import platform

PACKAGES = ("xjepa-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def versions() -> dict[str, str]:
  """Package -> version; "python" too. A package that is not installed is left out."""
  found = {"python": platform.python_version()}
  for package in PACKAGES:
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found
