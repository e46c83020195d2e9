"""Descriptions of sensors: bands in order, units, nodata value, and scaling of values.

A sensor is data, not code: presets are in `xjepa_jax.sensor_presets`, a data set stores its own
descriptions in `sensors.json`, and a config may change them (`redescribe`). No other module of the
package knows a sensor by name.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xjepa_jax.errors import SensorError

NORMALISATIONS = ("standard", "percentile", "none")
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
_KEY = re.compile(r"[a-z][a-z0-9_]*")


@dataclasses.dataclass(frozen=True)
class Band:
  """One band of a sensor.

  Attributes:
    name: unique within the sensor, spelled as in the product: "B8A", "VV".
    gsd: ground sampling distance of the product, in metres.
    wavelength: central wavelength in nanometres, for an optical band.
    polarisation: transmitted and received polarisation, for a radar band.
  """

  name: str
  gsd: float
  wavelength: float | None = None
  polarisation: str | None = None


@dataclasses.dataclass(frozen=True)
class Scaling:
  """The conversion of stored values to a sensor's units, and from these to a network's input.

  `calibrated = (stored + offset) * gain` is in the sensor's units. The network's input is then
  `(clip(calibrated) - mean) / std` ("standard"), `clip(calibrated)` mapped from [low, high] to
  [-1, 1] ("percentile"), or `clip(calibrated)` itself ("none").

  Attributes:
    offset: added to stored values; -1000 for Sentinel-2 since processing baseline 04.00.
    gain: factor applied after the offset.
    clip: lowest and highest calibrated value, to which others are clipped, or None.
    normalise: one of "standard", "percentile", "none".
    mean, std: one value per band, in the sensor's units; for "standard".
    low, high: one value per band, in the sensor's units, such as the 2nd and 98th percentiles of
      the training split; for "percentile".
  """

  offset: float = 0.0
  gain: float = 1.0
  clip: tuple[float, float] | None = None
  normalise: str = "standard"
  mean: tuple[float, ...] = ()
  std: tuple[float, ...] = ()
  low: tuple[float, ...] = ()
  high: tuple[float, ...] = ()

  def select(self, indices: Sequence[int]) -> Scaling:
    """The scaling of the bands at `indices`, in that order."""

    def chosen(values: tuple[float, ...]) -> tuple[float, ...]:
      return tuple(values[i] for i in indices) if values else ()

    return dataclasses.replace(
      self,
      mean=chosen(self.mean),
      std=chosen(self.std),
      low=chosen(self.low),
      high=chosen(self.high),
    )


@dataclasses.dataclass(frozen=True)
class Channel:
  """One channel of a picture: `band`, or `band - minus`, displayed from `low` to `high`.

  `low` and `high` are in the sensor's units. In dB, a difference of bands is a ratio.
  """

  band: str
  low: float
  high: float
  minus: str | None = None


@dataclasses.dataclass(frozen=True)
class Sensor:
  """A product of an instrument.

  Attributes:
    product: name for users: "Sentinel-1 GRD, sigma0".
    bands: in the order in which values are stored.
    dtype: NumPy name of the stored type.
    units: units of calibrated values: "dB", "reflectance x 1e4".
    nodata: the stored value that marks missing observations, possibly NaN, or None. Non-finite
      values always count as missing. See `known` for which values a marker in one band hides.
    scaling: how stored values become a network's input.
    display: one channel (grey) or three (red, green, blue) for pictures.
  """

  product: str
  bands: tuple[Band, ...]
  dtype: str
  units: str
  nodata: float | None = None
  scaling: Scaling = Scaling()
  display: tuple[Channel, ...] = ()

  def __post_init__(self) -> None:
    _check(self)

  @property
  def band_names(self) -> tuple[str, ...]:
    return tuple(band.name for band in self.bands)

  def index(self, names: Sequence[str]) -> tuple[int, ...]:
    """The positions of the named bands among this sensor's, in the order of `names`.

    Raises:
      SensorError: the sensor lacks a band, or one is named twice.
    """
    if len(set(names)) != len(names):
      raise SensorError(f"{self.product}: bands {list(names)} name one twice; name each once.")
    for name in names:
      if name not in self.band_names:
        raise SensorError(
          f"{self.product} has no band {name!r}; its bands are {', '.join(self.band_names)}."
        )
    return tuple(self.band_names.index(name) for name in names)

  def select(self, names: Sequence[str]) -> Sensor:
    """This sensor with only the named bands, in the order of `names`.

    Display channels that lost a band are dropped; the display is then its first remaining channel.

    Raises:
      SensorError: no band is named, or the sensor lacks one.
    """
    indices = self.index(names)
    display = tuple(
      channel
      for channel in self.display
      if channel.band in names and (channel.minus is None or channel.minus in names)
    )
    return dataclasses.replace(
      self,
      bands=tuple(self.bands[i] for i in indices),
      scaling=self.scaling.select(indices),
      display=display if len(display) == len(self.display) else display[:1],
    )

  @property
  def nodata_is_possible(self) -> bool:
    """Whether `nodata` could also be a measured value; see `known`."""
    return self.nodata is not None and possible_value(self, self.nodata)

  def unmarked(self, stored: Any) -> Any:
    """(..., C) bool: which values (..., C) are finite and not `nodata`; a NumPy or JAX array."""
    # The array API standard lets one implementation serve NumPy and JAX arrays.
    xp = stored.__array_namespace__()
    if xp.isdtype(stored.dtype, "integral"):
      found = xp.ones(stored.shape, dtype=bool)
    else:
      found = xp.isfinite(stored)
    if self.nodata is None or not math.isfinite(self.nodata):
      return found
    return found & (stored != xp.asarray(self.nodata, dtype=stored.dtype))

  def known(self, stored: Any) -> Any:
    """Which values were observed.

    A nodata value that no measurement can give (-9999 dB, NaN) hides only the value in its own
    band. One that a measurement can give, such as a reflectance of 0, hides a pixel where all bands
    have it, because a single band of a dark pixel may really be 0.

    Args:
      stored: (..., C) values as stored, a NumPy or a JAX array.

    Returns:
      (..., C) bool, of the same kind of array.
    """
    xp = stored.__array_namespace__()
    found = self.unmarked(stored)
    if not self.nodata_is_possible:
      return found
    seen = xp.broadcast_to(xp.any(found, axis=-1, keepdims=True), stored.shape)
    return seen if xp.isdtype(stored.dtype, "integral") else seen & xp.isfinite(stored)

  def valid(self, stored: Any) -> Any:
    """Which pixels were observed in any band: (...) bool of (..., C) values, see `known`."""
    xp = stored.__array_namespace__()
    # A pixel has a `known` band exactly if it has an `unmarked` one, which is cheaper to compute.
    return xp.any(self.unmarked(stored), axis=-1)

  @property
  def marker(self) -> float | None:
    """The stored value for "not observed": `nodata`, NaN for a float type without one, or None."""
    is_float = self.dtype.startswith("float")
    return math.nan if self.nodata is None and is_float else self.nodata

  def hide(self, stored: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Replace hidden values by the nodata marker.

    A marker that could be a measurement means nothing in a single band, see `known`, so a pixel
    with one hidden band is then hidden in all.

    Args:
      stored: (..., C) values as stored.
      hidden: (..., 1) or (..., C) bool, what to hide.

    Raises:
      SensorError: the sensor has no marker.
    """
    if self.marker is None:
      raise SensorError(f"{self.product}: has no nodata value to say what was not seen.")
    if self.nodata_is_possible:
      hidden = np.any(hidden, axis=-1, keepdims=True)
    return np.where(hidden, stored.dtype.type(self.marker), stored)

  def calibrate(self, stored: Any) -> Any:
    """Stored values (..., C) as float32 in the sensor's units; nodata gets no special treatment."""
    xp = stored.__array_namespace__()
    values = stored.astype(xp.float32)
    return (values + np.float32(self.scaling.offset)) * np.float32(self.scaling.gain)

  def scale(self, stored: Any) -> Any:
    """Convert stored values to a network's input; see `Scaling`. Runs on the device inside a step.

    Args:
      stored: (..., C) values as stored, a NumPy or a JAX array.

    Returns:
      (..., C) float32 of the same kind of array. Missing values are 0, which is the mean of a
      "standard" scaling and the middle of a "percentile" one.

    Raises:
      SensorError: the number of bands is not this sensor's, or its scaling lacks statistics.
    """
    if stored.shape[-1] != len(self.bands):
      raise SensorError(
        f"{self.product}: got {stored.shape[-1]} bands, expected {len(self.bands)} "
        f"({', '.join(self.band_names)})."
      )
    xp = stored.__array_namespace__()
    values = self.calibrate(stored)
    scaling = self.scaling
    if scaling.clip is not None:
      values = xp.clip(values, np.float32(scaling.clip[0]), np.float32(scaling.clip[1]))
    if scaling.normalise == "standard":
      values = (values - _per_band(self, "mean")) / _per_band(self, "std")
    elif scaling.normalise == "percentile":
      low, high = _per_band(self, "low"), _per_band(self, "high")
      values = xp.clip((values - low) / (high - low), 0, 1) * 2 - 1
    return xp.where(self.known(stored), values, np.float32(0))


