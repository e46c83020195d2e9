"""Conversions of a config: to nested dicts, to dotted keys, and to descriptions of its keys.

Keys, defaults and meanings are all read from `schema`, so `--plan`, error messages and config files
cannot disagree about them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from xjepa_jax.config.fields import allowed
from xjepa_jax.config.schema import Config


def default_config() -> ConfigDict:
  """Every key with its default, for a config file to change; `resolve` rejects unknown keys."""
  return ConfigDict(to_dict(Config()))


def to_dict(config: Any) -> Any:
  """Convert a `Config` to nested dicts, the form that `resolve` takes and JSON stores."""
  if dataclasses.is_dataclass(config) and not isinstance(config, type):
    return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
  if isinstance(config, Mapping):
    return {key: to_dict(value) for key, value in config.items()}
  return config


def dotted(tree: Mapping[str, Any]) -> dict[str, Any]:
  """Flatten {"model": {"width": 192}} to {"model.width": 192}; an empty group stays, as {}."""
  flat: dict[str, Any] = {}
  for key, value in tree.items():
    if isinstance(value, Mapping) and value:
      flat |= {f"{key}.{name}": each for name, each in dotted(value).items()}
    else:
      flat[str(key)] = value
  return flat


def describe_keys() -> list[tuple[str, Any, str]]:
  """(dotted key, default, meaning and allowed values) of every key."""
  return list(_describe(Config(), ""))


def _describe(config: Any, where: str) -> Iterator[tuple[str, Any, str]]:
  for field in dataclasses.fields(config):
    value, name = getattr(config, field.name), f"{where}{field.name}"
    if dataclasses.is_dataclass(value):
      yield from _describe(value, f"{name}.")
    else:
      yield name, to_dict(value), _meaning(field.metadata)


def _meaning(metadata: Mapping[str, Any]) -> str:
  limits = allowed(metadata)
  return f"{metadata['meaning']} ({limits})" if limits else metadata["meaning"]
