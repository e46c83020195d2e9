"""How bright each image of an archive is, beside the others: scales and offsets that are mixed.

Two processings of one scene differ by a factor or by an offset in all bands alike. What is on the
ground makes other differences: water is dark in the infrared and hardly so in blue, a desert is
bright. So a factor is judged over all bands, and what values cannot tell is remarked, not refused.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from xjepa_jax.sensors import Sensor, possible_range, reflectance_factor

OFFSET = 1000  # what Sentinel-2's processing baseline 04.00 adds to reflectance x 1e4
# Lowest values that water, shadow and dense vegetation have with it. Brighter ground may be so
# without it, and what lies below does not have it.
DARK_WITH_OFFSET = (950, 1250)
_WITHOUT_OFFSET = 700
_NEGATIVE, _NEGATIVE_SHARE = -0.05, 0.2  # reflectance, and pixels; correction and shadow give less
_PIXELS = 4096  # of an image, whose percentiles are taken
_FACTOR = 8.0  # levels of 8 bits are 10 to 40 times too low; ordinary scenes 3 to 5, in some bands
_NARROW = 5.0  # a cloud or a shore widens the range of some images that are on a lower scale, too
_EVEN = 8.0  # how much that factor may differ between bands: a lake beside snow differs by more
_USUAL = 0.75  # quantile of images: of two scales that are mixed, the larger one is the right one
_NAMED = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Levels:
  """What an image's values are like, one number a band in the sensor's units; NaN where unseen.

  Attributes:
    low: (C,) 1st percentile.
    size: (C,) magnitude of the median.
    spread: (C,) from the 1st to the 99th percentile.
  """

  low: np.ndarray
  size: np.ndarray
  spread: np.ndarray

  @classmethod
  def of(cls, sensor: Sensor, stored: np.ndarray, known: np.ndarray) -> Levels:
    """Of (H, W, C) values as stored, of which `known`, alike in shape, were seen."""
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
  """What most images of an archive are like."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # a band that no image shows is NaN
    return Levels(
      *(
        np.nanquantile(np.stack([getattr(each, name) for each in images]), _USUAL, axis=0)
        for name in ("low", "size", "spread")
      )
    )


def off_scale(sensor: Sensor, levels: Levels, usual: Levels) -> list[str]:
  """Whether an image is an order of magnitude below the others of its archive, in every band.

  Args:
    sensor: the description; of units whose scale is not known nothing is judged.
    levels: of the image.
    usual: of the archive's images.

  Returns:
    A sentence, or none.
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
  """Those of an archive's images, by id, that are off the scale of most, see `off_scale`."""
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
  """Whether an image lacks the +1000 that its sensor's offset takes away: it is negative then."""
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
  """What speaks for images with and without +1000 in one archive; values cannot decide it.

  Args:
    sensor: the description.
    images: by id.

  Returns:
    A remark that counts and names those that seem to have it, or none.
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
  """Ids of the images whose darkest band is as dark as water, shadow and forest are with +1000.

  None where the sensor is not Sentinel-2, or has the offset that takes it away.
  """
  if not is_sentinel2(sensor) or sensor.scaling.offset != 0:
    return []
  low, high = DARK_WITH_OFFSET
  return [name for name, dark in _darkest(sensor, images).items() if low <= dark <= high]


def _darkest(sensor: Sensor, images: Mapping[str, Levels]) -> dict[str, float]:
  """The first percentile of the darkest band of each image, as stored."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # an image in which nothing was seen
    return {name: float(np.nanmin(each.low)) / sensor.scaling.gain for name, each in images.items()}
