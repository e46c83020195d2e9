"""Encodes points and polygons as well-known binary (OGC 06-103r4, 8.2), little-endian.

Whole arrays are encoded at once.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

_POINT = np.dtype([("order", "u1"), ("kind", "<u4"), ("x", "<f8"), ("y", "<f8")])
_MULTIPOLYGON = 6


def points(x: np.ndarray, y: np.ndarray) -> pa.Array:
  """(n,) binary, points; null where a coordinate is not finite.

  Args:
    x, y: (n,) float64.
  """
  rows = np.zeros(len(x), _POINT)
  rows["order"], rows["kind"], rows["x"], rows["y"] = 1, 1, x, y
  return _equally_long(rows, np.isfinite(x) & np.isfinite(y))


def polygons(rings: np.ndarray) -> pa.Array:
  """(n,) binary, polygons of one ring each; null where a coordinate is not finite.

  Args:
    rings: (n, P, 2) float64, closed: the last point of each ring equals the first.
  """
  kind = np.dtype(
    [
      ("order", "u1"),
      ("kind", "<u4"),
      ("rings", "<u4"),
      ("points", "<u4"),
      ("xy", "<f8", rings.shape[1:]),
    ]
  )
  rows = np.zeros(len(rings), kind)
  rows["order"], rows["kind"], rows["rings"], rows["points"] = 1, 3, 1, rings.shape[1]
  rows["xy"] = rings
  return _equally_long(rows, np.isfinite(rings).all(axis=(1, 2)))


def polygon(parts: Sequence[np.ndarray]) -> bytes:
  """A polygon for one ring (P, 2), or a multipolygon for several."""
  written = [
    # Byte order 1 is little-endian, and type 3 a polygon, here with one ring.
    struct.pack("<BIII", 1, 3, 1, len(ring)) + np.ascontiguousarray(ring, "<f8").tobytes()
    for ring in parts
  ]
  if len(written) == 1:
    return written[0]
  return struct.pack("<BII", 1, _MULTIPOLYGON, len(written)) + b"".join(written)


def is_multipolygon(value: bytes) -> bool:
  """Whether a value written by this module is a multipolygon."""
  return value[1] == _MULTIPOLYGON


def _equally_long(rows: np.ndarray, valid: np.ndarray) -> pa.Array:
  """Structured rows as binary values, null where not valid."""
  # The Arrow buffers are made directly, without a Python object per value.
  size = rows.dtype.itemsize
  kept = rows[valid]
  ends = np.concatenate([[0], np.cumsum(np.where(valid, size, 0))]).astype(np.int32)
  bits = pa.array(valid).buffers()[1]
  return pa.Array.from_buffers(
    pa.binary(), len(rows), [bits, pa.py_buffer(ends), pa.py_buffer(kept.tobytes())]
  )
