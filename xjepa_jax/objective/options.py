"""Checks of a term's options.

A message begins with the option's name, and `build` puts the term's label before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from xjepa_jax.errors import ConfigError


def number(name: str, value: Any, *, least: float = -math.inf, above: float = -math.inf) -> float:
  """Returns `value` if it is a finite number, at least `least` and above `above`.

  Raises:
    ConfigError: it is not.
  """
  if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
    raise ConfigError(f"{name} is {value!r}; expected a finite number.")
  if value < least:
    raise ConfigError(f"{name} is {value!r}; expected at least {least:g}.")
  if value <= above:
    raise ConfigError(f"{name} is {value!r}; expected more than {above:g}.")
  return float(value)


def whole(name: str, value: Any, *, least: int = 0) -> int:
  """Returns `value` if it is an integer of at least `least`.

  Raises:
    ConfigError: it is not.
  """
  if isinstance(value, bool) or not isinstance(value, int) or value < least:
    raise ConfigError(f"{name} is {value!r}; expected a whole number of at least {least}.")
  return value


def flag(name: str, value: Any) -> bool:
  """Returns `value` if it is True or False.

  Raises:
    ConfigError: it is not.
  """
  if not isinstance(value, bool):
    raise ConfigError(f"{name} is {value!r}; expected True or False.")
  return value


def word(name: str, value: Any, *, one_of: Sequence[str] = ()) -> str:
  """Returns `value` if it is a string, and one of `one_of` if any are given.

  Raises:
    ConfigError: it is not.
  """
  if not isinstance(value, str) or not value:
    raise ConfigError(f"{name} is {value!r}; expected a name.")
  if one_of and value not in one_of:
    raise ConfigError(f"{name} is {value!r}; expected one of {', '.join(one_of)}.")
  return value


def route_names(name: str, value: Any) -> tuple[str, ...]:
  """Returns `value` as a tuple of routes, each "a->b".

  Raises:
    ConfigError: it is anything else, a single string included.
  """
  if isinstance(value, str) or not isinstance(value, Sequence):
    raise ConfigError(f"{name} is {value!r}; expected a list such as ['a->b'], or () for all.")
  for route in value:
    if not isinstance(route, str) or len([end for end in route.split("->") if end]) != 2:
      raise ConfigError(f"{name} holds {route!r}; expected 'context sensor->target sensor'.")
  return tuple(value)
