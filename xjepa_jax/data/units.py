"""Whether values are in the units that a sensor's description claims.

A wrong claim trains without an error and ruins every comparison: Sentinel-1 as linear power or 8
bit instead of dB, VV and VH in each other's place, Sentinel-2 with or without the +1000 of
processing baseline 04.00, fill that nobody declared. Statistics of many images show what all of
them have in common; a few images of another processing drown in these, so each is judged by itself,
too (`of_image`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from xjepa_jax.data.pairs import Pair
from xjepa_jax.sensors import Sensor, possible_range, reflectance_factor

_DECIBELS = (-120.0, 70.0)  # wider than what is possible, for noise
# dB; over land and sea VH is 5 to 10 dB below VV, and HV below HH. A single image may be small.
_CROSS_EXCESS, _CROSS_EXCESS_OF_ONE = 1.0, 3.0
_OFFSET = 1000
_NEAR_OFFSET = 950
_FILL_SHARE = 0.1  # of an image's pixels; the same value in all bands of so many is no measurement
_STRAY = 0.01  # of an image's values that cannot be measured; fewer may be noise, glint, saturation
_MARKERS = (-999, -9999, -99999, -32768)  # what archives mark fill with


def contradictions(
  sensor: Sensor, statistics: Mapping[str, Any], nodata_option: str = ""
) -> list[str]:
  """What in a sensor's values speaks against its description.

  Args:
    sensor: the description.
    statistics: of stored values of many images, as `SensorStatistics.to_json` gives them.
    nodata_option: how a value can be declared as fill, up to that value: "--nodata s1=". Empty
      where it cannot.

  Returns:
    Sentences: what was found, what was expected, what to do. Empty if nothing speaks against it.
  """
  bands = statistics["bands"]
  if not bands:
    return []
  found = _of_range(sensor, bands, _CROSS_EXCESS, nodata_option)
  return found or _levels(sensor, bands) or offset_suspected(sensor, statistics)


def of_image(sensor: Sensor, stored: np.ndarray, nodata_option: str = "") -> list[str]:
  """What in one image's values speaks against its sensor's description.

  An image may be bright all over, a desert or a cloud, or dark, a lake: what it seems to say of an
  offset or of levels is left to `contradictions`.

  Args:
    sensor: the description.
    stored: (H, W, C) values as stored.
    nodata_option: as `contradictions` takes it.

  Returns:
    Sentences, as of `contradictions`.
  """
  known = sensor.known(stored)
  bands = {}
  for band, name in enumerate(sensor.band_names):
    values = stored[..., band][known[..., band]]
    if values.size:
      exact = values.astype(np.float64)
      bands[name] = {"min": exact.min(), "max": exact.max(), "mean": exact.mean()}
  if not bands:
    return []
  return _fill(sensor, stored, known, nodata_option) or _of_range(
    sensor, bands, _CROSS_EXCESS_OF_ONE, nodata_option
  )


def of_pair(sensors: Mapping[str, Sensor], pair: Pair) -> str:
  """What in the values of a pair's images speaks against their sensors, a sentence each; or ""."""
  return " ".join(
    f"sensor {key!r}: {sentence}"
    for key, observation in pair.observations.items()
    for sentence in of_image(sensors[key], observation.values, f"--nodata {key}=")
  )


def offset_suspected(sensor: Sensor, statistics: Mapping[str, Any]) -> list[str]:
  """What in the values of reflectances speaks against the sensor's offset, see `contradictions`."""
  first = {name: band["p01"] for name, band in statistics["bands"].items()}
  # An offset of 1000 is Sentinel-2's, of reflectance x 1e4 as it is stored.
  of_sentinel2 = reflectance_factor(sensor) == 1e4 and sensor.scaling.gain == 1
  return _offset(sensor, first) if of_sentinel2 and first else []


def _of_range(
  sensor: Sensor,
  bands: Mapping[str, Mapping[str, float]],
  excess: float,
  nodata_option: str,
) -> list[str]:
  """What minima, maxima and means say, in the sensor's units: each may be of few values."""
  ends = [_calibrated(sensor, band[name]) for band in bands.values() for name in ("min", "max")]
  lowest, highest = min(ends), max(ends)
  if sensor.units == "dB":
    means = {name: _calibrated(sensor, band["mean"]) for name, band in bands.items()}
    return _decibels(sensor, lowest, highest, nodata_option) or _polarisations(
      sensor, means, excess
    )
  if reflectance_factor(sensor):
    return _reflectance(sensor, highest, max(band["max"] for band in bands.values()))
  return []


def _calibrated(sensor: Sensor, stored: float) -> float:
  return (stored + sensor.scaling.offset) * sensor.scaling.gain


