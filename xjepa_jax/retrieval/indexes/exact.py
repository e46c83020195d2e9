"""The exact index: all inner products, on all devices.

It is the default up to a million vectors, and the reference for the other back ends. Vectors are
sharded over the mesh at the first search.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from xjepa_jax.retrieval.embedding.files import EmbeddingFiles, table_vectors
from xjepa_jax.retrieval.indexes.base import Filter, Hits, check_query
from xjepa_jax.retrieval.indexes.filters import FilterColumns

if TYPE_CHECKING:
  import jax
  from jax.sharding import Mesh

_VECTORS = "vectors.npy"
_ROWS = "rows.parquet"
_QUERIES = 64  # per call; fewer are padded to a power of two to limit the number of compilations


@dataclasses.dataclass(frozen=True)
class ExactSettings:
  """Settings of the exact index.

  Attributes:
    recall: 1 for the exact result; less makes a TPU faster (`top_k.searcher`).
  """

  recall: float = 1.0


PRESETS = {"exact": ExactSettings(), "approximate": ExactSettings(recall=0.99)}


class ExactIndex:
  """Unquantised vectors, sharded over the mesh at the first search.

  Attributes:
    columns: the columns that filters use, for every row.

  Args:
    settings: settings of the index.
    mesh: its devices share the rows; None uses all devices. With several processes, all of them
      have to search the same queries.
  """

  backend = "exact"

  def __init__(self, settings: ExactSettings = PRESETS["exact"], mesh: Mesh | None = None):
    self._settings = settings
    self._given_mesh = mesh
    self._clear()

  def _clear(self) -> None:
    self.dimensions = 0
    self.sensors: tuple[str, ...] = ()
    self._vectors = np.zeros((0, 0), np.float32)
    self.columns = FilterColumns()
    # Drops the cached copy on the devices.
    self.__dict__.pop("_archive", None)

  def __len__(self) -> int:
    return len(self.columns)

  def settings(self) -> Mapping[str, Any]:
    """Settings as JSON types."""
    return dataclasses.asdict(self._settings)

  def build(self, files: EmbeddingFiles, directory: str | None = None) -> None:
    """Replaces the contents with the rows of `files`; see `Index.build`."""
    self._clear()
    if directory is None or not len(files):
      self.add(files)
      return
    # Write straight into the file that `save` keeps, as an archive may be larger than memory.
    shape = len(files), files.description.dimensions
    path = os.path.join(directory, _VECTORS)
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    at = 0
    for table in files.tables(columns=["embedding"]):
      vectors[at : at + len(table)] = table_vectors(table)
      at += len(table)
    vectors.flush()
    self._take(vectors, files)

  def add(self, files: EmbeddingFiles) -> None:
    """Appends the rows of `files`, numbered from `len(self)` on."""
    vectors = files.vectors()
    if len(self):
      vectors = np.concatenate([self._vectors, vectors])
    self._take(vectors, files)

  def _take(self, vectors: np.ndarray, files: EmbeddingFiles) -> None:
    """Replaces the vectors; the last of them are the rows of `files`."""
    self._vectors = vectors
    self.columns = self.columns.with_rows_of(files)
    self.dimensions = vectors.shape[1]
    self.sensors = tuple(sorted({*self.sensors, *files.description.sensors}))
    self.__dict__.pop("_archive", None)

  def search(self, vectors: np.ndarray, k: int, filter: Filter | None = None) -> Hits:
    """The k best rows that pass the filter; see `Index.search`."""
    import jax.numpy as jnp

    from xjepa_jax.retrieval.indexes import top_k

    vectors = check_query(self, vectors, k, filter)
    hits = Hits.none(len(vectors), k)
    among = min(k, len(self))
    if not among or not len(vectors):
      return hits
    mask = self.columns.mask(filter)
    archive, everything = self._archive
    allowed = everything if mask is None else top_k.place(mask, self._mesh)
    # One program is compiled per number of hits, so k is rounded up to a power of two.
    found_at_once = min(1 << (among - 1).bit_length(), len(self))
    run = top_k.searcher(self._mesh, found_at_once, self._settings.recall)
    for start in range(0, len(vectors), _QUERIES):
      some = vectors[start : start + _QUERIES]
      padded = np.zeros((1 << (len(some) - 1).bit_length(), self.dimensions), np.float32)
      padded[: len(some)] = some
      answers = run(archive, allowed, jnp.asarray(padded))
      scores, rows = (np.asarray(each)[: len(some), :among] for each in answers)
      found = slice(start, start + len(some))
      hits.scores[found, :among] = scores
      hits.rows[found, :among] = np.where(scores > -np.inf, rows, -1)
    return hits

  def save(self, directory: str) -> None:
    """Writes the vectors and the filter columns."""
    path = os.path.join(directory, _VECTORS)
    # `build` may have written this very file.
    written = isinstance(self._vectors, np.memmap) and self._vectors.filename
    if not (written and os.path.exists(path) and os.path.samefile(written, path)):
      np.save(path, self._vectors)
    self.columns.write(os.path.join(directory, _ROWS))

  def load(self, directory: str) -> None:
    """Reads what `save` wrote; the vectors stay on disk until the first search."""
    self._clear()
    self._vectors = np.load(os.path.join(directory, _VECTORS), mmap_mode="r", allow_pickle=False)
    self.columns = FilterColumns.read(os.path.join(directory, _ROWS))
    self.dimensions = self._vectors.shape[1]
    self.sensors = self.columns.sensors()

  def close(self) -> None:
    """Drops the vectors."""
    self._clear()

  @functools.cached_property
  def _mesh(self) -> Mesh:
    from xjepa_jax.training.mesh import make_mesh

    return make_mesh() if self._given_mesh is None else self._given_mesh

  @functools.cached_property
  def _archive(self) -> tuple[jax.Array, jax.Array]:
    """The vectors on their devices, and a mask of the rows that are not padding."""
    from xjepa_jax.retrieval.indexes.top_k import place

    return place(self._vectors, self._mesh), place(np.ones(len(self), bool), self._mesh)
