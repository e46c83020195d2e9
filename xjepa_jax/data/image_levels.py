"""Brightness of each image relative to the others of its archive: finds mixed scales and offsets.

Two processings of one scene differ by the same factor or offset in all bands. The ground makes
other differences: water is dark in the infrared but hardly in blue, a desert is bright. A factor is
therefore judged over all bands, and what the values cannot settle is a remark, not a refusal.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from xjepa_jax.sensors import Sensor, possible_range, reflectance_factor

OFFSET = 1000  # added to reflectance x 1e4 by Sentinel-2's processing baseline 04.00
# Range of the darkest values (water, shadow, dense vegetation) in images that carry the offset.
# Values above may be bright ground without it; values below cannot carry it.
DARK_WITH_OFFSET = (950, 1250)
_WITHOUT_OFFSET = 700
# Reflectance, and share of pixels below it that shows a missing offset. Atmospheric correction and
# shadow make fewer pixels that negative.
_NEGATIVE, _NEGATIVE_SHARE = -0.05, 0.2
_PIXELS = 4096  # sample of an image's pixels for its percentiles
# An image this many times darker than most, in every band, is on another scale: 8-bit levels are 10
# to 40 times too low, ordinary dark scenes 3 to 5 times, and only in some bands.
_FACTOR = 8.0
# The range of values must be narrower by this factor as well. It is less than _FACTOR because a
# cloud or a shore widens the range even on a lower scale.
_NARROW = 5.0
_EVEN = 8.0  # largest ratio of that factor between bands; a lake beside snow exceeds it
_USUAL = 0.75  # quantile over images: if two scales are mixed, the larger one is the right one
_NAMED = 3  # images named in a remark


@dataclasses.dataclass(frozen=True, eq=False)
class Levels:
  """Brightness of an image, one number per band in the sensor's units; NaN for bands without data.

  Attributes:
    low: (C,) 1st percentile.
    size: (C,) magnitude of the median.
    spread: (C,) difference between the 99th and the 1st percentile.
  """

  low: np.ndarray
  size: np.ndarray
  spread: np.ndarray

  @classmethod
  def of(cls, sensor: Sensor, stored: np.ndarray, known: np.ndarray) -> Levels:
    """Levels of stored values (H, W, C); `known`, of the same shape, marks those that count."""
    bands = stored.shape[-1]
    step = max(stored[..., 0].size // _PIXELS, 1)
    values = sensor.calibrate(stored.reshape(-1, bands)[::step]).astype(np.float64)
    seen = known.reshape(-1, bands)[::step]
    found = np.full((3, bands), np.nan)
    for band in range(bands):
      column = values[seen[:, band], band]
      if len(column):
        found[:, band] = np.percentile(column, (1, 50, 99))
    return cls(found[0], np.abs(found[1]), found[2] - found[0])


def usual_levels(images: Sequence[Levels]) -> Levels:
  """Levels of most images of an archive."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # a band without data in any image is NaN
    return Levels(
      *(
        np.nanquantile(np.stack([getattr(each, name) for each in images]), _USUAL, axis=0)
        for name in ("low", "size", "spread")
      )
    )


def off_scale(sensor: Sensor, levels: Levels, usual: Levels) -> list[str]:
  """Detect an image an order of magnitude below the others of its archive, in every band.

  Args:
    sensor: the description; a sensor in units without a known scale is not judged.
    levels: levels of the image.
    usual: levels of most of the archive's images.

  Returns:
    One sentence, or none.
  """
  if possible_range(sensor) is None:
    return []
  both = np.isfinite(levels.size) & np.isfinite(usual.size) & (usual.size > 0) & (usual.spread > 0)
  if not both.any():
    return []
  ratio = levels.size[both] / usual.size[both]
  narrower = levels.spread[both] / usual.spread[both]
  if ratio.max() >= 1 / _FACTOR or narrower.max() >= 1 / _NARROW:
    return []
  if ratio.max() > _EVEN * ratio.min():
    return []
  return [
    f"its values are {1 / np.median(ratio):.3g} times as small as those of most images, in every "
    f"band: another scale than {sensor.units}. Bring it to that scale."
  ]


def all_off_scale(sensor: Sensor, images: Mapping[str, Levels]) -> dict[str, list[str]]:
  """Findings on the images that are off the scale of most, by image id; see `off_scale`."""
  usual = usual_levels(list(images.values())) if images else None
  return {
    name: found
    for name, levels in images.items()
    if usual is not None and (found := off_scale(sensor, levels, usual))
  }


def is_sentinel2(sensor: Sensor) -> bool:
  """Whether stored values are reflectance x 1e4, to which baseline 04.00 adds 1000."""
  factor = reflectance_factor(sensor)
  return factor is not None and math.isclose(factor, 1e4 * sensor.scaling.gain)


def lacks_offset(sensor: Sensor, stored: np.ndarray, known: np.ndarray) -> list[str]:
  """Detect an image without the +1000 that its sensor's offset subtracts, by negative values."""
  if not is_sentinel2(sensor) or sensor.scaling.offset != -OFFSET:
    return []
  bound = _NEGATIVE * (reflectance_factor(sensor) or 1)
  negative = known & (sensor.calibrate(stored) < bound)
  share = float(negative.any(axis=-1).sum()) / max(float(known.any(axis=-1).sum()), 1)
  if share <= _NEGATIVE_SHARE:
    return []
  return [
    f"{share:.0%} of its pixels have a reflectance below {_NEGATIVE:g}: it does not carry the "
    f"+{OFFSET} that the sensor's offset of -{OFFSET} takes away."
  ]


def mixed_offsets(sensor: Sensor, images: Mapping[str, Levels]) -> list[str]:
  """Detect signs of images with and without +1000 in one archive; the values cannot prove it.

  Args:
    sensor: the description.
    images: image id -> levels.

  Returns:
    A remark that counts and names the images that seem to have it, or none.
  """
  having = carrying_offset(sensor, images)
  if not having or not any(low < _WITHOUT_OFFSET for low in _darkest(sensor, images).values()):
    return []
  named = ", ".join(having[:_NAMED])
  return [
    f"nothing in {len(having):,} of {len(images):,} images is darker than about {OFFSET} in any "
    f"band, among them {named}, and others are: these may carry the +{OFFSET} of processing "
    f"baseline 04.00, or show bright ground; values do not tell which. Do not mix the two: see "
    "what the product's metadata says."
  ]


def carrying_offset(sensor: Sensor, images: Mapping[str, Levels]) -> list[str]:
  """Ids of images whose darkest band is as dark as water, shadow and forest are with +1000.

  Empty if the sensor is not Sentinel-2, or has the offset that subtracts the 1000.
  """
  if not is_sentinel2(sensor) or sensor.scaling.offset != 0:
    return []
  low, high = DARK_WITH_OFFSET
  return [name for name, dark in _darkest(sensor, images).items() if low <= dark <= high]


def _darkest(sensor: Sensor, images: Mapping[str, Levels]) -> dict[str, float]:
  """The 1st percentile of each image's darkest band, in stored values."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # an image without any data is NaN
    return {name: float(np.nanmin(each.low)) / sensor.scaling.gain for name, each in images.items()}
