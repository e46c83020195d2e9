"""Settings as frozen dataclasses: fields with their allowed values, read from a checked mapping.

The config's groups and the objective's terms are both described in this way, so that a wrong value
is rejected with the same wording wherever it occurs.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from xjepa_jax.errors import ConfigError


def setting(
  default: Any,
  meaning: str,
  *,
  least: float | None = None,
  above: float | None = None,
  most: float | None = None,
  one_of: tuple[Any, ...] = (),
) -> Any:
  """Declare a field of a settings dataclass.

  Args:
    default: its default value.
    meaning: one line of description, for `--plan` and the docs.
    least, above, most: bounds of a number, or of each number of a tuple; `above` is exclusive.
    one_of: the only values allowed.
  """
  metadata = {"meaning": meaning, "least": least, "above": above, "most": most, "one_of": one_of}
  if isinstance(default, dict):
    return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
  return dataclasses.field(default=default, metadata=metadata)


def allowed(metadata: Mapping[str, Any]) -> str:
  """Describe in words the values that a field's metadata allows; "" if only the type matters."""
  if metadata["one_of"]:
    return ", ".join(map(str, metadata["one_of"]))
  return ", ".join(
    f"{word} {metadata[bound]:g}"
    for bound, word in (("least", "at least"), ("above", "more than"), ("most", "at most"))
    if metadata[bound] is not None
  )


def read(content: Any, kind: type, where: str, elsewhere: Mapping[str, str] | None = None) -> Any:
  """Read a settings dataclass from a mapping.

  Args:
    content: values by field name; omitted fields take their defaults.
    kind: the dataclass, whose fields are made by `setting` or are such dataclasses themselves.
    where: prefix of field names in error messages, such as "training.".
    elsewhere: last part of a key -> whole key, for suggestions when a key is unknown here.

  Raises:
    ConfigError: a key is unknown, or a value has the wrong type or is not allowed.
  """
  if not isinstance(content, Mapping):
    raise ConfigError(f"config key {where.rstrip('.')!r} is {content!r}; expected a group of keys.")
  hints = typing.get_type_hints(kind)
  fields = {field.name: field for field in dataclasses.fields(kind)}
  for name in content:
    if name not in fields:
      here = {known: where + known for known in fields}
      raise ConfigError(
        f"config key {where + str(name)!r} is unknown; known here are {', '.join(fields)}."
        + _suggestion(str(name), here, elsewhere or {})
      )
  values = {}
  for name, value in content.items():
    dotted, hint = f"{where}{name}", hints[name]
    if dataclasses.is_dataclass(hint):
      values[name] = read(value, typing.cast(type, hint), f"{dotted}.", elsewhere)
    elif typing.get_origin(hint) is Mapping:
      values[name] = _read_mapping(value, typing.get_args(hint)[1], dotted, elsewhere)
    else:
      values[name] = _value(value, hint, fields[name].metadata, dotted)
  return kind(**values)


def check(settings: Any) -> None:
  """Check a settings dataclass that was constructed in Python and has no nested groups.

  Raises:
    ConfigError: a value has the wrong type or is not allowed.
  """
  hints = typing.get_type_hints(type(settings))
  for field in dataclasses.fields(settings):
    _value(getattr(settings, field.name), hints[field.name], field.metadata, field.name)


def _suggestion(name: str, *tables: Mapping[str, str]) -> str:
  """Suggest the nearest key of the first table that has one; "" if none is near."""
  for known in tables:
    for nearest in difflib.get_close_matches(name, known, 1):
      return f" Did you mean {known[nearest]!r}?"
  return ""


def _read_mapping(content: Any, kind: Any, where: str, elsewhere: Mapping[str, str] | None) -> Any:
  if not isinstance(content, Mapping):
    raise ConfigError(f"config key {where!r} is {content!r}; expected a group of keys.")
  if dataclasses.is_dataclass(kind):
    return {
      name: read(value, typing.cast(type, kind), f"{where}.{name}.", elsewhere)
      for name, value in content.items()
    }
  for name, value in content.items():
    if not isinstance(value, Mapping):
      raise ConfigError(f"config key '{where}.{name}' is {value!r}; expected a group of keys.")
  # JSON returns a tuple as a list.
  return {
    name: types.MappingProxyType(
      {option: tuple(each) if isinstance(each, list) else each for option, each in value.items()}
    )
    for name, value in content.items()
  }


def _value(value: Any, hint: Any, limits: Mapping[str, Any], where: str) -> Any:
  if typing.get_origin(hint) is tuple:
    kind = typing.get_args(hint)[0]
    if isinstance(value, str) or not isinstance(value, list | tuple):
      raise ConfigError(f"config key {where!r} is {value!r}; expected a tuple of {kind.__name__}.")
    return tuple(_value(item, kind, limits, where) for item in value)
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    value = float(value)
  # Compared by identity, because isinstance would accept True for an int.
  if type(value) is not hint:
    raise ConfigError(f"config key {where!r} is {value!r}; expected {hint.__name__}.")
  too_far = isinstance(value, int | float) and (
    not math.isfinite(value)
    or (limits["least"] is not None and value < limits["least"])
    or (limits["above"] is not None and value <= limits["above"])
    or (limits["most"] is not None and value > limits["most"])
  )
  if too_far or (limits["one_of"] and value not in limits["one_of"]):
    expected = allowed(limits) or "a finite number"
    raise ConfigError(f"config key {where!r} is {value!r}; allowed: {expected}.")
  return value
