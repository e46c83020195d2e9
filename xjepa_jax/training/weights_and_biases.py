"""An optional writer for Weights & Biases: `pip install xjepa_jax[wandb]`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, SupportsFloat

import numpy as np

from xjepa_jax.data import storage
from xjepa_jax.errors import ConfigError


class WeightsAndBiases:
  """A run of a Weights & Biases project; a run that is resumed stays the same run there.

  Steps that were logged before a restart are kept: the service does not accept a step twice.
  """

  def __init__(self, project: str, directory: str, config: Mapping[str, Any]):
    """Begin or resume a run; its identity is kept in `directory`/wandb_id.txt.

    Raises:
      ConfigError: the package is not installed, or no run can be opened, for lack of a key for
        example.
    """
    try:
      import wandb
    except ImportError as error:
      raise ConfigError(
        f"config key 'telemetry.wandb' is {project!r}, and the package wandb cannot be imported "
        f"({error}). Install it with `pip install xjepa_jax[wandb]`, or leave the key empty."
      ) from error
    self._wandb = wandb
    identity = _identity(f"{directory}/wandb_id.txt")
    try:
      self._run = wandb.init(
        project=project,
        dir=None if storage.is_remote(directory) else directory,
        config=dict(config),
        id=identity,
        resume="allow",  # continues the run of this identity if there is one
      )
    except Exception as error:  # UsageError without a key, CommError without a network
      why = " ".join(str(error).split())[:300]
      raise ConfigError(
        f"config key 'telemetry.wandb' is {project!r}, and Weights & Biases takes no run "
        f"({type(error).__name__}: {why}). Give a key with `wandb login` or the variable "
        "WANDB_API_KEY, set WANDB_MODE=offline to keep the run in its directory, or leave the "
        "config key empty."
      ) from error

  def scalars(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
    """Log one curve per key."""
    self._run.log({key: float(value) for key, value in values.items()}, step=step)

  def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    """Log the distribution of each array's finite values."""
    made = {}
    for key, value in values.items():
      array = np.asarray(value, dtype=np.float64).ravel()
      finite = array[np.isfinite(array)]
      if finite.size:
        made[key] = self._wandb.Histogram(finite)
    self._run.log(made, step=step)

  def images(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    """Log pictures, (H, W, 3) uint8."""
    made = {key: self._wandb.Image(np.asarray(value)) for key, value in values.items()}
    self._run.log(made, step=step)

  def close(self) -> None:
    """Send what is queued and end the run."""
    self._run.finish()


def _identity(path: str) -> str:
  try:
    return storage.read_file(path).decode("ascii").strip()
  except FileNotFoundError:
    identity = uuid.uuid4().hex[:12]
    storage.write_file(path, identity.encode())
    return identity
