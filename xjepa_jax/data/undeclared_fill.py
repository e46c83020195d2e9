"""Detects undeclared fill: one value that is frequent in an image and has no values near it.

Clipped values share one value as well, but it lies at an end of the range at which the other values
pile up. Fill stands apart from them, or lies among them and is far more frequent than any other.
"""

from __future__ import annotations

import numpy as np

from xjepa_jax.sensors import Sensor, possible_range, possible_value, reflectance_factor

MARKERS = (-999.0, -9999.0, -99999.0, -32768.0)  # values with which archives mark fill
_FEWEST = 16  # values of a band; fewer prove nothing
# Smallest share of a band's values that is fill: measurements are not equal that often without
# others near them.
_SHARE = 0.1
_STRAY = 0.01  # largest share of impossible values that may be noise, glint or saturation
_GLANCE = 1024  # values of a band that are sampled first for frequent ones, for speed
# Fewest different values in that sample. Below it a frequent value proves nothing, since a coarsely
# quantised band repeats its values, and water has few in the infrared.
_LEVELS = 32
_DARK = 0.02  # upper end of the reflectance of water in the infrared
_NOISE = 0.002  # share of the other values that is ignored in the search for a gap
# The distance to the nearest level, past the noise, is compared with that to a level further out.
# It is a gap if it exceeds _GAP times the latter.
_NEIGHBOURS, _FURTHER, _GAP = 20, 5, 0.4


def undeclared_fill(
  sensor: Sensor, stored: np.ndarray, known: np.ndarray, nodata_option: str = ""
) -> list[str]:
  """Find fill in an image whose sensor declares another nodata value, or none.

  Args:
    sensor: the description.
    stored: (H, W, C) values as stored.
    known: (H, W, C) bool, True for values that count as data.
    nodata_option: option that declares a value as fill, up to that value: "--nodata s1=". Empty if
      there is none.

  Returns:
    One sentence that names the value, its share, its bands and what to do; empty if there is no
    fill.
  """
  of_value: dict[float, list[int]] = {}
  for band in range(stored.shape[-1]):
    values = stored[..., band][known[..., band]]
    marker = _marker(sensor, values) if values.size >= _FEWEST else None
    if marker is not None:
      of_value.setdefault(marker, []).append(band)
  whole = stored.shape[-1]
  # Fill cannot be recognised in a band with few different values; add such bands if they hold the
  # fill value about as often.
  for marker, bands in of_value.items():
    counts = (known & (stored == marker)).sum(axis=(0, 1))
    bands[:] = np.flatnonzero(counts > counts[bands].max() / 2)
  of_value = {
    marker: bands
    for marker, bands in of_value.items()
    # A single dark band may have been clipped at 0, as happens in the infrared over water.
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
  """A value as the shortest text that parses to the same value."""
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
  """A value of the sensor's integer type that no measurement gives."""
  limits = np.iinfo(sensor.dtype)
  return float(limits.min if limits.min < 0 else limits.max)


def _is_clipped_dark(sensor: Sensor, marker: float) -> bool:
  factor = _factor(sensor)
  return factor > 0 and 0 <= _calibrated(sensor, marker) <= 1e-4 * factor


def _factor(sensor: Sensor) -> float:
  """The factor by which reflectances are multiplied; 0 for units other than reflectance."""
  return reflectance_factor(sensor) or 0.0


def _calibrated(sensor: Sensor, stored: float) -> float:
  return (float(stored) + sensor.scaling.offset) * sensor.scaling.gain


def _marker(sensor: Sensor, values: np.ndarray) -> float | None:
  """The value among a band's (n,) values that is fill, or None."""
  lowest, highest = float(values.min()), float(values.max())
  if lowest in MARKERS and _apart(sensor, values, lowest):
    return lowest
  limits = possible_range(sensor)
  if limits is None:
    return None  # units unknown; class numbers, or heights on a plain, are often equal
  ends = [_calibrated(sensor, end) for end in (lowest, highest)]
  if min(ends) < limits[0] or max(ends) > limits[1]:
    calibrated = sensor.calibrate(values)
    outside = values[(calibrated < limits[0]) | (calibrated > limits[1])]
    found, counts = np.unique(outside, return_counts=True)
    # Values in other units are many different ones; fill is one value.
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
  """Whether a value is where clouds and snow saturate: 1, or the upper end of the clip range."""
  ends = [_factor(sensor), *(sensor.scaling.clip or ())[1:]]
  return ends[0] > 0 and _calibrated(sensor, marker) in ends


def _apart(sensor: Sensor, values: np.ndarray, marker: float) -> bool:
  """Whether a value is isolated from all others, or too frequent among them to be a measurement."""
  rest = values[values != marker].astype(np.float64)
  if not len(rest):
    return False
  levels, counts = np.unique(rest, return_counts=True)
  inside = min(np.count_nonzero(rest < marker), np.count_nonzero(rest > marker)) >= 2
  # Over water a band may have only a few levels, one of them much more frequent.
  dark = abs(_calibrated(sensor, marker)) < _DARK * _factor(sensor)
  if inside and not dark and len(values) - len(rest) >= 10 * counts.max():
    return True
  # Next to a clipped end the distances to the nearest levels grow evenly from 0; between fill and
  # the first measured level there is a gap.
  order = np.argsort(np.abs(levels - marker), kind="stable")
  distances = np.abs(levels - marker)[order]
  near = int(np.searchsorted(np.cumsum(counts[order]), _NOISE * len(rest), side="right"))
  near = min(near, len(levels) - 1)
  far = min(_FURTHER * near + _NEIGHBOURS, len(levels) - 1)
  return bool(distances[near] > _GAP * distances[far])
