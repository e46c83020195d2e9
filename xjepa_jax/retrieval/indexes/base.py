"""The interface of all indexes: `Filter`, `Hits` and `Index`.

A vector is identified by its row, which is its number in the directory of embeddings, counted over
the parts in order and the rows within them. Every index uses the same numbers.
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
  """Which rows may be hits; a condition that is left empty lets all rows pass.

  Attributes:
    sensors: the row is of one of these.
    bbox: the tile's centre lies in this box, bounds included: west, south, east, north in degrees.
      A west greater than east crosses the antimeridian. Rows without geometry lie in no box.
    time: start (included) and end (excluded); None leaves an end open. Rows without a time lie in
      no range, not even in one that is open at both ends.
    labels: the row has at least one of these.

  Raises:
    SearchError: the box or the time range is malformed.
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
    """Whether the filter has no condition."""
    return self == Filter()


@dataclasses.dataclass(frozen=True)
class Hits:
  """The best k rows of each of Q queries, best first.

  Attributes:
    rows: (Q, k) int64; -1 where fewer than k rows pass the filter.
    scores: (Q, k) float32, inner products of unit vectors; -inf where there is no row.
  """

  rows: np.ndarray
  scores: np.ndarray

  @classmethod
  def none(cls, queries: int, k: int) -> Hits:
    """Empty hits, to be filled in."""
    return cls(np.full((queries, k), -1, np.int64), np.full((queries, k), -np.inf, np.float32))


class Index(Protocol):
  """Unit vectors by row number, and a search for the k largest inner products.

  Attributes:
    backend: name of the back end, a key of `backends.BACKENDS`.
    dimensions: number of dimensions, K; 0 while the index is empty.
    sensors: sorted keys of the sensors that have rows.
  """

  backend: str
  dimensions: int
  sensors: tuple[str, ...]

  def __len__(self) -> int:
    """Number of rows."""

  def settings(self) -> Mapping[str, Any]:
    """All settings as JSON types, including those that the index chose itself."""

  def build(self, files: EmbeddingFiles, directory: str | None = None) -> None:
    """Replaces the contents of the index with the rows of `files`.

    Args:
      files: the embeddings.
      directory: the directory that `save` will be given; a back end that builds on disk builds
        there.
    """

  def add(self, files: EmbeddingFiles) -> None:
    """Appends the rows of `files`, numbered from `len(self)` on."""

  def search(self, vectors: np.ndarray, k: int, filter: Filter | None = None) -> Hits:
    """The k best rows that pass the filter.

    Args:
      vectors: (Q, K) float32, of unit length for cosines.
      k: at least 1; may exceed the number of rows.
      filter: None lets all rows pass.

    Raises:
      SearchError: the vectors or k are malformed, or the filter names a sensor that no row has.
    """

  def save(self, directory: str) -> None:
    """Writes what `load` needs, except `settings`, into an existing directory."""

  def load(self, directory: str) -> None:
    """Restores what `save` wrote; `directory.open_index` has checked the bytes before."""

  def close(self) -> None:
    """Releases files and connections."""


def check_query(index: Index, vectors: np.ndarray, k: int, filter: Filter | None) -> np.ndarray:
  """The queries as contiguous float32.

  Raises:
    SearchError: see `Index.search`.
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
