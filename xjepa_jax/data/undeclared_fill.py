"""Fill that nothing declares: one value that a large part of an image holds and nothing is near to.

What was clipped is one value as well, but it lies at an end at which the other values pile up; fill
stands apart from them, or in their midst, far more frequent than any other.
"""

from __future__ import annotations

import numpy as np

from xjepa_jax.sensors import Sensor, possible_range, possible_value, reflectance_factor

MARKERS = (-999.0, -9999.0, -99999.0, -32768.0)  # what archives mark fill with
_FEWEST = 16  # values of a band, of fewer nothing is clear
_SHARE = 0.1  # of a band's values; so many that are alike, and no other near, were not measured
_STRAY = 0.01  # of a band's values that cannot be measured; fewer may be noise, glint, saturation
_GLANCE = 1024  # values of a band among which frequent ones are looked for first, for speed
_LEVELS = 32  # different values; a coarse band's are repeated, and water has few in the infrared
_DARK = 0.02  # reflectance of water in the infrared, and less
_NOISE = 0.002  # of the other values; so many may lie anywhere
_NEIGHBOURS, _FURTHER, _GAP = 20, 5, 0.4  # levels near fill, whose distances tell a gap from none


def undeclared_fill(
  sensor: Sensor, stored: np.ndarray, known: np.ndarray, nodata_option: str = ""
) -> list[str]:
  """What in an image is fill though its sensor has another nodata value, or none.

  Args:
    sensor: the description.
    stored: (H, W, C) values as stored.
    known: (H, W, C) bool, which of them count as seen.
    nodata_option: how a value can be declared as fill, up to that value: "--nodata s1=". Empty
      where it cannot.

  Returns:
    A sentence that names the value, its share, its bands and what to do; none if there is no fill.
  """
  of_value: dict[float, list[int]] = {}
  for band in range(stored.shape[-1]):
    values = stored[..., band][known[..., band]]
    marker = _marker(sensor, values) if values.size >= _FEWEST else None
    if marker is not None:
      of_value.setdefault(marker, []).append(band)
  whole = stored.shape[-1]
  for marker, bands in of_value.items():  # in a band of few values it does not stand apart
    counts = (known & (stored == marker)).sum(axis=(0, 1))
    bands[:] = np.flatnonzero(counts > counts[bands].max() / 2)
  of_value = {
    marker: bands
    for marker, bands in of_value.items()
    # One dark band may have been clipped at 0, as infrared over water is.
    if len(bands) == whole > 1 or not _is_clipped_dark(sensor, marker)
  }
  if not of_value:
    return []
  marker, bands = max(of_value.items(), key=lambda item: len(item[1]))
  share = (stored == marker)[..., bands].all(axis=-1).mean()
  named = ", ".join(sensor.band_names[band] for band in bands)
  place = (
    " " if whole == 1 else ", in all bands, " if len(bands) == whole else f", in {named} alone, "
  )
  remedy = _remedy(sensor, marker, len(bands) == whole, nodata_option)
  return [
    f"{share:.1%} of its pixels{place}hold {number(marker)}, which {sensor.product} does not "
    f"measure there: fill that nothing declares. {remedy}"
  ]


def number(value: float) -> str:
  """A value as it can be typed and is the same again."""
  exact = float(value)
  return f"{exact:.0f}" if exact.is_integer() else repr(exact)


def _remedy(sensor: Sensor, marker: float, everywhere: bool, nodata_option: str) -> str:
  if not everywhere and possible_value(sensor, marker):
    # Such a nodata value hides nothing in one band alone, see `Sensor.known`.
    other = "nan" if sensor.dtype.startswith("float") else number(_impossible(sensor))
    told = f" and give {nodata_option}{other}" if nodata_option else ""
    return (
      f"Since {number(marker)} may be measured in other bands, write {other} in its place{told}."
    )
  if nodata_option:
    return f"Say so: {nodata_option}{number(marker)}."
  return "Declare it as the file's nodata value, or hide it by a mask."


def _impossible(sensor: Sensor) -> float:
  """A value of an integer type that no measurement gives."""
  limits = np.iinfo(sensor.dtype)
  return float(limits.min if limits.min < 0 else limits.max)


def _is_clipped_dark(sensor: Sensor, marker: float) -> bool:
  factor = _factor(sensor)
  return factor > 0 and 0 <= _calibrated(sensor, marker) <= 1e-4 * factor


def _factor(sensor: Sensor) -> float:
  """What reflectances are multiplied by; 0 where there are none."""
  return reflectance_factor(sensor) or 0.0


def _calibrated(sensor: Sensor, stored: float) -> float:
  return (float(stored) + sensor.scaling.offset) * sensor.scaling.gain


def _marker(sensor: Sensor, values: np.ndarray) -> float | None:
  """The value among those (n,) of a band that is fill, or None."""
  lowest, highest = float(values.min()), float(values.max())
  if lowest in MARKERS and _apart(sensor, values, lowest):
    return lowest
  limits = possible_range(sensor)
  if limits is None:
    return None  # of classes, of heights of a plain many are alike
  ends = [_calibrated(sensor, end) for end in (lowest, highest)]
  if min(ends) < limits[0] or max(ends) > limits[1]:
    calibrated = sensor.calibrate(values)
    outside = values[(calibrated < limits[0]) | (calibrated > limits[1])]
    found, counts = np.unique(outside, return_counts=True)
    # Values in other units are many; fill is one value.
    if len(outside) > _STRAY * len(values) and counts.max() > 0.9 * len(outside):
      return float(found[counts.argmax()])
  chosen = values
  if len(values) > _GLANCE:
    chosen = values[np.random.default_rng(0).integers(0, len(values), _GLANCE)]
  levels, counts = np.unique(chosen, return_counts=True)
  marker = float(levels[counts.argmax()])
  if counts.max() < _SHARE / 2 * len(chosen) or len(levels) < _LEVELS:
    return None
  share = np.count_nonzero(values == marker) / len(values)
  if share < _SHARE or share == 1 or marker == sensor.nodata or _is_saturated(sensor, marker):
    return None
  return marker if _apart(sensor, values, marker) else None


def _is_saturated(sensor: Sensor, marker: float) -> bool:
  """Whether it is where clouds and snow end: a reflectance of 1, or the sensor's own upper end."""
  ends = [_factor(sensor), *(sensor.scaling.clip or ())[1:]]
  return ends[0] > 0 and _calibrated(sensor, marker) in ends


def _apart(sensor: Sensor, values: np.ndarray, marker: float) -> bool:
  """Whether a value stands apart from all others, or in their midst as no measured one does."""
  rest = values[values != marker].astype(np.float64)
  if not len(rest):
    return False
  levels, counts = np.unique(rest, return_counts=True)
  inside = min(np.count_nonzero(rest < marker), np.count_nonzero(rest > marker)) >= 2
  # Over water a band may have a few levels only, one of them most often.
  dark = abs(_calibrated(sensor, marker)) < _DARK * _factor(sensor)
  if inside and not dark and len(values) - len(rest) >= 10 * counts.max():
    return True
  # Beside an end at which values were clipped, the distances to the nearest levels grow evenly
  # from 0; from fill to the first measured level there is a gap.
  order = np.argsort(np.abs(levels - marker), kind="stable")
  distances = np.abs(levels - marker)[order]
  near = int(np.searchsorted(np.cumsum(counts[order]), _NOISE * len(rest), side="right"))
  near = min(near, len(levels) - 1)
  far = min(_FURTHER * near + _NEIGHBOURS, len(levels) - 1)
  return bool(distances[near] > _GAP * distances[far])
