"""Checks whether stored values are in the units that a sensor's description claims.

Nothing is guessed or converted: contradictions are put into sentences, and an import or a caller
refuses the data. The checks cover mistakes that occur in practice: linear power taken for dB, VV
and VH swapped, Sentinel-2 with or without the +1000 of processing baseline 04.00, 8-bit picture
levels taken for reflectance, undeclared fill values. Statistics over many images show what all have
in common, but hide a few images from another processing, so each image is also judged by itself
(`Judge.of_image`). Questions that the values cannot settle become remarks (`remarks`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from xjepa_jax.data.image_levels import (
  DARK_WITH_OFFSET,
  OFFSET,
  Levels,
  is_sentinel2,
  lacks_offset,
  mixed_offsets,
  off_scale,
)
from xjepa_jax.data.pairs import Pair
from xjepa_jax.data.undeclared_fill import MARKERS, number, undeclared_fill
from xjepa_jax.sensors import Sensor, possible_range, reflectance_factor

_DECIBELS = (-120.0, 70.0)  # wider than the possible range, to allow for noise
# How far in dB the cross-polarised mean may exceed the co-polarised one, over many images and in
# one. Over land and sea VH is 5 to 10 dB below VV, and HV below HH, but one image may be small.
_CROSS_EXCESS, _CROSS_EXCESS_OF_ONE = 1.0, 3.0
# Largest share of an image's values that may be impossible: noise, glint or saturation.
_STRAY = 0.01
_VISIBLE, _INFRARED = 700, 740  # nm; between them vegetation turns from dark to bright
_LAND = 1.5  # ratio of infrared to visible; it is higher for land, and below 1 for water
_NO_CLAIM = ("digital number", "")  # units that make no claim that could be checked


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
  """A judge of one sensor's images by the sensor's description.

  Attributes:
    sensor: the description.
    nodata_option: option that declares a value as fill, up to that value: "--nodata s1=". Empty if
      there is none.
    offset_way: sentence on how to give another offset, with {offset} or the {shift} to it: "Give
      --offset s2={offset}". Empty if another product has to be named instead.
    trust_option: option that accepts an offset which the values contradict: "--trust-offset". Empty
      if there is none.
    offset: whether offsets are judged.
    usual: levels of most images of the archive, or None if there are no others.
  """

  sensor: Sensor
  nodata_option: str = ""
  offset_way: str = ""
  trust_option: str = ""
  offset: bool = True
  usual: Levels | None = None

  def of_image(self, stored: np.ndarray) -> list[str]:
    """Contradictions between one image's values and its sensor's description.

    An image may be bright throughout, such as a desert or a cloud, or dark, such as a lake. Only
    clear evidence on offsets and picture levels counts here; the rest is left to `of_statistics`.

    Args:
      stored: (H, W, C) values as stored.

    Returns:
      Sentences with what was found, what was expected and what to do. Empty if there is none.
    """
    sensor = self.sensor
    known = sensor.known(stored)
    bands = {}
    for band, name in enumerate(sensor.band_names):
      values = stored[..., band][known[..., band]]
      if values.size:
        exact = values.astype(np.float64)
        bands[name] = {"min": exact.min(), "max": exact.max(), "mean": exact.mean()}
    if not bands:
      return []
    # Only the first finding is reported, because later checks would report its consequences.
    return (
      undeclared_fill(sensor, stored, known, self.nodata_option)
      or _of_range(sensor, bands, _CROSS_EXCESS_OF_ONE, self.nodata_option)
      or _impossible(sensor, stored, known)
      or _levels(sensor, bands)
      or (lacks_offset(sensor, stored, known) if self.offset else [])
      or self._off_scale(stored, known)
    )

  def of_statistics(self, statistics: Mapping[str, Any]) -> list[str]:
    """Contradictions between the description and what many images have in common.

    Args:
      statistics: statistics of stored values, from `SensorStatistics.to_json`.

    Returns:
      Sentences as from `of_image`.
    """
    bands = statistics["bands"]
    if not bands:
      return []
    found = _of_range(self.sensor, bands, _CROSS_EXCESS, self.nodata_option)
    found = found or _mostly_impossible(self.sensor, bands) or _levels(self.sensor, bands)
    return found or self.of_offset(statistics)

  def of_offset(self, statistics: Mapping[str, Any]) -> list[str]:
    """Contradictions with the sensor's offset alone; argument and result as in `of_statistics`."""
    bands = statistics["bands"]
    if not (self.offset and bands and is_sentinel2(self.sensor)):
      return []
    band, low = _darkest(bands)
    trusted = f"; or {self.trust_option} if the ground is as bright as that"
    trusted = trusted if self.trust_option else ""
    if self.sensor.scaling.offset == 0 and DARK_WITH_OFFSET[0] <= low <= DARK_WITH_OFFSET[1]:
      return [
        f"99 % of the pixels of {band}, the darkest band, are above {low:g}: these values seem to "
        f"carry the +{OFFSET} of processing baseline 04.00. {self._way(-OFFSET)}{trusted}."
      ]
    twentieth = min(numbers["p05"] for numbers in bands.values())
    if self.sensor.scaling.offset == -OFFSET and twentieth < OFFSET / 2:
      return [
        f"5 % of the pixels of a band are below {twentieth:g}: these values do not carry the "
        f"+{OFFSET} that the sensor's offset of -{OFFSET} takes away. {self._way(0)}{trusted}."
      ]
    return []

  def of_dark(self, statistics: Mapping[str, Any]) -> list[str]:
    """A remark if no value exceeds what 8 bits hold, which need not be a mistake."""
    bands = statistics["bands"]
    highest = _highest(self.sensor, bands) if bands else None
    if highest is None or _levels(self.sensor, bands):
      return []
    return [f"no value is above {highest:g}: open water, or levels of a picture of 8 bits."]

  def remarks(self, statistics: Mapping[str, Any], images: Mapping[str, Levels]) -> list[str]:
    """Points that the values cannot settle and that a person should know.

    Args:
      statistics: as in `of_statistics`.
      images: image id -> levels of the image.

    Returns:
      Sentences.
    """
    bands, sensor = statistics["bands"], self.sensor
    if possible_range(sensor) is None:
      if sensor.units in _NO_CLAIM:
        return []
      return [f"no check knows the units {sensor.units!r}: values are taken as they are."]
    found = self.of_dark(statistics)
    if is_sentinel2(sensor) and sensor.scaling.offset == 0 and bands:
      band, low = _darkest(bands)
      if low > DARK_WITH_OFFSET[1]:
        way = self._way(-OFFSET)
        found.append(
          f"99 % of the pixels of {band}, the darkest band, are above {low:g}: bright ground, snow "
          f"or cloud, or values with the +{OFFSET} of processing baseline 04.00. If they have it: "
          f"{way[0].lower()}{way[1:]}."
        )
    return found + mixed_offsets(sensor, images)

  def _off_scale(self, stored: np.ndarray, known: np.ndarray) -> list[str]:
    if self.usual is None:
      return []
    return off_scale(self.sensor, Levels.of(self.sensor, stored, known), self.usual)

  def _way(self, offset: int) -> str:
    if self.offset_way:
      return self.offset_way.format(offset=offset, shift=offset - self.sensor.scaling.offset)
    if offset:
      return f"Name the product that has it (offset {offset}), such as sentinel2_l2a_n0400"
    return "Name the product without it, such as sentinel2_l2a"


