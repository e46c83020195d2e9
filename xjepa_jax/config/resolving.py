"""From what a file and a command line say to a frozen `Config`, or an error that names the key."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from xjepa_jax.config.consistency import check_together
from xjepa_jax.config.describing import allowed, describe_keys
from xjepa_jax.config.schema import Config
from xjepa_jax.errors import ConfigError
from xjepa_jax.paths import user_path


def resolve(config: Mapping[str, Any]) -> Config:
  """The checked, frozen config.

  Args:
    config: nested mappings, such as a `ConfigDict` or what JSON held.

  Raises:
    ConfigError: a key is unknown, or a value has the wrong type or is out of range.
  """
  if isinstance(config, ConfigDict):
    config = config.to_dict()
  resolved: Config = _read(config, Config, "")
  check_together(resolved)
  # No shell replaces a `~` within --config.data.directories="('~/pairs',)".
  directories = tuple(user_path(each) for each in resolved.data.directories)
  return dataclasses.replace(
    resolved, data=dataclasses.replace(resolved.data, directories=directories)
  )


def _read(content: Any, kind: type, where: str) -> Any:
  """A dataclass of the schema from a mapping."""
  if not isinstance(content, Mapping):
    raise ConfigError(f"config key {where.rstrip('.')!r} is {content!r}; expected a group of keys.")
  hints = typing.get_type_hints(kind)
  fields = {field.name: field for field in dataclasses.fields(kind)}
  for name in content:
    if name not in fields:
      raise ConfigError(
        f"config key {where + str(name)!r} is unknown; known here are {', '.join(fields)}."
        + _suggestion(str(name), where, fields)
      )
  values = {}
  for name, value in content.items():
    key, hint = f"{where}{name}", hints[name]
    if dataclasses.is_dataclass(hint):
      values[name] = _read(value, typing.cast(type, hint), f"{key}.")
    elif typing.get_origin(hint) is Mapping:
      values[name] = _read_mapping(value, typing.get_args(hint)[1], key)
    else:
      values[name] = _value(value, hint, fields[name].metadata, key)
  return kind(**values)


def _suggestion(name: str, where: str, fields: Mapping[str, Any]) -> str:
  """A question about the nearest key, in the same group or else in another; "" if none is near."""
  here = {key: where + key for key in fields}
  elsewhere = {key.rpartition(".")[2]: key for key, _, _ in describe_keys()}
  for known in (here, elsewhere):
    for nearest in difflib.get_close_matches(name, known, 1):
      return f" Did you mean {known[nearest]!r}?"
  return ""


def _read_mapping(content: Any, kind: Any, key: str) -> Any:
  if not isinstance(content, Mapping):
    raise ConfigError(f"config key {key!r} is {content!r}; expected a group of keys.")
  if dataclasses.is_dataclass(kind):
    return {
      name: _read(value, typing.cast(type, kind), f"{key}.{name}.")
      for name, value in content.items()
    }
  for name, value in content.items():
    if not isinstance(value, Mapping):
      raise ConfigError(f"config key '{key}.{name}' is {value!r}; expected a group of keys.")
  # A tuple comes back from JSON as a list, and stands for the same.
  return {
    name: types.MappingProxyType(
      {option: tuple(each) if isinstance(each, list) else each for option, each in value.items()}
    )
    for name, value in content.items()
  }


def _value(value: Any, hint: Any, limits: Mapping[str, Any], key: str) -> Any:
  origin = typing.get_origin(hint)
  if origin is tuple:
    kind = typing.get_args(hint)[0]
    if isinstance(value, str) or not isinstance(value, list | tuple):
      raise ConfigError(f"config key {key!r} is {value!r}; expected a tuple of {kind.__name__}.")
    return tuple(_value(item, kind, limits, key) for item in value)
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    value = float(value)
  if type(value) is not hint:
    raise ConfigError(f"config key {key!r} is {value!r}; expected {hint.__name__}.")
  too_far = isinstance(value, int | float) and (
    not math.isfinite(value)
    or (limits["least"] is not None and value < limits["least"])
    or (limits["most"] is not None and value > limits["most"])
  )
  if too_far or (limits["one_of"] and value not in limits["one_of"]):
    expected = allowed(limits) or "a finite number"
    raise ConfigError(f"config key {key!r} is {value!r}; allowed: {expected}.")
  return value
