"""Whether values are in the units that a sensor's description claims.

A wrong claim trains without an error and ruins every comparison: Sentinel-1 as linear power or 8
bit instead of dB, VV and VH in each other's place, Sentinel-2 with or without the +1000 of
processing baseline 04.00.
"""

from __future__ import annotations

from typing import Any

from xjepa_jax.sensors import Sensor

# Calibrated backscatter of land and sea lies within about -50 to +30 dB; the margin is for noise.
_DECIBELS = (-120.0, 70.0)
_CROSS_EXCESS = 1.0  # dB; over land and sea VH is 5 to 10 dB below VV, and HV below HH
_OFFSET = 1000
_NEAR_OFFSET = 950


def contradictions(
  sensor: Sensor, statistics: dict[str, Any], one_image: bool = False
) -> list[str]:
  """What in a sensor's values speaks against its description.

  Args:
    sensor: the description.
    statistics: of stored values, as `SensorStatistics.to_json` gives them.
    one_image: they are of a single one, which may be bright all over, a desert or a cloud: what it
      seems to say of an offset is left out, see `offset_suspected`.

  Returns:
    Sentences: what was found, what was expected, what to do. Empty if nothing speaks against it.
  """
  bands = statistics["bands"]
  if not bands:
    return []
  lowest = min(band["min"] for band in bands.values())
  highest = max(band["max"] for band in bands.values())
  if sensor.units == "dB":
    means = {name: band["mean"] for name, band in bands.items()}
    return _decibels(lowest, highest) or _polarisations(sensor, means)
  if sensor.units.startswith("reflectance x"):
    first = {name: band["p01"] for name, band in bands.items()}
    return _reflectance(sensor, highest) or ([] if one_image else _offset(sensor, first))
  return []


def offset_suspected(sensor: Sensor, statistics: dict[str, Any]) -> list[str]:
  """What in the values of reflectances speaks against the sensor's offset, see `contradictions`."""
  first = {name: band["p01"] for name, band in statistics["bands"].items()}
  of_reflectance = sensor.units.startswith("reflectance x")
  return _offset(sensor, first) if of_reflectance and first else []


def _decibels(lowest: float, highest: float) -> list[str]:
  found = f"values run from {lowest:g} to {highest:g}"
  if lowest >= 0:
    return [
      f"{found}: linear power or scaled bytes, expected dB, which is negative over most land."
    ]
  if lowest < _DECIBELS[0] or highest > _DECIBELS[1]:
    return [
      f"{found}, expected dB within {_DECIBELS[0]:g} to {_DECIBELS[1]:g}. If a fill value is among "
      "them, name it as nodata."
    ]
  return []


def _polarisations(sensor: Sensor, means: dict[str, float]) -> list[str]:
  """A wave that comes back turned is the weaker, but for a pixel here or there."""
  kinds = {band.name: band.polarisation or "" for band in sensor.bands}
  same = {name: means[name] for name, kind in kinds.items() if kind in ("VV", "HH")}
  turned = {name: means[name] for name, kind in kinds.items() if kind in ("VH", "HV")}
  if not (same and turned):
    return []
  weak, strong = min(same, key=lambda name: same[name]), max(turned, key=lambda name: turned[name])
  if turned[strong] <= same[weak] + _CROSS_EXCESS:
    return []
  return [
    f"the mean of {strong}, {turned[strong]:.1f} dB, is above that of {weak}, {same[weak]:.1f} dB, "
    "expected below: these bands seem to be in each other's place. Name them in the order in which "
    f"files hold them (--bands), or correct the files; the sensor has {', '.join(kinds)}."
  ]


def _reflectance(sensor: Sensor, highest: float) -> list[str]:
  if sensor.dtype in ("uint8", "int8"):
    return [
      f"values are stored as {sensor.dtype}: levels of a picture, expected {sensor.units}, which "
      "takes 16 bits. Name a product such as rgb, or describe one (--sensors)."
    ]
  if highest <= 2:
    return [f"no value is above {highest:g}: reflectance from 0 to 1, expected {sensor.units}."]
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
