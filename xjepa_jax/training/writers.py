"""The interface for writing a run's metrics, and the writers behind it.

Only one process writes; the caller decides which. Steps count the updates done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, SupportsFloat

import numpy as np


class Writer(Protocol):
  """The methods of every writer. Keys are paths such as "loss/latent"."""

  def scalars(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
    """Write numbers of one step; 0-dimensional arrays are allowed."""

  def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    """Write the distribution of the values of arrays of any shape."""

  def images(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    """Write pictures, (H, W, 3) uint8."""

  def close(self) -> None:
    """Finish everything that is in progress. Nothing may be written afterwards."""


class Writers:
  """Passes everything on to several writers; itself a `Writer` and a context manager."""

  def __init__(self, writers: Sequence[Writer] = ()):
    self._writers = tuple(writers)

  def __bool__(self) -> bool:
    """Whether anything is written; if not, callers need not make pictures."""
    return bool(self._writers)

  def add(self, more: Writers) -> None:
    """Pass everything on to these writers too from now on, and close them at the end."""
    self._writers += more._writers

  def scalars(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
    """Write numbers of one step, copied to the host once for all writers."""
    numbers = {key: float(value) for key, value in values.items()}
    for writer in self._writers:
      writer.scalars(step, numbers)

  def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    """Write arrays of one step, copied to the host once for all writers."""
    arrays = {key: np.asarray(value) for key, value in values.items()}
    for writer in self._writers:
      writer.histograms(step, arrays)

  def images(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    """Write pictures of one step."""
    for writer in self._writers:
      writer.images(step, values)

  def close(self) -> None:
    """Close every writer, even after one that fails, then raise the first failure."""
    failure: Exception | None = None
    for writer in self._writers:
      try:
        writer.close()
      except Exception as error:
        failure = failure or error
    if failure is not None:
      raise failure

  def __enter__(self) -> Writers:
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self.close()


def open_services(
  directory: str,
  *,
  wandb: str = "",
  prometheus_port: int = 0,
  prometheus_address: str = "127.0.0.1",
  config: Mapping[str, Any] | None = None,
) -> Writers:
  """Open Prometheus and Weights & Biases where configured.

  Both are likely to be refused, for lack of a package, a port or a key, so they are opened before
  anything is computed.

  Args:
    directory: the run's directory; it exists.
    wandb: project of Weights & Biases; empty for none.
    prometheus_port, prometheus_address: where Prometheus is served; port 0 for nowhere.
    config: the experiment's config, for Weights & Biases.

  Raises:
    ConfigError: a service is configured and not installed, a port is taken, or Weights & Biases
      accepts no run.
  """
  writers: list[Writer] = []
  if prometheus_port:
    from xjepa_jax.training.prometheus import Prometheus

    writers.append(Prometheus(prometheus_port, prometheus_address))
  if wandb:
    from xjepa_jax.training.weights_and_biases import WeightsAndBiases

    writers.append(WeightsAndBiases(wandb, directory, config or {}))
  return Writers(writers)


def open_files(directory: str, first: int = 0, tensorboard: bool = True) -> Writers:
  """Open `metrics.jsonl`, and TensorBoard's event files where configured.

  Args:
    directory: the run's directory; it exists.
    first: the first step that will be written. What earlier starts of the run wrote at this step
      and later is dropped, so that the curve is that of one run.
    tensorboard: write event files to `directory`/tensorboard.

  Raises:
    TrainingError: the `metrics.jsonl` of an earlier start cannot be continued.
  """
  from xjepa_jax.training.json_lines import JsonLines

  writers: list[Writer] = [JsonLines(f"{directory}/metrics.jsonl", first)]
  if tensorboard:
    from xjepa_jax.training.tensorboard import TensorBoard

    writers.append(TensorBoard(f"{directory}/tensorboard", first))
  return Writers(writers)
