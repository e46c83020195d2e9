"""Converts an archive's stored values to how the encoder's sensor stores them, or refuses them.

Conversions are float64 to float32, one integer type to another that holds the values, a file's
nodata value to the sensor's, and an offset such as Sentinel-2's +1000. Integers are never converted
to floats or floats to integers, because those are different units.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from xjepa_jax.data.declared_nodata import hidden_by_declared
from xjepa_jax.errors import ImageError, SensorError
from xjepa_jax.sensors import Sensor, possible_range

_CLIPPED = 0.2  # an offset is wrong if it takes more of the values far below the type's range


@dataclasses.dataclass(frozen=True)
class Fit:
  """How the values of one sensor's files become the encoder's.

  Attributes:
    key: key of the sensor.
    sensor: the sensor as the encoder has it.
    offset: offset of the files' stored values, as in `Scaling.offset`; the sensor's own if they
      agree.
  """

  key: str
  sensor: Sensor
  offset: float

  @property
  def shift(self) -> float:
    """Number to add to the files' stored values to get the encoder's."""
    return self.offset - self.sensor.scaling.offset

  def checked_as(self) -> Sensor:
    """The sensor that describes values before the shift, used to check their units."""
    scaling = dataclasses.replace(self.sensor.scaling, offset=self.offset)
    return dataclasses.replace(self.sensor, scaling=scaling)


def of_dataset(key: str, ours: Sensor, theirs: Sensor) -> tuple[Fit, tuple[int, ...]]:
  """How a data set's sensor is converted to the encoder's, and the indices of the bands to take.

  Raises:
    SensorError: a band is missing, or the values are in other units.
  """
  missing = [name for name in ours.band_names if name not in theirs.band_names]
  if missing:
    raise SensorError(
      f"sensor {key!r}: the archive's {theirs.product} has no band {', '.join(missing)}, which the "
      f"encoder takes; its bands are {', '.join(theirs.band_names)}."
    )
  for what, found, expected in (
    ("units", theirs.units, ours.units),
    ("dtype", _family(theirs, ours), ours.dtype),
    ("gain", theirs.scaling.gain, ours.scaling.gain),
  ):
    if found != expected:
      raise SensorError(
        f"sensor {key!r}: the archive's {theirs.product} has {what} {found!r}, the encoder was "
        f"trained with {expected!r} ({ours.product}). Embed the product that it was trained with."
      )
  return Fit(key, ours, theirs.scaling.offset), theirs.index(ours.band_names)


def _family(theirs: Sensor, ours: Sensor) -> str:
  """Our dtype if their values can be converted to it, see `_typed`; otherwise theirs."""
  kinds = [np.dtype(sensor.dtype).kind.replace("u", "i") for sensor in (theirs, ours)]
  return ours.dtype if kinds[0] == kinds[1] else theirs.dtype


def fit_values(
  fit: Fit,
  values: np.ndarray,
  declared: float | None | Sequence[float | None],
  where: str,
  hidden: np.ndarray | None = None,
) -> tuple[np.ndarray, float]:
  """Converts an image's values to what the encoder takes.

  Args:
    fit: conversion of its sensor.
    values: (H, W, C) as the file stores them.
    declared: nodata value that the file declares, or None; or one such value per band.
    where: the file, for error messages.
    hidden: (H, W, 1) or (H, W, C) bool, pixels hidden by a mask of the file, or None.

  Returns:
    (H, W, C) in the sensor's dtype, and the fraction of valid pixels.

  Raises:
    ImageError: the sensor's type cannot hold the values, or they do not carry the offset.
  """
  sensor = fit.sensor
  of_bands = declared if isinstance(declared, Sequence) else (declared,) * values.shape[-1]
  # The declared value refers to stored values before the shift.
  unseen = hidden_by_declared(fit.checked_as(), values, of_bands)
  if hidden is not None:
    unseen = hidden if unseen is None else unseen | hidden
  if unseen is not None:
    unseen = np.broadcast_to(unseen, values.shape)
  stored = _typed(values, unseen, fit, where)
  if hidden is not None and hidden.any() and sensor.marker is None:
    raise ImageError(
      f"{where}: a mask hides {hidden.mean():.0%} of it, and the encoder's {sensor.product} has no "
      "nodata value to say so. Cut it to what was seen."
    )
  if unseen is not None and sensor.marker is not None:
    stored = sensor.hide(stored, unseen)
  fraction = _seen(stored, sensor, unseen if sensor.marker is None else None)
  if fit.shift:
    stored = _shifted(stored, fit.shift, sensor, where)
  return stored, fraction


def _seen(stored: np.ndarray, sensor: Sensor, unseen: np.ndarray | None) -> float:
  """The fraction of valid pixels; most images have no gap, which is quick to find out."""
  known = sensor.nodata is not None and math.isfinite(sensor.nodata)
  marked = known and (stored == stored.dtype.type(sensor.nodata)).any()
  if unseen is None and not marked and (stored.dtype.kind != "f" or np.isfinite(stored).all()):
    return 1.0
  seen = sensor.valid(stored)
  if unseen is not None:
    seen &= ~unseen.all(axis=-1)
  return float(seen.mean(dtype=np.float64))


def _typed(values: np.ndarray, unseen: np.ndarray | None, fit: Fit, where: str) -> np.ndarray:
  key, sensor = fit.key, fit.sensor
  found, wanted = values.dtype, np.dtype(sensor.dtype)
  if found == wanted:
    return values
  if found.kind == "f" and wanted.kind == "f":
    with np.errstate(over="ignore"):  # only markers exceed float32; as infinity they stay invalid
      return values.astype(wanted)
  if found.kind in "iu" and wanted.kind in "iu":
    if found.itemsize == 1 < wanted.itemsize and possible_range(sensor) is not None:
      raise ImageError(
        f"{where}: holds {found}, levels of a picture, but the encoder's {sensor.product} is "
        f"stored as {wanted}, in {sensor.units}. Embed the product that it was trained with."
      )
    kept = values if unseen is None else values[~unseen]
    limits = np.iinfo(wanted)
    if not kept.size or (kept.min() >= limits.min and kept.max() <= limits.max):
      return values.astype(wanted)
    outside = np.unique(kept[(kept < limits.min) | (kept > limits.max)])
    told = (
      f"If {outside[0]} is fill, the file has to declare it as nodata; embed takes it as --nodata "
      f"{key}={outside[0]}, too."
      if len(outside) == 1
      else "Convert the files to the product that it was trained with."
    )
    raise ImageError(
      f"{where}: holds {found} values from {kept.min()} to {kept.max()}, which {wanted}, the type "
      f"of the encoder's {sensor.product}, cannot hold. {told}"
    )
  raise ImageError(
    f"{where}: holds {found}, but the encoder's {sensor.product} is stored as {wanted}, in "
    f"{sensor.units}. Convert the files to the product that it was trained with."
  )


def _shifted(stored: np.ndarray, shift: float, sensor: Sensor, where: str) -> np.ndarray:
  """Values plus an offset; nodata stays nodata, and no other value becomes nodata.

  Raises:
    ImageError: a large part of the results lies below the range of the type, so the stored values
      do not carry the offset. Clipped, they would pass every later check.
  """
  moved = stored.astype(np.float64) + shift
  if stored.dtype.kind == "f":
    moved = moved.astype(stored.dtype)
    if sensor.nodata is None or not math.isfinite(sensor.nodata):
      return moved
    marker = stored.dtype.type(sensor.nodata)
    # The nearest value that is not the marker stands in for results that happen to equal it.
    beside = np.nextafter(marker, stored.dtype.type(0 if marker else 1))
  else:
    limits = np.iinfo(stored.dtype)
    seen = sensor.known(stored)
    bound = limits.min - abs(shift) / 4  # noise over dark water stays above this
    below = float(np.mean(moved[seen] < bound)) if seen.any() else 0.0
    if below > _CLIPPED:
      raise ImageError(
        f"{where}: an offset of {shift:g} takes {below:.0%} of its values below {bound:g}, so "
        "they do not carry it. Embed this image apart, without --offset."
      )
    moved = np.clip(np.rint(moved), limits.min, limits.max).astype(stored.dtype)
    if sensor.nodata is None:
      return moved
    marker = stored.dtype.type(sensor.nodata)
    beside = marker + stored.dtype.type(1) if marker < limits.max else marker - stored.dtype.type(1)
  moved[moved == marker] = beside
  return np.where(stored == marker, stored, moved)