# Calibrated backscatter of land and sea is within about -50 to +30 dB; the margin allows for noise.
_DECIBELS = (-70.0, 50.0)
# Reflectance of sunlit ground and cloud is 0 to 1.5; atmospheric correction may go 0.2 below 0, and
# sun glint above 2.
_REFLECTANCE = (-0.3, 3.2)


def possible_range(sensor: Sensor) -> tuple[float, float] | None:
  """The lowest and highest calibrated value that can be measured, or None for unknown units."""
  if sensor.units == "dB":
    return _DECIBELS
  factor = reflectance_factor(sensor)
  return (_REFLECTANCE[0] * factor, _REFLECTANCE[1] * factor) if factor else None


def reflectance_factor(sensor: Sensor) -> float | None:
  """The factor of reflectances in the sensor's units, or None if it does not store reflectance."""
  match = re.fullmatch(r"reflectance(?: x ?([0-9.e+]+))?", sensor.units)
  return (float(match[1]) if match[1] else 1.0) if match else None


def known_units(text: str) -> str:
  """Normalise the spelling of units: "db", "Reflectance * 10000"; unknown units stay as given."""
  plain = " ".join(text.split())
  if plain.lower() in ("db", "decibel", "decibels"):
    return "dB"
  match = re.fullmatch(
    r"reflectance(?: ?[x×*·] ?([0-9.]+(?:e[+]?[0-9]+)?|10\^[0-9]+))?", plain.lower()
  )
  if not match:
    return plain
  if not match[1]:
    return "reflectance"
  try:
    factor = float(match[1].replace("10^", "1e"))
  except ValueError:
    return plain
  power = round(math.log10(factor)) if factor > 0 else 0
  known = f"1e{power}" if power and math.isclose(factor, 10.0**power) else f"{factor:g}"
  return f"reflectance x {known}" if factor != 1 else "reflectance"