def of_pair(judges: Mapping[str, Judge], pair: Pair) -> str:
  """Contradictions between a pair's images and their sensors, one sentence each, or ""."""
  return " ".join(
    f"sensor {key!r}: {sentence}"
    for key, observation in pair.observations.items()
    if key in judges
    for sentence in judges[key].of_image(observation.values)
  )


def _of_range(
  sensor: Sensor,
  bands: Mapping[str, Mapping[str, float]],
  excess: float,
  nodata_option: str,
) -> list[str]:
  """Contradictions in extremes and means, in the sensor's units; extremes may be single values."""
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


def _impossible(sensor: Sensor, stored: np.ndarray, known: np.ndarray) -> list[str]:
  """Detect a share of impossible values above `_STRAY`, which means another scale."""
  limits = possible_range(sensor)
  if limits is None:
    return []
  calibrated = sensor.calibrate(stored)
  outside = known & ((calibrated < limits[0]) | (calibrated > limits[1]))
  share = float(outside.sum()) / max(float(known.sum()), 1)
  if share <= _STRAY:
    return []
  lowest, highest = calibrated[known].min(), calibrated[known].max()
  return _outside(sensor, limits, f"{share:.0%} of its values", lowest, highest)


def _mostly_impossible(sensor: Sensor, bands: Mapping[str, Mapping[str, float]]) -> list[str]:
  """Like `_impossible`, judged by the percentiles of many images."""
  limits = possible_range(sensor)
  ends = [
    _calibrated(sensor, band[name])
    for band in bands.values()
    for name in ("p01", "p99")
    if name in band
  ]
  if limits is None or not ends or (min(ends) >= limits[0] and max(ends) <= limits[1]):
    return []
  return _outside(sensor, limits, "over 1 % of the values of a band", min(ends), max(ends))


