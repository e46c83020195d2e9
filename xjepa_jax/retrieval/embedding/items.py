"""What an archive hands to embedding: its images, and a way to read a window of one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from xjepa_jax.data.pairs import NO_TRANSFORM


class Window(NamedTuple):
  """A rectangle of an image's pixels."""

  column: int
  row: int
  width: int
  height: int


class BandFile(NamedTuple):
  """Where one band of an image is: a path as the archive has it, and a band of it from 1."""

  path: str
  band: int


@dataclasses.dataclass(frozen=True)
class Item:
  """One image of an archive, of one sensor.

  Attributes:
    id: unique among the images of its sensor.
    sensor: key, as the encoder has it.
    source: what the row says of where it came from, and what `read` finds the image by.
    height, width: pixels.
    crs, transform: of the image's grid, as a `Raster` has them.
    longitude, latitude: of the centre where there is no transform; else NaN.
    time: of acquisition, ISO 8601, or "".
    labels: names.
    nbytes: of the image's files.
    digest: of the image's bytes: another one is another image. "" where it is not known.
    files: one a band of the sensor, in its order; none where an image is a record of a shard.
  """

  id: str
  sensor: str
  source: str
  height: int
  width: int
  crs: str = ""
  transform: tuple[float, ...] = NO_TRANSFORM
  longitude: float = math.nan
  latitude: float = math.nan
  time: str = ""
  labels: tuple[str, ...] = ()
  nbytes: int = 0
  digest: str = ""
  files: tuple[BandFile, ...] = ()

  @property
  def georeferenced(self) -> bool:
    """Whether a window of the image has a place."""
    return bool(self.crs) and not math.isnan(self.transform[0])


@dataclasses.dataclass(frozen=True)
class LeftOut:
  """An image or a tile that has no row, and why: a row of `skipped.csv`."""

  id: str
  sensor: str
  source: str
  reason: str


class Reader(Protocol):
  """Reads windows; one a thread."""

  def read(self, item: Item, window: Window) -> tuple[np.ndarray, float]:
    """(h, w, C) values as the encoder's sensor stores them, and the fraction that was seen.

    Raises:
      DataError: the window cannot be read, or does not fit the sensor.
    """

  def close(self) -> None:
    """Closes all files."""


@dataclasses.dataclass(frozen=True)
class Collected:
  """An archive, listed.

  Attributes:
    kind: "pairs", "images" or "stac".
    path: as it was named, absolute.
    items: its images.
    left_out: what listing left out.
    reader: makes a reader.
    tiled: whether images larger than the encoder's are cut into several tiles, or one taken from
      the middle.
    settings: what of the options the rows depend on.
    notes: lines for people.
  """

  kind: str
  path: str
  items: Sequence[Item]
  left_out: Sequence[LeftOut]
  reader: Callable[[], Reader]
  tiled: bool
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  notes: Sequence[str] = ()
