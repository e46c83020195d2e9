"""Cross-sensor joint-embedding predictive architectures for Earth observation, in JAX.

Importing the package is cheap: heavy dependencies are imported only by the modules that use them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from xjepa_jax.export import load_encoder

__all__ = ["load_encoder"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
  if name == "load_encoder":
    from xjepa_jax.export import load_encoder

    return load_encoder
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
