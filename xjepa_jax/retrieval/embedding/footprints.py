"""Outlines of tiles in EPSG:4326, as polygons that every reader of planar geometry understands.

An outline has the tile's four corners, or sixteen points per edge where an edge bends by more than
half a pixel. One that crosses the antimeridian is cut there and becomes a multipolygon (RFC 7946,
3.1.9), so its bounding box spans -180 to 180. One around a pole is closed along the pole's
latitude, from -180 to 180.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from xjepa_jax.data.geography import degrees_of, map_points, numbered, wrapped
from xjepa_jax.retrieval.embedding import wkb

_BENT = 0.5  # pixels between an edge's midpoint and the straight line through its ends
_POINTS = 16  # points per bent edge
_CORNERS = np.array([(0, 0), (0, 1), (1, 1), (1, 0)], np.float64)  # counterclockwise, y upwards


def footprints(
  systems: Sequence[str], transforms: np.ndarray, windows: np.ndarray
) -> tuple[pa.Array, np.ndarray]:
  """Outlines of n tiles.

  Args:
    systems: coordinate reference system of each tile, "" if it has none.
    transforms: (n, 6) geotransforms of the images.
    windows: (n, 4) column, row, width, height.

  Returns:
    (n,) binary, WKB, and (n, 4) float64: west, south, east, north. Null and NaN for a tile without
    coordinates.
  """
  count = len(windows)
  if not count:
    return pa.array([], pa.binary()), np.zeros((0, 4))
  names, number = numbered(systems)
  ends = _rings(names, number, transforms, windows, 1)
  middles = _rings(names, number, transforms, windows, 2)[:, 1::2]
  straight = ~_bent(ends, middles, windows)
  plain = straight & _simple(ends)
  closed = _counterclockwise(np.concatenate([ends, ends[:, :1]], axis=1))
  boxes = np.concatenate([closed.min(axis=1), closed.max(axis=1)], axis=1)
  known = np.isfinite(closed).all(axis=(1, 2))
  if (plain | ~known).all():
    return wkb.polygons(closed), boxes
  written = wkb.polygons(closed).to_pylist()
  for row in np.flatnonzero(~plain & known):
    ring = ends[row]
    if not straight[row]:
      one = slice(row, row + 1)
      dense = _rings(names, number[one], transforms[one], windows[one], _POINTS)[0]
      # Points along the edges may lie outside the projection; then the corners have to do.
      ring = dense if np.isfinite(dense).all() else ring
    parts = cut(ring)
    written[row] = wkb.polygon(parts)
    points = np.concatenate(parts)
    boxes[row] = *points.min(axis=0), *points.max(axis=0)
  return pa.array(written, pa.binary()), boxes


def cut(ring: np.ndarray) -> list[np.ndarray]:
  """Splits an outline at the antimeridian into parts between -180 and 180 degrees.

  Args:
    ring: (P, 2) longitude and latitude, not closed; neighbours are less than 180 degrees apart.

  Returns:
    Closed counterclockwise rings, (Q, 2) each.
  """
  steps = wrapped(np.diff(ring[:, 0], append=ring[0, 0]))
  if abs(steps.sum()) > 180:  # it winds around a pole
    return [_closed(_to_pole(ring))]
  # Unwrapped, so that neighbouring points differ by less than 180 degrees.
  longitude = wrapped(ring[:1, 0]) + np.concatenate([[0.0], np.cumsum(steps[:-1])])
  outline = np.stack([longitude, ring[:, 1]], axis=1)
  parts = []
  first, last = np.floor((outline[:, 0].min() + 180) / 360), (outline[:, 0].max() + 180) / 360
  # One part for each turn around the globe, shifted back to -180..180.
  for turn in np.arange(first, last):
    part = _clip(outline - [360 * turn, 0], -180.0, 180.0)
    if len(part) > 2 and abs(_area(part)) > 0:
      parts.append(_closed(part))
  return parts


def _to_pole(ring: np.ndarray) -> np.ndarray:
  """The area between an outline around a pole and the pole's latitude, from -180 to 180.

  Seen from the enclosed pole, a tile's outline has exactly one point in every direction, so sorting
  the points by longitude gives a valid ring.
  """
  pole = 90.0 if ring[:, 1].mean() > 0 else -90.0
  points = np.stack([wrapped(ring[:, 0]), ring[:, 1]], axis=1)
  points = points[np.argsort(points[:, 0], kind="stable")]
  gap = points[0, 0] + 360 - points[-1, 0]
  share = (180 - points[-1, 0]) / gap if gap else 0.0
  edge = points[-1, 1] + share * (points[0, 1] - points[-1, 1])
  ends = [[180.0, edge], [180.0, pole], [-180.0, pole], [-180.0, edge]]
  return np.concatenate([points, ends])


def _clip(outline: np.ndarray, west: float, east: float) -> np.ndarray:
  """The part of a polygon between two meridians (Sutherland and Hodgman, 1974)."""
  for limit, sign in ((west, 1.0), (east, -1.0)):
    kept = []
    for a, b in zip(outline, np.roll(outline, -1, axis=0), strict=True):
      inside_a, inside_b = sign * (a[0] - limit) >= 0, sign * (b[0] - limit) >= 0
      if inside_a:
        kept.append(a)
      if inside_a != inside_b:
        share = (limit - a[0]) / (b[0] - a[0])
        kept.append(np.array([limit, a[1] + share * (b[1] - a[1])]))
    outline = np.array(kept).reshape(-1, 2)
  return outline


def _closed(ring: np.ndarray) -> np.ndarray:
  ring = ring[np.any(ring != np.roll(ring, 1, axis=0), axis=1)]  # drop repeated points
  ring = ring if _area(ring) > 0 else ring[::-1]
  return np.concatenate([ring, ring[:1]])


def _area(ring: np.ndarray) -> float:
  # Shoelace formula, positive for a counterclockwise ring.
  x, y = ring.T
  return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def _counterclockwise(closed: np.ndarray) -> np.ndarray:
  """Closed rings (n, P, 2), reversed where they run clockwise, as on a grid with y upwards."""
  x, y = closed[..., 0], closed[..., 1]
  area = (x[:, :-1] * y[:, 1:] - x[:, 1:] * y[:, :-1]).sum(axis=1)
  return np.where((area < 0)[:, None, None], closed[:, ::-1], closed)


def _rings(
  systems: Sequence[str],
  number: np.ndarray,
  transforms: np.ndarray,
  windows: np.ndarray,
  points: int,
) -> np.ndarray:
  """(n, 4 * points, 2) longitude and latitude along the edges of n windows."""
  share = np.arange(points)[:, None] / points
  following = np.roll(_CORNERS, -1, axis=0)
  along = [a + share * (b - a) for a, b in zip(_CORNERS, following, strict=True)]
  unit = np.concatenate(along)
  columns = windows[:, :1] + unit[:, 0] * windows[:, 2:3]
  rows = windows[:, 1:2] + unit[:, 1] * windows[:, 3:4]
  return np.stack(degrees_of(systems, number, *map_points(transforms, columns, rows)), axis=-1)


def _simple(ends: np.ndarray) -> np.ndarray:
  """(n,) bool: outlines within -180 to 180 that do not cross the antimeridian."""
  longitude = ends[..., 0]
  with np.errstate(invalid="ignore"):
    return (np.abs(longitude).max(axis=1) <= 180) & (np.ptp(longitude, axis=1) < 180)


def _bent(ends: np.ndarray, middles: np.ndarray, windows: np.ndarray) -> np.ndarray:
  """(n,) bool: outlines with an edge more than half a pixel from a straight line in degrees."""
  edges = np.roll(ends, -1, axis=1) - ends
  off = middles - ends
  narrow = np.cos(np.radians(ends[..., 1]))  # length of a degree of longitude, in latitude degrees
  edges[..., 0], off[..., 0] = wrapped(edges[..., 0]) * narrow, wrapped(off[..., 0]) * narrow
  pixel = np.linalg.norm(edges, axis=-1) / np.maximum(windows[:, [3, 2, 3, 2]], 1)
  with np.errstate(invalid="ignore"):
    off = np.linalg.norm(off - edges / 2, axis=-1)
    return (off > _BENT * pixel.min(axis=1, keepdims=True)).any(axis=1)
