"""`progress.json`: the step of the last written checkpoint, for whatever starts a run."""

from __future__ import annotations

import json

from xjepa_jax.data import storage
from xjepa_jax.errors import CheckpointError

PROGRESS = "progress.json"


def write_reached(workdir: str, step: int) -> None:
  """Record a step.

  Raises:
    OSError: the file cannot be written.
  """
  storage.write_file(f"{workdir}/{PROGRESS}", json.dumps({"step": step}).encode())


def read_reached(workdir: str) -> int | None:
  """Return the step recorded last; None if none was.

  Raises:
    CheckpointError: the file does not hold what was written.
  """
  path = f"{workdir}/{PROGRESS}"
  try:
    return int(json.loads(storage.read_file(path))["step"])
  except FileNotFoundError:
    return None
  except (ValueError, KeyError, TypeError) as error:
    raise CheckpointError(
      f'{path}: holds something else than {{"step": NUMBER}} ({type(error).__name__}: {error}). '
      "Write the step of the last checkpoint there, or remove it."
    ) from error
