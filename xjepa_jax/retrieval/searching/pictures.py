"""Pictures of an archive's tiles, read again from where they came from."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from xjepa_jax.data.pictures import picture
from xjepa_jax.errors import ChangedError, EmbeddingError, XJepaError
from xjepa_jax.retrieval.embedding.files import EmbeddingFiles
from xjepa_jax.retrieval.embedding.tile_images import TileImages
from xjepa_jax.sensors import Sensor

_GREY, _LINE = 190, 150


class TilePictures:
  """Tiles as their sensors are shown; safe to use from several threads, of which one reads.

  Args:
    files: of the archive.
    sensors: key -> description, as the encoder has them.
  """

  def __init__(self, files: EmbeddingFiles, sensors: Mapping[str, Sensor]):
    self._files = files
    self._sensors = sensors
    self._lock = threading.Lock()

  def values(self, row: int) -> np.ndarray:
    """(H, W, C) of a row's tile, as the encoder's sensor stores them.

    Raises:
      ChangedError: its image is another one than its vector was made of.
      XJepaError: its source is gone, or cannot be read.
    """
    with self._lock:
      (entry,) = self._files.take([row])
      return self._images.read(entry)

  def _entry(self, row: int) -> dict[str, Any]:
    with self._lock:
      (entry,) = self._files.take([row])
    return entry

  def picture(self, row: int) -> np.ndarray:
    """(H, W, 3) uint8; crossed out in grey where the source cannot be read any more.

    Raises:
      ChangedError: its image is another one than its vector was made of.
    """
    try:
      return self.found(row)
    except ChangedError:
      raise
    except XJepaError:
      return self.crossed_out(row)

  def found(self, row: int) -> np.ndarray:
    """(H, W, 3) uint8; errors as of `values`."""
    values = self.values(row)
    return picture(self._sensors[self._entry(row)["sensor"]], values)

  def crossed_out(self, row: int) -> np.ndarray:
    """(H, W, 3) uint8, grey and crossed out, of the tile's size: there is no picture of it."""
    return _crossed_out(self._entry(row))

  @functools.cached_property
  def _images(self) -> TileImages:
    try:
      return TileImages(self._files.description, self._sensors)
    except (KeyError, OSError) as error:
      raise EmbeddingError(f"{self._files.directory}: its archive is gone ({error}).") from error

  def close(self) -> None:
    """Closes the archive's files."""
    if "_images" in self.__dict__:
      self._images.close()


def _crossed_out(entry: Mapping[str, Any]) -> np.ndarray:
  window = entry["window"] or {"height": 64, "width": 64}
  height, width = max(window["height"], 2), max(window["width"], 2)
  tile = np.full((height, width, 3), _GREY, np.uint8)
  rows = np.arange(height)
  columns = rows * (width - 1) // (height - 1)
  tile[rows, columns] = _LINE
  tile[rows, width - 1 - columns] = _LINE
  return tile
