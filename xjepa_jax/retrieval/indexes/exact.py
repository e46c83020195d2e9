"""The exact index: every product, on all devices. The default, and what others are held to."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from xjepa_jax.retrieval.embedding.files import EmbeddingFiles
from xjepa_jax.retrieval.indexes.base import Filter, Hits, check_query
from xjepa_jax.retrieval.indexes.filters import FilterColumns

if TYPE_CHECKING:
  import jax
  from jax.sharding import Mesh

_VECTORS = "vectors.npy"
_ROWS = "rows.parquet"
_QUERIES = 64  # at a time; fewer are padded to a power of two, so that few programs are compiled


@dataclasses.dataclass(frozen=True)
class ExactSettings:
  """Settings of the exact index.

  Attributes:
    recall: 1 for the exact answer; less lets a TPU answer sooner (`top_k.searcher`).
  """

  recall: float = 1.0


PRESETS = {"exact": ExactSettings(), "approximate": ExactSettings(recall=0.99)}


class ExactIndex:
  """Vectors as they are, sharded over the mesh at the first search.

  Args:
    settings: of the index.
    mesh: its devices share the rows; None takes all devices. With several processes, all search
      the same queries.
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
    self._columns = FilterColumns()
    self.__dict__.pop("_archive", None)

  def __len__(self) -> int:
    return len(self._columns)

  def settings(self) -> Mapping[str, Any]:
    """As JSON holds them."""
    return dataclasses.asdict(self._settings)

  def build(self, files: EmbeddingFiles, directory: str | None = None) -> None:
    """Makes it hold the rows of `files` and nothing else; see `Index.build`."""
    self._clear()
    self.add(files)

  def add(self, files: EmbeddingFiles) -> None:
    """Appends the rows of `files`, numbered on from `len(self)`."""
    vectors = files.vectors()
    if len(self):
      vectors = np.concatenate([self._vectors, vectors])
    self._vectors = vectors
    self._columns = self._columns.with_rows_of(files)
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
    mask = self._columns.mask(filter)
    archive, everything = self._archive
    allowed = everything if mask is None else top_k.place(mask, self._mesh)
    run = top_k.searcher(self._mesh, among, self._settings.recall)
    for start in range(0, len(vectors), _QUERIES):
      some = vectors[start : start + _QUERIES]
      padded = np.zeros((1 << (len(some) - 1).bit_length(), self.dimensions), np.float32)
      padded[: len(some)] = some
      answers = run(archive, allowed, jnp.asarray(padded))
      scores, rows = (np.asarray(each)[: len(some)] for each in answers)
      found = slice(start, start + len(some))
      hits.scores[found, :among] = scores
      hits.rows[found, :among] = np.where(scores > -np.inf, rows, -1)
    return hits

  def save(self, directory: str) -> None:
    """Writes vectors and the columns of filters."""
    np.save(os.path.join(directory, _VECTORS), self._vectors)
    self._columns.write(os.path.join(directory, _ROWS))

  def load(self, directory: str) -> None:
    """Reads what `save` wrote; the vectors stay on the disk until the first search."""
    self._clear()
    self._vectors = np.load(os.path.join(directory, _VECTORS), mmap_mode="r", allow_pickle=False)
    self._columns = FilterColumns.read(os.path.join(directory, _ROWS))
    self.dimensions = self._vectors.shape[1]
    self.sensors = self._columns.sensors()

  def close(self) -> None:
    """Forgets its vectors."""
    self._clear()

  @functools.cached_property
  def _mesh(self) -> Mesh:
    from xjepa_jax.training.mesh import make_mesh

    return make_mesh() if self._given_mesh is None else self._given_mesh

  @functools.cached_property
  def _archive(self) -> tuple[jax.Array, jax.Array]:
    """Vectors on their devices, and which rows are none of the padding."""
    from xjepa_jax.retrieval.indexes.top_k import place

    return place(self._vectors, self._mesh), place(np.ones(len(self), bool), self._mesh)
