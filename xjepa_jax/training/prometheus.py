"""An optional endpoint for Prometheus to scrape: `pip install xjepa_jax[prometheus]`.

xjepa_step 120.0
xjepa_scalar{key="loss/total"} 0.51
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import SupportsFloat

import numpy as np

from xjepa_jax.errors import ConfigError


class Prometheus:
  """Serves the last value of every scalar, under its key in `metrics.jsonl`.

  The key is a label, because a metric's name cannot contain "validation/a->b/recall@1".
  """

  def __init__(self, port: int, address: str):
    """Start serving in a thread of its own.

    Args:
      port: the port to listen on.
      address: the network interface; 127.0.0.1 can be reached from this machine only.

    Raises:
      ConfigError: the package is not installed, or the port is taken.
    """
    try:
      from prometheus_client import CollectorRegistry, Gauge, start_http_server
    except ImportError as error:
      raise ConfigError(
        f"config key 'telemetry.prometheus_port' is {port}, and the package prometheus_client "
        f"cannot be imported ({error}). Install it with `pip install xjepa_jax[prometheus]`, or "
        "set the key to 0."
      ) from error
    registry = CollectorRegistry()  # the default registry would add metrics of the process itself
    self._step = Gauge("xjepa_step", "Updates done", registry=registry)
    self._scalar = Gauge(
      "xjepa_scalar", "The last value of a scalar, by its key", ["key"], registry=registry
    )
    try:
      self._server, self._thread = start_http_server(port, address, registry)
    except OSError as error:
      raise ConfigError(
        f"config key 'telemetry.prometheus_port' is {port}, and {address}:{port} cannot be "
        f"listened at ({error.strerror or error}). Choose a free port and an address of this "
        "machine (telemetry.prometheus_address), or set the port to 0."
      ) from error

  def scalars(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
    """Replace the previous values."""
    self._step.set(step)
    for key, value in values.items():
      self._scalar.labels(key).set(float(value))

  def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    """Ignore histograms."""

  def images(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    """Ignore images."""

  def close(self) -> None:
    """Stop serving; may be called twice."""
    self._server.shutdown()
    self._server.server_close()
    self._thread.join()
