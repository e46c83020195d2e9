"""A working directory belongs to one config: a run goes on only with what it began with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from xjepa_jax.data import storage
from xjepa_jax.errors import CheckpointError, DataError

CONFIG = "config.json"
# Keys that may change from one start to the next, for they change neither what a state means nor
# what is computed from it: a key, or a group with all its keys. `training.steps` is not among them:
# the schedules are made of it.
FREE_KEYS = (
  "checkpoint",
  "evaluation",
  "telemetry",
  "mesh",
  "processes",
  "data.bad_records",
  "data.prefetch",
  "data.test",
  "data.threads",
  "data.validation",
  "data.verify",
  "model.attention",
  "model.remat",
  "model.unroll",
  "training.bad_steps",
)


def claim_workdir(workdir: str, config: Mapping[str, Any]) -> None:
  """Writes a run's config into its directory, or compares it with the one that is there.

  Args:
    workdir: made if it is not there; a local directory or an address.
    config: nested mappings of JSON's types.

  Raises:
    CheckpointError: the directory belongs to a run of another config, or cannot be written or read.
  """
  path = f"{workdir.rstrip('/')}/{CONFIG}"
  try:
    if not storage.is_remote(workdir):
      os.makedirs(workdir, exist_ok=True)
    content = storage.read_file(path) if storage.exists(path) else None
    if content is None:
      storage.write_file(path, json.dumps(config, indent=2).encode())
      return
  except (OSError, DataError) as error:
    raise CheckpointError(
      f"{workdir}: cannot be used as a working directory ({error}). Name one that can be made and "
      "written."
    ) from error
  try:
    stored = json.loads(content)
  except ValueError as error:
    raise CheckpointError(
      f"{path}: is not JSON ({error}), so it cannot be told whose checkpoints these are. Restore "
      "the file, or choose another working directory."
    ) from error
  differing = differences(stored, config)
  if differing:
    raise CheckpointError(
      f"{workdir}: belongs to a run of another config. Then and now: {'; '.join(differing)}. Go on "
      "with the values of then, or choose another working directory."
    )


def differences(
  stored: Mapping[str, Any], config: Mapping[str, Any], free: Sequence[str] = FREE_KEYS
) -> list[str]:
  """ "key: then, now" of every dotted key that differs and is not free to."""
  then, now = _dotted(json.loads(json.dumps(stored))), _dotted(json.loads(json.dumps(config)))
  return [
    f"{key}: {_shown(then, key)}, {_shown(now, key)}"
    for key in sorted({**then, **now})
    if not any(key == each or key.startswith(f"{each}.") for each in free)
    and (key not in then or key not in now or then[key] != now[key])
  ]


def _dotted(content: Mapping[str, Any], where: str = "") -> dict[str, Any]:
  flat: dict[str, Any] = {}
  for key, value in content.items():
    if isinstance(value, Mapping) and value:
      flat |= _dotted(value, f"{where}{key}.")
    else:
      flat[f"{where}{key}"] = value
  return flat


def _shown(flat: Mapping[str, Any], key: str) -> str:
  return json.dumps(flat[key]) if key in flat else "absent"
