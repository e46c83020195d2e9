"""Parsers of config entries in a text form: routes "a->b", and bands "sensor=B04,B03".

Routes are parsed where the data set's sensors are known, so that an unknown one is refused.
"""

from __future__ import annotations

from xjepa_jax.errors import ConfigError

Route = tuple[str, str]


def parse_routes(routes: tuple[str, ...], sensors: tuple[str, ...]) -> tuple[Route, ...]:
  """Parse routes into (context sensor, target sensor); () gives every ordered pair, and a->a.

  Raises:
    ConfigError: a route is not "a->b" with known sensors, or is listed twice.
  """
  if not routes:
    return tuple((a, b) for a in sensors for b in sensors)
  parsed: list[Route] = []
  for text in routes:
    parts = tuple(part.strip() for part in text.split("->"))
    if len(parts) != 2 or not set(parts) <= set(sensors):
      raise ConfigError(
        f"config key 'routes' has {text!r}; expected \"a->b\" of the sensors {', '.join(sensors)}."
      )
    if parts in parsed:
      raise ConfigError(f"config key 'routes' has {text!r} twice; name each route once.")
    parsed.append((parts[0], parts[1]))
  return tuple(parsed)


def parse_bands(bands: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
  """Parse "sensor=B04,B03" entries into sensor -> names of the bands to use.

  Raises:
    ConfigError: an entry has another form, or repeats a sensor.
  """
  chosen: dict[str, tuple[str, ...]] = {}
  for text in bands:
    sensor, _, listed = (part.strip() for part in text.partition("="))
    names = tuple(name.strip() for name in listed.split(","))
    if not sensor or not all(names) or sensor in chosen:
      raise ConfigError(
        f"config key 'data.bands' has {text!r}; expected \"sensor=BAND,BAND\", each sensor once."
      )
    chosen[sensor] = names
  return chosen
