"""What an archive provides to embedding: its images, and a reader for windows of them.

These types are the interface between the kinds of archives and everything after them.
"""

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
  """Location of one band: a path as the archive writes it, and a band number counted from 1."""

  path: str
  band: int


@dataclasses.dataclass(frozen=True)
class Item:
  """One image of an archive, of one sensor.

  Attributes:
    id: unique among the images of its sensor.
    sensor: key of the sensor, as the encoder has it.
    source: origin that the row states, and by which `read` finds the image.
    height, width: size in pixels.
    crs, transform: grid of the image, as in `Raster`.
    longitude, latitude: centre of an image without a transform; otherwise NaN.
    time: acquisition time, ISO 8601, or "".
    labels: label names.
    nbytes: size of the image's files.
    digest: digest of the image's bytes, which detects a replaced image; "" if unknown.
    files: one per band, in the sensor's order; empty if the image is a record of a shard.
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
    """Whether windows of the image have coordinates."""
    return bool(self.crs) and not math.isnan(self.transform[0])


@dataclasses.dataclass(frozen=True)
class LeftOut:
  """An image or a tile without a row, and the reason; one line of `skipped.csv`."""

  id: str
  sensor: str
  source: str
  reason: str


class Reader(Protocol):
  """Reads windows of images. Each thread has its own reader."""

  def read(self, item: Item, window: Window) -> tuple[np.ndarray, float]:
    """(h, w, C) values as the encoder's sensor stores them, and the fraction of valid pixels.

    Raises:
      DataError: the window cannot be read, or does not fit the sensor.
    """

  def close(self) -> None:
    """Closes all files."""


@dataclasses.dataclass(frozen=True)
class Collected:
  """The contents of an archive.

  Attributes:
    kind: "pairs", "images" or "stac".
    path: absolute path of the archive.
    items: its images.
    left_out: images that listing left out.
    reader: creates a reader.
    tiled: whether images larger than the encoder's are cut into tiles, rather than cropped to one
      tile in the middle.
    settings: the options that the rows depend on.
    notes: lines to show the user.
  """

  kind: str
  path: str
  items: Sequence[Item]
  left_out: Sequence[LeftOut]
  reader: Callable[[], Reader]
  tiled: bool
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  notes: Sequence[str] = ()
