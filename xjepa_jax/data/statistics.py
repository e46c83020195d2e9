"""Statistics of a sensor's stored values over many pairs, per band.

Moments are kept as sums. Percentiles come from a histogram of 65,536 bins: one per value for types
of up to 16 bits, and otherwise the upper 16 bits of the float32, with bins at most 0.8 % of a value
wide. Both merge exactly, so the result does not depend on how the pairs were divided over workers.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from xjepa_jax.sensors import Sensor

PERCENTILES = (1, 2, 5, 50, 95, 98, 99)
_BINS = 1 << 16
_ARRAYS = ("counted", "total", "squares", "lowest", "highest", "histogram")


@dataclasses.dataclass
class SensorStatistics:
  """Running statistics of one sensor's valid pixels.

  Attributes:
    dtype: type of the stored values.
    images, pixels, valid: numbers of images, of pixels, and of pixels with data in any band.
    counted: (C,) int64, number of valid values in each band.
    total, squares: (C,) float64, sums of stored values and of their squares.
    lowest, highest: (C,) float64, extremes of the stored values.
    histogram: (C, 65536) int64.
  """

  dtype: np.dtype
  images: int
  pixels: int
  valid: int
  counted: np.ndarray
  total: np.ndarray
  squares: np.ndarray
  lowest: np.ndarray
  highest: np.ndarray
  histogram: np.ndarray

  @classmethod
  def of(cls, sensor: Sensor) -> SensorStatistics:
    """Empty statistics for a sensor."""
    count = len(sensor.bands)
    return cls(
      dtype=np.dtype(sensor.dtype),
      images=0,
      pixels=0,
      valid=0,
      counted=np.zeros(count, np.int64),
      total=np.zeros(count),
      squares=np.zeros(count),
      lowest=np.full(count, np.inf),
      highest=np.full(count, -np.inf),
      histogram=np.zeros((count, _BINS), np.int64),
    )

  def add(self, sensor: Sensor, values: np.ndarray) -> None:
    """Count one image of stored values (H, W, C)."""
    known = sensor.known(values)
    self.images += 1
    self.pixels += known[..., 0].size
    self.valid += int(np.count_nonzero(known.any(axis=-1)))
    for band in range(values.shape[-1]):
      column = np.ascontiguousarray(values[..., band][known[..., band]])
      if not len(column):
        continue
      self.counted[band] += len(column)
      exact = column.astype(np.float64)
      self.total[band] += exact.sum()
      # Not np.dot, which would start a thread per core and rounds differently.
      self.squares[band] += np.square(exact).sum()
      self.lowest[band] = min(self.lowest[band], exact.min())
      self.highest[band] = max(self.highest[band], exact.max())
      counts = np.bincount(_bins(column))  # ends at the highest bin in use; most are empty
      self.histogram[band, : len(counts)] += counts

  def merge(self, other: SensorStatistics) -> None:
    """Add the counts of other statistics."""
    self.images += other.images
    self.pixels += other.pixels
    self.valid += other.valid
    self.counted = self.counted + other.counted
    self.total += other.total
    self.squares += other.squares
    self.lowest = np.minimum(self.lowest, other.lowest)
    self.highest = np.maximum(self.highest, other.highest)
    self.histogram += other.histogram

  def mean(self) -> np.ndarray:
    return self.total / np.maximum(self.counted, 1)

  def std(self) -> np.ndarray:
    squares = self.squares / np.maximum(self.counted, 1)
    return np.sqrt(np.maximum(squares - self.mean() ** 2, 0))

  def percentile(self, q: float) -> np.ndarray:
    """(C,) float64, q-th percentile of stored values, interpolated in its bin; 0 without data."""
    edges = _edges(self.dtype)
    result = np.zeros(len(self.histogram))
    for band, histogram in enumerate(self.histogram):
      if not self.counted[band]:
        continue
      cumulative = np.cumsum(histogram)
      rank = np.floor(q / 100 * max(cumulative[-1] - 1, 0))
      place = int(np.searchsorted(cumulative, rank, side="right"))
      before = cumulative[place] - histogram[place]
      # Interpolate as if the values were spread evenly over their bin.
      inside = (rank - before + 0.5) / max(histogram[place], 1)
      value = edges[place] + inside * (edges[place + 1] - edges[place])
      if self.dtype.kind in "iu":
        value = np.floor(value)
      result[band] = np.clip(value, self.lowest[band], self.highest[band])
    return result

  def to_json(self, sensor: Sensor) -> dict[str, Any]:
    """Contents for `sensors.json` in stored values: counts, and numbers of each band with data."""
    if not self.valid:
      return {"images": self.images, "valid_fraction": 0.0, "bands": {}}
    columns = {
      "mean": self.mean(),
      "std": self.std(),
      "min": self.lowest,
      "max": self.highest,
      **{f"p{q:02d}": self.percentile(q) for q in PERCENTILES},
    }
    return {
      "images": self.images,
      "valid_fraction": self.valid / self.pixels,
      "bands": {
        name: {key: float(values[band]) for key, values in columns.items()}
        for band, name in enumerate(sensor.band_names)
        if self.counted[band]
      },
    }

  def arrays(self) -> dict[str, np.ndarray]:
    """All counts as arrays for `numpy.savez`; see `load`."""
    counts = np.array([self.images, self.pixels, self.valid], np.int64)
    return {"counts": counts, **{name: getattr(self, name) for name in _ARRAYS}}

  def load(self, arrays: Any) -> SensorStatistics:
    """Replace the counts by those that `arrays` returned."""
    self.images, self.pixels, self.valid = (int(count) for count in arrays["counts"])
    for name in _ARRAYS:
      setattr(self, name, arrays[name])
    return self


def with_statistics(sensor: Sensor, statistics: SensorStatistics) -> Sensor:
  """The sensor with its scaling's mean, std, low and high (2nd, 98th percentile) as counted.

  A band that never varies gets a standard deviation of 1. Values are calibrated first and not
  clipped, so `Scaling` has them in the sensor's units.
  """
  if not statistics.valid:
    return sensor
  scaling = sensor.scaling

  def calibrated(values: np.ndarray) -> np.ndarray:
    return (values + scaling.offset) * scaling.gain

  std = statistics.std() * abs(scaling.gain)
  ends = [calibrated(statistics.percentile(q)) for q in (2, 98)]
  low, high = np.minimum(*ends), np.maximum(*ends)  # a negative gain swaps them
  return dataclasses.replace(
    sensor,
    scaling=dataclasses.replace(
      scaling,
      mean=_numbers(calibrated(statistics.mean())),
      std=_numbers(np.where(std > 0, std, 1.0)),
      low=_numbers(low),
      high=_numbers(np.where(high > low, high, low + 1)),
    ),
  )


def _numbers(values: np.ndarray) -> tuple[float, ...]:
  return tuple(round(float(value), 6) for value in values)


def _bins(column: np.ndarray) -> np.ndarray:
  """(n,) bin of each value; bins are in the order of the values."""
  if column.dtype.kind in "iu" and column.dtype.itemsize <= 2:
    return column.astype(np.int32) - np.iinfo(column.dtype).min
  bits = column.astype(np.float32).view(np.uint32)
  # Flip all bits of negative floats and the sign bit of the others, so that the bit patterns sort
  # as the values do.
  ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
  return (ordered >> 16).astype(np.int32)


def _edges(dtype: np.dtype) -> np.ndarray:
  """(65537,) float64, the lower edge of each bin, and the upper edge of the last."""
  if dtype.kind in "iu" and dtype.itemsize <= 2:
    return np.arange(_BINS + 1, dtype=np.float64) + np.iinfo(dtype).min
  ordered = np.arange(_BINS, dtype=np.uint32) << 16
  bits = np.where(ordered >> 31, ordered & np.uint32(0x7FFFFFFF), ~ordered)
  # The bins of infinities and NaNs are empty, because only valid pixels are counted.
  with np.errstate(invalid="ignore"):
    values = bits.view(np.float32).astype(np.float64)
  values = np.nan_to_num(values, nan=0.0, posinf=3.4e38, neginf=-3.4e38)
  return np.append(values, values[-1])