def _outside(
  sensor: Sensor, limits: tuple[float, float], what: str, lowest: float, highest: float
) -> list[str]:
  return [
    f"{what} are no {sensor.units}: they run from {lowest:g} to {highest:g}, expected "
    f"{limits[0]:g} to {limits[1]:g}. Bring them to these units, or describe their scale "
    "(--sensors)."
  ]


def _decibels(sensor: Sensor, lowest: float, highest: float, nodata_option: str) -> list[str]:
  found = f"values run from {lowest:g} to {highest:g}"
  if lowest >= 0:
    return [
      f"{found}: linear power or scaled bytes, expected dB, which is negative over most land."
    ]
  if lowest < _DECIBELS[0] or highest > _DECIBELS[1]:
    outside = lowest if lowest < _DECIBELS[0] else highest
    stored = round(outside / sensor.scaling.gain - sensor.scaling.offset, 6)
    fill = f" If that is fill: {nodata_option}{number(stored)}." if nodata_option else ""
    # Any other value means another scale and not fill.
    fill = fill if stored in MARKERS or abs(stored) > 1e30 else ""
    return [f"{found}, expected dB within {_DECIBELS[0]:g} to {_DECIBELS[1]:g}.{fill}"]
  return []


def _polarisations(sensor: Sensor, means: dict[str, float], excess: float) -> list[str]:
  """Cross-polarised backscatter is weaker than co-polarised, except in single pixels."""
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
  if factor > 100 and -100 < stored <= 2:
    return [f"no value is above {stored:g}: reflectance from 0 to 1, expected {sensor.units}."]
  if factor == 1 and highest > 100:
    return [f"values run to {highest:g}: reflectance x 1e4 or so, expected {sensor.units}."]
  return []


def _levels(sensor: Sensor, bands: Mapping[str, Mapping[str, float]]) -> list[str]:
  """Detect 8-bit levels in a wider type: land by its infrared, or pictures with maximum 255."""
  highest = _highest(sensor, bands)
  if highest is None:
    return []
  means = {
    band.wavelength: _calibrated(sensor, bands[band.name]["mean"])
    for band in sensor.bands
    if band.wavelength and band.name in bands
  }
  visible = [mean for length, mean in means.items() if length < _VISIBLE]
  infrared = [mean for length, mean in means.items() if length > _INFRARED]
  land = visible and infrared and np.mean(infrared) > _LAND * max(float(np.mean(visible)), 1)
  if not land and any(band["max"] != 255 for band in bands.values()):
    return []
  return [
    f"no value is above {highest:g}: levels of a picture of 8 bits or percent, expected "
    f"{sensor.units}. Name a product such as rgb, or describe one (--sensors)."
  ]


def _highest(sensor: Sensor, bands: Mapping[str, Mapping[str, float]]) -> float | None:
  """The highest value of a sensor in reflectance x 1e4, if 8 bits could hold it, else None."""
  highest = max(_calibrated(sensor, band["max"]) for band in bands.values())
  return highest if reflectance_factor(sensor) == 1e4 and highest <= 255 else None


def _darkest(bands: Mapping[str, Mapping[str, float]]) -> tuple[str, float]:
  """The band whose 1st percentile is lowest, and that percentile in stored values."""
  band = min(bands, key=lambda name: bands[name]["p01"])
  return band, bands[band]["p01"]
