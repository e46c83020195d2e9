"""Positions along a Hilbert curve, by which rows that are near each other are stored together.

A reader that wants a small area then needs only a few row groups of the Parquet files.
"""

from __future__ import annotations

import numpy as np

_BITS = 16  # bits per coordinate: a resolution of 0.0055 degrees of longitude


def hilbert(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
  """(n,) int64, position of each point along a Hilbert curve over the whole Earth.

  The curve is that of Hilbert, Ueber die stetige Abbildung einer Linie auf ein Flaechenstueck
  (1891), computed quadrant by quadrant from the largest to the smallest.

  Args:
    longitude, latitude: (n,) degrees; points that are not finite come after all others.
  """
  cells = 1 << _BITS
  known = np.isfinite(longitude) & np.isfinite(latitude)
  x = _cell((np.where(known, longitude, 0) + 180) / 360, cells)
  y = _cell((np.where(known, latitude, 0) + 90) / 180, cells)
  along = np.zeros(len(x), np.int64)
  side = cells >> 1
  while side:
    right, upper = (x & side) > 0, (y & side) > 0
    # The curve visits lower left, upper left, upper right and lower right in this order.
    along += side * side * ((3 * right) ^ upper)
    turned = ~upper
    # The curve is transposed in the lower quadrants, and in the right one mirrored as well.
    mirrored = turned & right
    x, y = np.where(mirrored, cells - 1 - x, x), np.where(mirrored, cells - 1 - y, y)
    x, y = np.where(turned, y, x), np.where(turned, x, y)
    side >>= 1
  return np.where(known, along, np.int64(cells) * cells)


def _cell(share: np.ndarray, cells: int) -> np.ndarray:
  return np.clip((share * cells).astype(np.int64), 0, cells - 1)
