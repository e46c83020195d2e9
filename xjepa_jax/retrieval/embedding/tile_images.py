"""Reads the images behind rows, for galleries and explanations.

An image that was replaced since its row was made is refused, since its vector would not belong to
the picture shown.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from xjepa_jax.data.description import SENSORS_FILE, describe
from xjepa_jax.data.unicode_names import shown
from xjepa_jax.errors import ChangedError, DataError, EmbeddingError
from xjepa_jax.retrieval.embedding.archive_paths import opener
from xjepa_jax.retrieval.embedding.conforming import Fit, of_dataset
from xjepa_jax.retrieval.embedding.description import EmbeddingDescription
from xjepa_jax.retrieval.embedding.digests import image_digest
from xjepa_jax.retrieval.embedding.items import Item, Reader, Window
from xjepa_jax.retrieval.embedding.pairs import PairReader, sensors_digest
from xjepa_jax.retrieval.embedding.windows import WindowReader, files_of, header_of
from xjepa_jax.sensors import Sensor


class TileImages:
  """Reads the tiles of a directory of embeddings; an instance belongs to one thread.

  Args:
    description: description of the directory.
    sensors: key -> description, as the encoder has it.

  Raises:
    DataError: the data set of pairs is gone.
    ChangedError: it has other sensors than the rows were made from.
    EmbeddingError: the rows do not come from files that this package reads.
  """

  def __init__(self, description: EmbeddingDescription, sensors: Mapping[str, Sensor]):
    source = description.source
    self._path = source.get("path", "")
    self._sensors = {key: sensors[key] for key in description.sensors if key in sensors}
    self._pairs = source.get("kind") == "pairs"
    self._widths: dict[str, int] = {}
    if self._pairs:
      theirs = describe(source["path"]).format.sensors
      fits = {key: of_dataset(key, each, theirs[key]) for key, each in self._sensors.items()}
      _check_sensors(source)
      pairs = PairReader(source["path"], fits)
      self._reader: Reader = pairs
      self._digest: Callable[[Item], str] = pairs.digest
    elif source.get("kind") in ("images", "stac"):
      self._locate = opener(source["path"], bool(source.get("allow_outside")))
      offsets = source.get("offset", {})
      self._digest = functools.partial(image_digest, locate=self._locate)
      self._reader = WindowReader(
        self._locate,
        {
          key: Fit(key, each, float(offsets.get(key, each.scaling.offset)))
          for key, each in self._sensors.items()
        },
        {key: _nodata(text) for key, text in source.get("nodata", {}).items()},
      )
    else:
      raise EmbeddingError(f"{source!r}: rows of such a source have no images to be shown.")

  def read(self, row: Mapping[str, Any]) -> np.ndarray:
    """(H, W, C) values of a row's tile, as the encoder's sensor stores them.

    Args:
      row: a row from `EmbeddingFiles.take`.

    Raises:
      EmbeddingError: the image is gone, or cannot be read.
      ChangedError: the image is not the one that the row was made from.
    """
    key = row["sensor"]
    if key not in self._sensors:
      raise EmbeddingError(f"sensor {key!r}: the encoder knows {', '.join(self._sensors)}.")
    where = row["window"]
    window = Window(where["column"], where["row"], where["width"], where["height"])
    try:
      # Rows written before digests were introduced are shown without this check.
      if row.get("source_digest", "") not in ("", self._digest(self._item(row, key))):
        raise ChangedError(
          f"row {row['id']!r}: its image, {shown(row['source'])} of {self._path}, is another one "
          "than its vector was made of. Put the image of then back, or embed the archive again."
        )
      return self._reader.read(self._item(row, key), window)[0]
    except (DataError, OSError, IndexError) as error:
      raise EmbeddingError(f"row {row['id']!r}: its image cannot be read: {error}") from error

  def close(self) -> None:
    """Closes all files."""
    self._reader.close()

  def _item(self, row: Mapping[str, Any], key: str) -> Item:
    source = row["source"]
    if self._pairs:
      # `PairReader` uses only sensor and source.
      return Item(row["id"], key, source, 0, 0)
    files = files_of(source, len(self._sensors[key].bands))
    if source not in self._widths:
      paths = {self._locate(file.path) for file in files}
      self._widths[source] = max(header_of(path).shape[1] for path in paths)
    return Item(row["id"], key, source, 0, self._widths[source], files=files)


def _check_sensors(source: Mapping[str, Any]) -> None:
  """Refuses a data set whose sensors, scaling or statistics changed since the rows were made."""
  known = source.get(SENSORS_FILE)
  if known is not None and known != sensors_digest(source["path"]):
    raise ChangedError(
      f"{source['path']}: is another data set than the rows were made of ({SENSORS_FILE} differs). "
      "Put that one back, or embed this one again."
    )


def _nodata(text: str) -> float | None:
  return None if text == "None" else math.nan if text == "nan" else float(text)