def _fill(sensor: Sensor, stored: np.ndarray, known: np.ndarray, nodata_option: str) -> list[str]:
  """Values that were not measured and that nothing declares: impossible ones, or one everywhere."""
  limits = possible_range(sensor)
  if limits is None:
    return []
  calibrated = sensor.calibrate(stored)
  impossible = known & ((calibrated < limits[0]) | (calibrated > limits[1]))
  marked = impossible & np.isin(stored, _MARKERS)
  if impossible.sum() > _STRAY * known.sum() or marked.any():
    values, counts = np.unique(stored[marked if marked.any() else impossible], return_counts=True)
    # Values in other units are many; fill is one value.
    if counts.max() > 0.9 * counts.sum():
      share = f"{impossible.any(axis=-1).mean():.1%} of its pixels"
      return [_declare(sensor, values[counts.argmax()], share, nodata_option)]
    return []
  if stored.shape[-1] == 1:
    return []  # levels of one band repeat, and a noise floor does
  alike = known.all(axis=-1) & (stored == stored[..., :1]).all(axis=-1)
  if sensor.scaling.clip is not None:  # clouds that were clipped are alike in all bands
    alike &= (calibrated > sensor.scaling.clip[0]).all(axis=-1)
    alike &= (calibrated < sensor.scaling.clip[1]).all(axis=-1)
  if not alike.any():
    return []
  values, counts = np.unique(stored[alike][:, 0], return_counts=True)
  share = counts.max() / alike.size
  if share < _FILL_SHARE or counts.max() == known.all(axis=-1).sum():
    return []  # all of it: an image without contrast
  return [
    _declare(
      sensor,
      values[counts.argmax()],
      f"{share:.1%} of its pixels, in all bands,",
      nodata_option,
    )
  ]


def _declare(sensor: Sensor, marker: Any, what: str, nodata_option: str) -> str:
  remedy = f" Say so: {nodata_option}{_number(marker)}." if nodata_option else ""
  return (
    f"{what} hold {_number(marker)}, which {sensor.product} does not measure there: fill that "
    f"nothing declares.{remedy}"
  )


def _number(value: Any) -> str:
  """A value as it can be typed and is the same again."""
  exact = float(value)
  return f"{exact:.0f}" if exact.is_integer() else repr(exact)


def _decibels(sensor: Sensor, lowest: float, highest: float, nodata_option: str) -> list[str]:
  found = f"values run from {lowest:g} to {highest:g}"
  if lowest >= 0:
    return [
      f"{found}: linear power or scaled bytes, expected dB, which is negative over most land."
    ]
  if lowest < _DECIBELS[0] or highest > _DECIBELS[1]:
    outside = lowest if lowest < _DECIBELS[0] else highest
    stored = round(outside / sensor.scaling.gain - sensor.scaling.offset, 6)
    fill = f" If that is fill: {nodata_option}{_number(stored)}." if nodata_option else ""
    return [f"{found}, expected dB within {_DECIBELS[0]:g} to {_DECIBELS[1]:g}.{fill}"]
  return []


def _polarisations(sensor: Sensor, means: dict[str, float], excess: float) -> list[str]:
  """A wave that comes back turned is the weaker, but for a pixel here or there."""
  kinds = {band.name: band.polarisation or "" for band in sensor.bands}
  same = {name: means[name] for name, kind in kinds.items() if kind in ("VV", "HH")}
  turned = {name: means[name] for name, kind in kinds.items() if kind in ("VH", "HV")}
  if not (same and turned):
    return []
  weak, strong = min(same, key=lambda name: same[name]), max(turned, key=lambda name: turned[name])
  if turned[strong] <= same[weak] + excess:
    return []
  return [
    f"the mean of {strong}, {turned[strong]:.1f} dB, is above that of {weak}, {same[weak]:.1f} dB, "
    "expected below: these bands seem to be in each other's place. Name them in the order in which "
    f"files hold them (--bands), or correct the files; the sensor has {', '.join(kinds)}."
  ]


def _reflectance(sensor: Sensor, highest: float, stored: float) -> list[str]:
  factor = reflectance_factor(sensor) or 1.0
  if sensor.dtype in ("uint8", "int8") and sensor.scaling.gain == 1:
    return [
      f"values are stored as {sensor.dtype}: levels of a picture, expected {sensor.units}, which "
      "takes 16 bits. Name a product such as rgb, or describe one (--sensors)."
    ]
  if factor > 100 and stored <= 2:
    return [f"no value is above {stored:g}: reflectance from 0 to 1, expected {sensor.units}."]
  if factor == 1 and highest > 100:
    return [f"values run to {highest:g}: reflectance x 1e4 or so, expected {sensor.units}."]
  return []


def _levels(sensor: Sensor, bands: Mapping[str, Mapping[str, float]]) -> list[str]:
  """Levels of 8 bits in a wider type: of many images some are brighter than .0255."""
  highest = max(_calibrated(sensor, band["max"]) for band in bands.values())
  if reflectance_factor(sensor) == 1e4 and highest <= 255:
    return [
      f"no value is above {highest:g}: levels of a picture of 8 bits, expected {sensor.units}. "
      "Name a product such as rgb, or describe one (--sensors)."
    ]
  return []


def _offset(sensor: Sensor, first: dict[str, float]) -> list[str]:
  darkest = min(first, key=lambda name: first[name])
  found = f"99 % of the pixels of {darkest}, the darkest band, are above {first[darkest]:g}"
  if sensor.scaling.offset == 0 and first[darkest] >= _NEAR_OFFSET:
    return [
      f"{found}: these values seem to carry the +{_OFFSET} of processing baseline 04.00. Name the "
      f"product that has it (offset -{_OFFSET}), such as sentinel2_l2a_n0400."
    ]
  if sensor.scaling.offset == -_OFFSET and first[darkest] < _OFFSET / 2:
    return [
      f"{found} only: these values do not carry the +{_OFFSET} that the sensor's offset of "
      f"-{_OFFSET} takes away. Name the product without it, such as sentinel2_l2a."
    ]
  return []
