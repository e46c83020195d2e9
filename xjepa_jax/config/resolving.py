"""From a config file and the command line to a frozen `Config`, or an error that names the key.

The command, Python callers and the loading of an exported encoder all call `resolve`, so keys,
types, ranges and combinations are checked in one place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from xjepa_jax.config.consistency import check_together
from xjepa_jax.config.describing import describe_keys
from xjepa_jax.config.fields import read
from xjepa_jax.config.schema import Config
from xjepa_jax.paths import user_path


def resolve(config: Mapping[str, Any]) -> Config:
  """Check a config and freeze it.

  Args:
    config: nested mappings, such as a `ConfigDict` or the content of a JSON file.

  Raises:
    ConfigError: a key is unknown, or a value has the wrong type or is out of range.
  """
  if isinstance(config, ConfigDict):
    config = config.to_dict()
  if isinstance(config.get("objective"), Mapping):
    config = {**config, "objective": _given(config["objective"])}
  by_last_part = {key.rpartition(".")[2]: key for key, _, _ in describe_keys()}
  resolved: Config = read(config, Config, "", by_last_part)
  check_together(resolved)
  # The shell does not expand a `~` inside --config.data.directories="('~/pairs',)".
  directories = tuple(user_path(each) for each in resolved.data.directories)
  return dataclasses.replace(
    resolved, data=dataclasses.replace(resolved.data, directories=directories)
  )


def _given(objective: Mapping[str, Any]) -> dict[str, Any]:
  """Drop options that are None, the placeholders that the command line could have filled."""
  return {
    label: {name: value for name, value in entry.items() if value is not None}
    if isinstance(entry, Mapping)
    else entry
    for label, entry in objective.items()
  }
