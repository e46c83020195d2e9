"""Places and times assigned to simulated scenes.

They lie around 0 N, 0 E, at sea, where nobody would take them for observations, and in 2025. Their
seasons are nevertheless those of the northern hemisphere.
"""

from __future__ import annotations

import datetime
import math

CRS = "EPSG:4326"
_METRES = 111_320.0  # per degree at the equator
_PIXEL = 10.0  # metres
_APART = 1.25  # distance between the corners of neighbouring scenes, in sides of a scene
_SIDE = 1000  # scenes along a side of the square that they fill; later ones start over
_START = datetime.datetime(2025, 1, 1, 10, 0, tzinfo=datetime.UTC)
_DAYS = 365


def transform(index: int, size: int) -> tuple[float, ...]:
  """(a, b, c, d, e, f) from pixels to degrees for scene `index`, `size` pixels wide.

  Scenes fill a square from its north-western corner, shell by shell, so that the scenes of a data
  set of any size lie close together.
  """
  shell = math.isqrt(index)
  inner = index - shell**2
  column, row = (shell, inner) if inner <= shell else (2 * shell - inner, shell)
  degrees = _PIXEL / _METRES
  pitch = size * degrees * _APART
  return (degrees, 0.0, column % _SIDE * pitch, 0.0, -degrees, -(row % _SIDE) * pitch)


def centre(index: int, size: int) -> tuple[float, float]:
  """Longitude and latitude of a scene's centre in degrees."""
  degrees, _, west, _, _, north = transform(index, size)
  return west + degrees * size / 2, north - degrees * size / 2


def day_of_year(index: int) -> int:
  """Days after 1 January on which a scene is acquired."""
  # 37 and 365 are coprime, so that neighbours differ and every day occurs.
  return index * 37 % _DAYS


def acquired(index: int, hours: int = 0) -> str:
  """Acquisition time of a scene, ISO 8601; a second sensor passes `hours` later."""
  return (_START + datetime.timedelta(days=day_of_year(index), hours=hours)).isoformat()