def possible_value(sensor: Sensor, stored: float) -> bool:
  """Whether a stored value can be a measurement.

  If the range of the units is unknown, the values that archives use as markers cannot be: those
  below -900, and the lowest and highest value of a type with more than 8 bits.
  """
  if not math.isfinite(stored):
    return False
  limits = possible_range(sensor)
  if limits is not None:
    calibrated = (stored + sensor.scaling.offset) * sensor.scaling.gain
    return limits[0] <= calibrated <= limits[1]
  if sensor.dtype in ("uint8", "int8"):
    return True
  is_float = sensor.dtype.startswith("float")
  extremes = np.finfo(sensor.dtype) if is_float else np.iinfo(sensor.dtype)
  return stored > -900 and stored < float(extremes.max)


def check_key(key: str) -> str:
  """Return `key` if it is a valid sensor name in data sets and configs: "s1", "landsat_8".

  Raises:
    SensorError: it has anything but lower-case letters, digits and underscores.
  """
  if not _KEY.fullmatch(key):
    raise SensorError(
      f"sensor name {key!r}: expected a lower-case letter, then letters, digits or underscores."
    )
  return key


def sensor_to_json(sensor: Sensor) -> dict[str, Any]:
  """The description of a sensor in JSON types; NaN becomes the string "nan"."""
  return _jsonable(dataclasses.asdict(sensor))


def sensor_from_json(content: Any, where: str) -> Sensor:
  """Read a sensor from the output of `sensor_to_json`.

  Args:
    content: the parsed JSON.
    where: file and key, for error messages.

  Raises:
    SensorError: a key is unknown or missing, or a value has the wrong type.
  """
  fields = _fields(content, Sensor, where)
  try:
    fields["bands"] = tuple(
      Band(**_fields(band, Band, f"{where}.bands[{i}]")) for i, band in enumerate(fields["bands"])
    )
    fields["display"] = tuple(
      Channel(**_fields(channel, Channel, f"{where}.display[{i}]"))
      for i, channel in enumerate(fields.get("display", ()))
    )
    scaling = _fields(fields.get("scaling", {}), Scaling, f"{where}.scaling")
    for key in ("mean", "std", "low", "high", "clip"):
      if scaling.get(key) is not None:
        scaling[key] = tuple(float(value) for value in scaling[key])
    fields["scaling"] = Scaling(**scaling)
    if isinstance(fields.get("nodata"), str):
      fields["nodata"] = float(fields["nodata"])
    if isinstance(fields["units"], str):
      fields["units"] = known_units(fields["units"])
    return Sensor(**fields)
  except SensorError as error:
    raise SensorError(f"{where}: {error}") from error
  except (TypeError, ValueError, KeyError, AttributeError) as error:
    raise SensorError(f"{where}: not a sensor's description ({error}).") from error


