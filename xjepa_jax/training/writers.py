"""Where the numbers of a run go: one small interface, and several writers behind it.

Only one process writes; the caller decides which. Steps count updates done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, SupportsFloat

import numpy as np


class Writer(Protocol):
  """What every writer can be told. Keys are paths such as "loss/latent"."""

  def scalars(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
    """Numbers of one step, 0-dimensional arrays included."""

  def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    """Arrays of any shape whose values' distribution is of interest."""

  def images(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    """Pictures, (H, W, 3) uint8."""

  def close(self) -> None:
    """Finishes all that is under way. Nothing is written after."""


class Writers:
  """Tells several writers the same; itself a `Writer` and a context manager."""

  def __init__(self, writers: Sequence[Writer] = ()):
    self._writers = tuple(writers)

  def __bool__(self) -> bool:
    """Whether anything is written; pictures need not be made for nobody."""
    return bool(self._writers)

  def add(self, more: Writers) -> None:
    """Tells these too from here on, and closes them."""
    self._writers += more._writers

  def scalars(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
    """Numbers of one step, brought to the host once for all writers."""
    numbers = {key: float(value) for key, value in values.items()}
    for writer in self._writers:
      writer.scalars(step, numbers)

  def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    """Arrays of one step, brought to the host once for all writers."""
    arrays = {key: np.asarray(value) for key, value in values.items()}
    for writer in self._writers:
      writer.histograms(step, arrays)

  def images(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    """Pictures of one step."""
    for writer in self._writers:
      writer.images(step, values)

  def close(self) -> None:
    """Closes every writer, also those after one that fails, then raises the first failure."""
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
  """Prometheus and Weights & Biases where wanted: what is likely to be refused, so that it can be
  before anything is computed.

  Args:
    directory: of the run; it exists.
    wandb: project of Weights & Biases; empty is none.
    prometheus_port, prometheus_address: where Prometheus is answered; port 0 is nowhere.
    config: of the experiment, for Weights & Biases.

  Raises:
    ConfigError: one is wanted and not installed, a port is taken, or Weights & Biases takes no run.
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
  """`metrics.jsonl`, and TensorBoard where wanted.

  Args:
    directory: of the run; it exists.
    first: the first step that will be written. What earlier starts of the run wrote at this step
      and after is dropped, so that the curve is that of one run.
    tensorboard: write event files into `directory`/tensorboard.

  Raises:
    TrainingError: the `metrics.jsonl` of an earlier start cannot be continued.
  """
  from xjepa_jax.training.json_lines import JsonLines

  writers: list[Writer] = [JsonLines(f"{directory}/metrics.jsonl", first)]
  if tensorboard:
    from xjepa_jax.training.tensorboard import TensorBoard

    writers.append(TensorBoard(f"{directory}/tensorboard", first))
  return Writers(writers)
