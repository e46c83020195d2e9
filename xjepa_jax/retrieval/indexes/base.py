"""What every index understands and answers: `Filter`, `Hits`, and the interface `Index`.

A vector is known by its row: its number in the directory of embeddings, in the order of parts and
of rows in them. Every index uses the same numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from xjepa_jax.errors import SearchError

if TYPE_CHECKING:
  from xjepa_jax.retrieval.embedding.files import EmbeddingFiles

Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Filter:
  """Which rows may be hits; what is left empty lets all rows pass.

  Attributes:
    sensors: one of these.
    bbox: the tile's centre lies in it, bounds included: west, south, east, north in degrees. West
      greater than east crosses the antimeridian. Rows without geometry lie in no box.
    time: from, to: the first included, the second not; None is open. Rows without a time lie in no
      range, not even in one that is open at both ends.
    labels: at least one of these.

  Raises:
    SearchError: a box or a range of time that cannot be meant.
  """

  sensors: tuple[str, ...] = ()
  bbox: Box | None = None
  time: tuple[datetime | None, datetime | None] | None = None
  labels: tuple[str, ...] = ()

  def __post_init__(self) -> None:
    if self.bbox is not None:
      west, south, east, north = self.bbox
      if not (all(map(math.isfinite, self.bbox)) and -180 <= west <= 180 and -180 <= east <= 180):
        raise SearchError(
          f"bbox {self.bbox}: expected west, south, east, north in degrees, longitudes from -180 "
          "to 180. A box across the antimeridian has a west greater than its east."
        )
      if not -90 <= south <= north <= 90:
        raise SearchError(
          f"bbox {self.bbox}: south {south:g} and north {north:g}; expected -90 <= south <= north "
          "<= 90. The order is west, south, east, north."
        )
    if self.time is not None:
      start, end = self.time
      for bound in (start, end):
        if bound is not None and bound.tzinfo is None:
          raise SearchError(f"time {bound.isoformat()}: say in which time zone, such as UTC.")
      if start is not None and end is not None and start >= end:
        raise SearchError(
          f"time from {start.isoformat()} to {end.isoformat()}: the end has to be later; it is not "
          "part of the range."
        )

  def boxes(self) -> tuple[Box, ...]:
    """The bounding box as one box, or as two that meet at the antimeridian."""
    if self.bbox is None:
      return ()
    west, south, east, north = self.bbox
    if west <= east:
      return (self.bbox,)
    return ((west, south, 180.0, north), (-180.0, south, east, north))

  def passes_all(self) -> bool:
    """Whether it asks for nothing."""
    return self == Filter()


@dataclasses.dataclass(frozen=True)
class Hits:
  """The best k rows of each of Q queries, best first.

  Attributes:
    rows: (Q, k) int64; -1 where fewer than k rows pass the filter.
    scores: (Q, k) float32, inner products of vectors of length 1; -inf where there is no row.
  """

  rows: np.ndarray
  scores: np.ndarray

  @classmethod
  def none(cls, queries: int, k: int) -> Hits:
    """Not one row, to be filled in."""
    return cls(np.full((queries, k), -1, np.int64), np.full((queries, k), -np.inf, np.float32))


class Index(Protocol):
  """Vectors of length 1 by row number, and the k with the largest inner products.

  Attributes:
    backend: its name, a key of `backends.BACKENDS`.
    dimensions: K; 0 before anything is in it.
    sensors: keys of the sensors that rows have, sorted.
  """

  backend: str
  dimensions: int
  sensors: tuple[str, ...]

  def __len__(self) -> int:
    """Rows."""

  def settings(self) -> Mapping[str, Any]:
    """Everything that was chosen for it or that it chose, as JSON holds it."""

  def build(self, files: EmbeddingFiles, directory: str | None = None) -> None:
    """Makes it hold the rows of `files` and nothing else.

    Args:
      files: the embeddings.
      directory: that `save` will be given: a back end that builds on the disk builds there.
    """

  def add(self, files: EmbeddingFiles) -> None:
    """Appends the rows of `files`, numbered on from `len(self)`."""

  def search(self, vectors: np.ndarray, k: int, filter: Filter | None = None) -> Hits:
    """The k best rows that pass the filter.

    Args:
      vectors: (Q, K) float32, of length 1 if cosines are meant.
      k: at least 1; may be more than there are rows.
      filter: None lets all rows pass.

    Raises:
      SearchError: the vectors or k are not such, or the filter names a sensor that no row has.
    """

  def save(self, directory: str) -> None:
    """Writes what it needs to be loaded, but for `settings`, into an existing directory."""

  def load(self, directory: str) -> None:
    """Becomes what `save` wrote; the bytes are as written (`directory.open_index` sees to it)."""

  def close(self) -> None:
    """Lets go of files and connections."""


def check_query(index: Index, vectors: np.ndarray, k: int, filter: Filter | None) -> np.ndarray:
  """The queries as contiguous float32.

  Raises:
    SearchError: as `Index.search` says.
  """
  if vectors.ndim != 2 or vectors.shape[1] != index.dimensions:
    raise SearchError(
      f"queries of shape {vectors.shape}; the index holds descriptors of {index.dimensions} "
      "numbers. Use the encoder and the head that made its embeddings."
    )
  if not np.isfinite(vectors).all():
    row = int(np.argmin(np.isfinite(vectors).all(axis=1)))
    raise SearchError(f"query {row} has numbers that are not finite.")
  if k < 1:
    raise SearchError(f"k is {k}; ask for at least one hit.")
  unknown = sorted(set(filter.sensors if filter else ()) - set(index.sensors))
  if unknown:
    raise SearchError(
      f"no row of the index is of sensor {unknown[0]!r}; there are {', '.join(index.sensors)}."
    )
  return np.ascontiguousarray(vectors, np.float32)