def redescribe(sensor: Sensor, changes: Mapping[str, Any], where: str) -> Sensor:
  """Apply a config's changes to a sensor's description.

  Args:
    sensor: as described by the data set.
    changes: as in `sensor_to_json`; omitted keys stay as they are, also within "scaling".
    where: config key, for error messages.

  Raises:
    SensorError: a key is unknown, a value has the wrong type, or the dtype or the number of bands
      would change, which the stored files determine.
  """
  content = sensor_to_json(sensor)
  scaling = changes.get("scaling", {})
  if isinstance(scaling, Mapping):
    changes = {**changes, "scaling": {**content["scaling"], **scaling}}
  content |= changes
  bands = len(content["bands"]) if isinstance(content["bands"], Sequence) else 0
  for name, now, stored in (
    ("dtype", content["dtype"], sensor.dtype),
    ("bands", bands, len(sensor.bands)),
  ):
    if now != stored:
      raise SensorError(
        f"{where}: {name} is {now!r} and the data set stores {stored!r}, which no description can "
        "change. Leave it out, or import the archive again."
      )
  return sensor_from_json(content, where)


def _fields(content: Any, kind: type, where: str) -> dict[str, Any]:
  if not isinstance(content, Mapping):
    raise SensorError(f"{where}: expected a {kind.__name__} as a mapping, found {content!r}.")
  known = {field.name: field for field in dataclasses.fields(kind)}
  for key in content:
    if key not in known:
      raise SensorError(f"{where}: unknown key {key!r}; a {kind.__name__} has {sorted(known)}.")
  for name, field in known.items():
    if field.default is dataclasses.MISSING and name not in content:
      raise SensorError(f"{where}: the key {name!r} of a {kind.__name__} is missing.")
  return dict(content)


def _jsonable(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _jsonable(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_jsonable(item) for item in value]
  if isinstance(value, float) and not math.isfinite(value):
    return str(value)
  return value


def _per_band(sensor: Sensor, key: str) -> np.ndarray:
  values = getattr(sensor.scaling, key)
  if not values:
    raise SensorError(
      f"{sensor.product}: scaling.normalise is {sensor.scaling.normalise!r} but scaling.{key} is "
      "empty; import computes it from the training split, or give one value a band."
    )
  return np.asarray(values, np.float32)


def _check(sensor: Sensor) -> None:
  def refuse(what: str) -> None:
    raise SensorError(f"{sensor.product or 'sensor'}: {what}")

  names = sensor.band_names
  if not names:
    refuse("has no bands; name at least one.")
  if len(set(names)) != len(names):
    refuse(f"bands {', '.join(names)} name one twice.")
  if not all(isinstance(band.gsd, int | float) and band.gsd > 0 for band in sensor.bands):
    refuse(f"gsd must be metres above 0, found {[band.gsd for band in sensor.bands]}.")
  if sensor.dtype not in DTYPES:
    refuse(f"dtype {sensor.dtype!r} is not one of {', '.join(DTYPES)}.")
  _check_nodata(sensor, refuse)
  scaling = sensor.scaling
  if scaling.normalise not in NORMALISATIONS:
    refuse(f"scaling.normalise {scaling.normalise!r} is not one of {', '.join(NORMALISATIONS)}.")
  if not (math.isfinite(scaling.offset) and math.isfinite(scaling.gain) and scaling.gain != 0):
    refuse(f"offset {scaling.offset}, gain {scaling.gain}: must be finite, the gain not 0.")
  if scaling.clip is not None and not (
    len(scaling.clip) == 2 and scaling.clip[0] < scaling.clip[1]
  ):
    refuse(f"scaling.clip {scaling.clip} must be two values, the lower first.")
  for key in ("mean", "std", "low", "high"):
    values = getattr(scaling, key)
    if values and len(values) != len(names):
      refuse(f"scaling.{key} has {len(values)} values for {len(names)} bands.")
    if not all(math.isfinite(value) for value in values):
      refuse(f"scaling.{key} {values} must be finite.")
  if any(value <= 0 for value in scaling.std):
    refuse(f"scaling.std {scaling.std} must be above 0 in every band.")
  if any(low >= high for low, high in zip(scaling.low, scaling.high, strict=False)):
    refuse(f"scaling.low {scaling.low} must be below scaling.high {scaling.high}.")
  if len(sensor.display) not in (0, 1, 3):
    refuse(f"display has {len(sensor.display)} channels; give 1 (grey) or 3 (red, green, blue).")
  for channel in sensor.display:
    sensor.index([channel.band] if channel.minus is None else [channel.band, channel.minus])


def _check_nodata(sensor: Sensor, refuse: Any) -> None:
  if sensor.nodata is None or sensor.dtype.startswith("float"):
    return
  limits = np.iinfo(sensor.dtype)
  if not (float(sensor.nodata).is_integer() and limits.min <= sensor.nodata <= limits.max):
    refuse(f"nodata {sensor.nodata} is no {sensor.dtype}.")
