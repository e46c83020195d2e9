"""The options that name and describe an import's sensors if the archive does not define them."""

from __future__ import annotations

import argparse
import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence

from xjepa_jax.data.band_choice import OTHER
from xjepa_jax.errors import OptionError
from xjepa_jax.paths import user_path
from xjepa_jax.sensor_presets import PRESETS, preset
from xjepa_jax.sensors import Sensor, check_key, sensor_from_json

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def add_sensor_arguments(parser: argparse.ArgumentParser, metavar: str, where: str) -> None:
  """Add --sensor, --bands, --nodata, --sensors, --ungeoreferenced, --any-resolution, --name.

  Args:
    parser: parser of one importer.
    metavar: form of a --sensor argument.
    where: its meaning, up to the list of presets: "column KEY holds a sensor".
  """
  add = functools.partial(parser.add_argument, action="append", default=[])
  add("--sensor", metavar=metavar, help=f"{where}: {', '.join(PRESETS)}")
  add(
    "--bands",
    metavar="KEY=B04,B03",
    help=f"which of its bands the files hold, in their order, {OTHER} for one that is not its",
  )
  add("--nodata", metavar="KEY=VALUE", help="the stored value for not seen, nan, or none")
  parser.add_argument(
    "--sensors", type=user_path, metavar="FILE.json", help="KEY -> description, for others"
  )
  parser.add_argument(
    "--ungeoreferenced",
    action="store_true",
    help="pair images that say nothing of where they lie: pictures, arrays",
  )
  parser.add_argument(
    "--any-resolution",
    action="store_true",
    help="take images whose pixels are of another size than the sensor's",
  )
  parser.add_argument("--name", help="of the data set; from the name of --src if not given")


def key_values(
  given: Sequence[str], option: str, known: Iterable[str] | None = None
) -> dict[str, str]:
  """The KEY=VALUE arguments of a repeated option as a dictionary of text.

  Raises:
    OptionError: one is not KEY=VALUE, or repeats a key, or its key is not `known`.
  """
  values: dict[str, str] = {}
  for text in given:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
      raise OptionError(f"{option} {text}: expected KEY=VALUE.")
    if key in values:
      raise OptionError(f"{option} names {key!r} twice.")
    if known is not None and key not in known:
      raise OptionError(f"{option} {text}: there is no sensor {key!r}, only {', '.join(known)}.")
    values[key] = value
  return values


def named_sensors(args: argparse.Namespace, presets: Mapping[str, str]) -> dict[str, Sensor]:
  """The sensors from --sensor, given as key -> preset, and from --sensors, restricted by --bands.

  Raises:
    OptionError: --sensors or --bands is malformed, or a sensor is described twice.
    SensorError: a key, preset, description or band is wrong.
  """
  sensors = {key: preset(name) for key, name in presets.items()}
  described = _described(args.sensors) if args.sensors else {}
  twice = sorted(set(sensors) & set(described))
  if twice:
    raise OptionError(f"--sensor and --sensors both describe {', '.join(twice)}.")
  sensors |= described
  for key in sensors:
    check_key(key)
  for key, names in told_bands(args, sensors).items():
    sensors[key] = sensors[key].select([name for name in names if name != OTHER])
  return sensors


def told_bands(args: argparse.Namespace, sensors: Iterable[str]) -> dict[str, list[str]]:
  """Sensor key -> names of its files' bands in their order, from --bands.

  Raises:
    OptionError: --bands is malformed, or its key is not a sensor.
  """
  given = key_values(args.bands, "--bands", sensors)
  return {key: [name.strip() for name in names.split(",")] for key, names in given.items()}


def nodata_values(
  args: argparse.Namespace, sensors: Mapping[str, Sensor]
) -> dict[str, float | None]:
  """Sensor key -> nodata value or None, for the sensors named in --nodata.

  Raises:
    OptionError: the key is not a sensor, or the value is not a number.
  """
  given: dict[str, float | None] = {}
  for key, text in key_values(args.nodata, "--nodata", sensors).items():
    try:
      given[key] = None if text.lower() == "none" else float(text)
    except ValueError:
      raise OptionError(f"--nodata {key}={text}: expected a number, nan or none.") from None
  return given


def dataset_name(given: str | None, source: str) -> str:
  """The given name, or one derived from the name of the source.

  Raises:
    OptionError: the given name is not valid for a data set.
  """
  if given is None:
    # Prefixed if it would not start with a letter.
    name = re.sub(r"[^a-z0-9]+", "_", source.lower()).strip("_")
    return name if _NAME.fullmatch(name) else f"pairs_{name}".strip("_")
  if not _NAME.fullmatch(given):
    raise OptionError(
      f"--name {given!r}: expected a lower-case letter, then letters, digits or underscores."
    )
  return given


def _described(path: str) -> dict[str, Sensor]:
  try:
    with open(path, "rb") as file:
      content = json.load(file)  # from bytes, since json.load then handles a byte-order mark
  except (OSError, ValueError, RecursionError) as error:
    raise OptionError(f"{path}: cannot be read as JSON ({error}).") from error
  if not isinstance(content, dict) or not content:
    raise OptionError(f"{path}: expected a mapping of sensor keys to descriptions.")
  return {key: sensor_from_json(value, f"{path}: {key}") for key, value in content.items()}
