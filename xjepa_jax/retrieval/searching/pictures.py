"""Pictures of an archive's tiles, read again from the original images.

An image may have been replaced since it was embedded. That is an error and is never drawn, because
the picture would not be what the vector was computed from. An image that no longer exists is drawn
as a crossed-out tile.
"""

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

_GREY, _LINE = 190, 150  # grey levels of a crossed-out tile and of its lines


class TilePictures:
  """Tiles in their sensors' display colours. Safe to use from several threads; one reads at a time.

  Args:
    files: the archive's embeddings.
    sensors: key -> description, as in the encoder.
  """

  def __init__(self, files: EmbeddingFiles, sensors: Mapping[str, Sensor]):
    self._files = files
    self._sensors = sensors
    self._lock = threading.Lock()

  def values(self, row: int) -> np.ndarray:
    """Return (H, W, C) values of a row's tile, as the encoder's sensor stores them.

    Raises:
      ChangedError: its image is not the one that its vector was computed from.
      XJepaError: its source no longer exists, or cannot be read.
    """
    with self._lock:
      (entry,) = self._files.take([row])
      return self._images.read(entry)

  def _entry(self, row: int) -> dict[str, Any]:
    with self._lock:
      (entry,) = self._files.take([row])
    return entry

  def picture(self, row: int) -> np.ndarray:
    """Return (H, W, 3) uint8; crossed out in grey where the source can no longer be read.

    Raises:
      ChangedError: its image is not the one that its vector was computed from.
    """
    try:
      return self.found(row)
    except ChangedError:
      raise
    except XJepaError:
      return self.crossed_out(row)

  def found(self, row: int) -> np.ndarray:
    """Return (H, W, 3) uint8; for errors see `values`."""
    values = self.values(row)
    return picture(self._sensors[self._entry(row)["sensor"]], values)

  def crossed_out(self, row: int) -> np.ndarray:
    """Return (H, W, 3) uint8, grey and crossed out, of the tile's size: it has no picture."""
    return _crossed_out(self._entry(row))

  @functools.cached_property
  def _images(self) -> TileImages:
    try:
      return TileImages(self._files.description, self._sensors)
    except (KeyError, OSError) as error:
      raise EmbeddingError(f"{self._files.directory}: its archive is gone ({error}).") from error

  def close(self) -> None:
    """Close the archive's files."""
    if "_images" in self.__dict__:  # the cached property was used, so there are open files
      self._images.close()


def _crossed_out(entry: Mapping[str, Any]) -> np.ndarray:
  window = entry["window"] or {"height": 64, "width": 64}
  # At least 2 pixels, because the diagonals divide by height - 1.
  height, width = max(window["height"], 2), max(window["width"], 2)
  tile = np.full((height, width, 3), _GREY, np.uint8)
  rows = np.arange(height)
  columns = rows * (width - 1) // (height - 1)
  tile[rows, columns] = _LINE
  tile[rows, width - 1 - columns] = _LINE
  return tile
