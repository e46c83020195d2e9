"""Compares the scaling that a file's tags declare with the scaling in its sensor's description.

A GeoTIFF may declare value = stored * scale + offset, like STAC's `raster:bands`. A sensor's
description has (stored + offset) * gain instead, in the sensor's units, which are reflectance x 1e4
for Sentinel-2: scale 1e-4 with offset -.1 is gain 1 with offset -1000. So is scale 1 with offset
-1000, if a file's tags are in the sensor's own units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from xjepa_jax.errors import ImageError
from xjepa_jax.sensor_presets import PRESETS
from xjepa_jax.sensors import Sensor, reflectance_factor

_CLOSE = 1e-4  # tags are rounded when written


def check_scaling(
  path: str,
  key: str,
  sensor: Sensor,
  scales: Sequence[float],
  offsets: Sequence[float],
  bands: Sequence[int],
  offset_option: str = "",
  describable: bool = True,
) -> None:
  """Refuse a file that declares another scale or offset than its sensor has.

  Args:
    path: path of the file.
    key: key of the sensor.
    sensor: sensor by which the values are read.
    scales, offsets: one per band of the file, as it declares them; empty if it declares none.
    bands: numbers, from 1, of the bands that are read.
    offset_option: option that changes the offset alone: "--offset s2="; "" if the product fixes it.
    describable: whether a user may describe the product otherwise; an encoder's product is fixed.

  Raises:
    ImageError: they differ from the sensor's, or among the bands.
  """
  if not scales:
    return
  for number in bands:
    scale, shift = scales[number - 1], offsets[number - 1]
    # Tags whose scale is the sensor's gain are in the sensor's units; others give reflectance.
    own_units = math.isclose(scale, sensor.scaling.gain, rel_tol=_CLOSE)
    factor = 1.0 if own_units else reflectance_factor(sensor) or 1.0
    # stored * scale + shift = (stored + shift / scale) * scale
    gain, offset = scale * factor, shift / scale if scale else math.nan
    same_gain = math.isclose(gain, sensor.scaling.gain, rel_tol=_CLOSE)
    if same_gain and _close(offset, sensor.scaling.offset):
      continue
    raise ImageError(
      f"{path}: declares value = stored * {scale:g} {shift:+g} for its band {number}, which is a "
      f"gain of {gain:g} after an offset of {offset:g}; sensor {key!r} ({sensor.product}) has a "
      f"gain of {sensor.scaling.gain:g} and an offset of {sensor.scaling.offset:g}. "
      f"{_remedy(sensor, gain, offset, offset_option if same_gain else '', describable)}"
    )


def _remedy(
  sensor: Sensor, gain: float, offset: float, offset_option: str, describable: bool
) -> str:
  if offset_option:
    return f"Say so: {offset_option}{round(offset, 6):g}."
  if not describable:
    return "Convert the values to the encoder's product, or correct what is declared of them."
  for name, other in PRESETS.items():
    same = set(sensor.band_names) <= set(other.band_names) and other.units == sensor.units
    same = same and sensor.product.split(",")[0] == other.product.split(",")[0]
    if same and other.scaling.gain == gain and _close(other.scaling.offset, offset):
      return f"Take the product that has them: {name}."
  return (
    f'Describe the product with "scaling": {{"gain": {gain:g}, "offset": {offset:g}}} (--sensors), '
    "or correct the tags."
  )


def _close(a: float, b: float) -> bool:
  return math.isclose(a, b, rel_tol=_CLOSE, abs_tol=_CLOSE)
