"""A working directory belongs to one config and its data: a run resumes with what it began with.

The data are identified by digests, in `data.json`, and not by their path: other pairs at the same
path are other data, and the same pairs may move.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from xjepa_jax.config import dotted, resolve, to_dict
from xjepa_jax.data import storage
from xjepa_jax.errors import CheckpointError, ConfigError, DataError
from xjepa_jax.training.manifest import SMALL, damage

CONFIG, DATA = "config.json", "data.json"
# Keys that may change from one start to the next, because they change neither the meaning of a
# state nor what is computed from it. Each is a key, or a group with all its keys. `training.steps`
# is not among them, because the schedules depend on it.
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

# Where the data are and how they get there. These keys are free once digests identify the data.
DATA_KEYS = ("data.directories", "data.simulate")
STEPS = "training.steps"


def claim_workdir(
  workdir: str,
  config: Mapping[str, Any],
  data: Sequence[Mapping[str, Any]] | None = None,
  extend: bool = False,
) -> None:
  """Write a run's config and data to its directory, or compare them with what is there.

  Args:
    workdir: a local directory, created if missing, or an address in object storage.
    config: nested mappings of JSON's types.
    data: per data set "directory", "sensors" and "splits", see `splits.data_digests`; None compares
      no data. A run that began before there were digests, or digests of a split, gets the present
      ones.
    extend: the config may have more steps than the directory's, which is then updated.

  Raises:
    CheckpointError: the directory belongs to a run of another config or of other data, or cannot be
      written or read.
  """
  workdir = workdir.rstrip("/")
  try:
    if not storage.is_remote(workdir):
      os.makedirs(workdir, exist_ok=True)
    held = _read(f"{workdir}/{CONFIG}")
    stored = _saved_config(workdir) if held is None else held
    known = _read(f"{workdir}/{DATA}")
    if extend:
      _check_longer(workdir, stored, config)
    if stored is not None:
      moved = DATA_KEYS if data is not None and known is not None else ()
      _check_config(workdir, stored, config, (*FREE_KEYS, *moved, *((STEPS,) if extend else ())))
    if data is not None and known is not None:
      _check_data(workdir, known, data)
    if stored is None:
      _write(f"{workdir}/{CONFIG}", config)
    elif held is None or extend:
      _write(f"{workdir}/{CONFIG}", _with_steps(stored, config) if extend else stored)
    if data is not None and known != (told := _with_splits(known, data)):
      _write(f"{workdir}/{DATA}", told)
  except (OSError, DataError) as error:
    raise CheckpointError(
      f"{workdir}: cannot be used as a working directory ({error}). Name one that can be made and "
      "written."
    ) from error


def _check_config(
  workdir: str, stored: Mapping[str, Any], config: Mapping[str, Any], free: Sequence[str]
) -> None:
  differing = differences(stored, config, free)
  if not differing:
    return
  names = {each.partition(":")[0] for each in differing}
  ways = ["Go on with the values of then", "or choose another working directory"]
  if names == {STEPS} and _steps(config) > _steps(stored):
    ways = ["To train on for more steps, add --extend", *ways]
  if names <= set(DATA_KEYS):
    ways = ["Name the data set as then once, and it may move from then on", *ways[1:]]
  raise CheckpointError(
    f"{workdir}: belongs to a run of another config. Then and now: {'; '.join(differing)}. "
    f"{', '.join(ways)}."
  )


def _check_data(workdir: str, known: Mapping[str, Any], data: Sequence[Mapping[str, Any]]) -> None:
  try:
    then = [(each["directory"], each["sensors"], dict(each["splits"])) for each in known["data"]]
  except (KeyError, TypeError, ValueError) as error:
    raise CheckpointError(
      f"{workdir}/{DATA}: is not what was written ({type(error).__name__}: {error}). Restore it, "
      "or remove it if the data are sure to be those that the run began with."
    ) from error
  if differing := _data_differences(then, data):
    raise CheckpointError(
      f"{workdir}: belongs to a run of other data: {differing}. Its weights and its scaling "
      "belong to those. Name the data of then, which may lie anywhere, or choose another working "
      "directory."
    )


def _with_splits(
  known: Mapping[str, Any] | None, data: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any]:
  """Return the recorded data of a run, with digests added for splits that have none yet."""
  if known is None:
    return {"data": data}
  pairs = zip(known["data"], data, strict=True)
  return {
    **known,
    "data": [{**then, "splits": {**now["splits"], **then["splits"]}} for then, now in pairs],
  }


def _data_differences(
  then: Sequence[tuple[str, str, dict[str, str]]], data: Sequence[Mapping[str, Any]]
) -> str:
  """Describe the differences, "" if there are none; only splits that both name are compared."""
  if len(then) != len(data):
    return f"{len(then)} data sets then and {len(data)} now"
  for (directory, sensors, splits), now in zip(then, data, strict=True):
    parts = ["its sensors or their scaling"] if sensors != now["sensors"] else []
    parts += [
      f"the pairs of its split {split!r}"
      for split, digest in now["splits"].items()
      if splits.get(split, digest) != digest
    ]
    if parts:
      return (
        f"{now['directory']} differs in {' and in '.join(parts)} from what lay in {directory} when "
        "the run began"
      )
  return ""


def _check_longer(
  workdir: str, stored: Mapping[str, Any] | None, config: Mapping[str, Any]
) -> None:
  if stored is None:
    raise CheckpointError(
      f"{workdir}: --extend goes on with a run that is there, and there is none."
    )
  if _steps(config) < _steps(stored):
    raise CheckpointError(
      f"{workdir}: --extend is for more steps; {STEPS} was {_steps(stored):,} and is "
      f"{_steps(config):,}."
    )


def _steps(config: Mapping[str, Any]) -> int:
  return int(config.get("training", {}).get("steps", 0))


def _with_steps(stored: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
  return {**stored, "training": {**stored.get("training", {}), "steps": _steps(config)}}


def _saved_config(workdir: str) -> dict[str, Any] | None:
  """Return the config of the last sound checkpoint, for a directory that has lost its own."""
  folder = f"{workdir}/checkpoints"
  try:
    steps = [int(name) for name in storage.listing(folder) if name.isdecimal()]
  except FileNotFoundError:
    return None
  for step in sorted(steps, reverse=True):
    if not damage(epath.Path(f"{folder}/{step}"), SMALL):
      about = _read(f"{folder}/{step}/about/metadata") or {}
      return about.get("config")
  return None


def _read(path: str) -> dict[str, Any] | None:
  """Return the content of a JSON file, or None if it does not exist."""
  if not storage.exists(path):
    return None
  try:
    found = json.loads(storage.read_file(path))
  except ValueError as error:
    raise CheckpointError(
      f"{path}: is not JSON ({error}), so it cannot be told whose checkpoints these are. Restore "
      "the file, or choose another working directory."
    ) from error
  if not isinstance(found, dict):
    raise CheckpointError(f"{path}: holds a {type(found).__name__}, expected a mapping.")
  return found


def _write(path: str, content: Mapping[str, Any]) -> None:
  storage.write_file(path, json.dumps(content, indent=2).encode())


def differences(
  stored: Mapping[str, Any], config: Mapping[str, Any], free: Sequence[str] = FREE_KEYS
) -> list[str]:
  """Return "key: then, now" for every dotted key that differs and is not free to change.

  A key that is newer than the run counts as having had its default: the default of a new key is
  what the package did without it.
  """
  # A round trip through JSON turns tuples into lists, as in the stored config.
  then, now = dotted(json.loads(json.dumps(stored))), dotted(json.loads(json.dumps(config)))
  then = {key: value for key, value in _defaults(stored).items() if key in now} | then
  return [
    f"{key}: {_shown(then, key)}, {_shown(now, key)}"
    for key in sorted({**then, **now})
    if not any(key == each or key.startswith(f"{each}.") for each in free)
    and (key not in then or key not in now or then[key] != now[key])
  ]


def _defaults(stored: Mapping[str, Any]) -> dict[str, Any]:
  """Return a stored config with all keys' defaults; {} if it has keys that no longer exist."""
  try:
    return dotted(json.loads(json.dumps(to_dict(resolve(stored)))))
  except ConfigError:
    return {}


def _shown(flat: Mapping[str, Any], key: str) -> str:
  return json.dumps(flat[key]) if key in flat else "absent"
