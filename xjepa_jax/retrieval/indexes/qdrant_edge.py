"""Qdrant's engine in this process: the index lies in a directory, and there is no server.

`ServerEngine` has the same methods, so that `QdrantIndex` need not know which of them it uses.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xjepa_jax.errors import SearchIndexError
from xjepa_jax.retrieval.indexes.base import Filter
from xjepa_jax.retrieval.indexes.qdrant_points import FIELDS, EngineNames, condition
from xjepa_jax.retrieval.indexes.qdrant_settings import QdrantSettings, index_above, kilobytes

_SHARD = "shard"


class EdgeEngine:
  """One shard of points.

  Args:
    settings: settings of the index.
    directory: directory that contains or will contain the shard.

  Raises:
    SearchIndexError: the package is not installed.
  """

  def __init__(self, settings: QdrantSettings, directory: str):
    try:
      import qdrant_edge
    except ImportError as error:
      raise SearchIndexError(
        f"Qdrant without a server needs the package qdrant-edge-py ({error}): "
        "pip install 'xjepa-jax[qdrant]'. With a server, name it: --server http://host:6333."
      ) from error
    self._engine: Any = qdrant_edge
    self._settings = settings
    self._path = os.path.join(directory, _SHARD)
    self._shard: Any = None

  def settings(self) -> QdrantSettings:
    """The settings, as given."""
    return self._settings

  def create(self, dimensions: int, identity: str) -> None:
    """Creates an empty shard; `identity` is not needed here."""
    engine, settings = self._engine, self._settings
    os.makedirs(self._path)
    config = engine.EdgeConfig(
      vectors=engine.EdgeVectorParams(
        size=dimensions, distance=engine.Distance.Dot, memory=self._memory(settings.on_disk)
      ),
      hnsw_config=engine.HnswIndexConfig(
        m=settings.m,
        ef_construct=settings.ef_construct,
        full_scan_threshold=kilobytes(settings.full_scan_below, dimensions),
        max_indexing_threads=settings.build_threads,
      ),
      quantization_config=self._quantisation(),
      optimizers=engine.EdgeOptimizersConfig(
        default_segment_number=1,  # a search has to visit every segment
        indexing_threshold=index_above(settings, dimensions),
      ),
      wal_enabled=False,  # no write-ahead log, because an interrupted build starts again
    )
    self._shard = engine.EdgeShard.create(self._path, config)
    for field, kind in FIELDS.items():
      self._shard.update(
        engine.UpdateOperation.create_field_index(field, getattr(engine.PayloadSchemaType, kind))
      )

  def upload(self, first: int, vectors: np.ndarray, fields: Sequence[Mapping[str, Any]]) -> None:
    """Adds the rows `first`, `first + 1`, ..."""
    engine = self._engine
    rows = zip(range(first, first + len(vectors)), vectors.tolist(), fields, strict=True)
    self._shard.update(
      engine.UpdateOperation.upsert_points(
        [engine.Point(row, vector, dict(known)) for row, vector, known in rows]
      )
    )

  def finish(self, count: int) -> None:
    """Builds the graph."""
    while self._shard.optimize():
      pass
    self._shard.flush()

  def count(self) -> int:
    """Number of rows."""
    return int(self._shard.count(self._engine.CountRequest(exact=True)))

  def search(
    self, vectors: np.ndarray, k: int, filter: Filter | None, exact: bool
  ) -> list[list[tuple[int, float]]]:
    """Rows and scores for each query, best first."""
    engine, settings = self._engine, self._settings
    chosen = condition(filter, EngineNames(engine))
    quantised = None
    if settings.quantisation:
      quantised = engine.QuantizationSearchParams(
        rescore=True, oversampling=settings.oversampling, ignore=exact
      )
    params = engine.SearchParams(hnsw_ef=settings.ef, exact=exact, quantization=quantised)
    asked = [
      engine.QueryRequest(query=engine.Query.Nearest(vector), limit=k, filter=chosen, params=params)
      for vector in vectors.tolist()
    ]
    answers = self._shard.query_batch(engine.QueryBatchRequest(asked))
    return [[(int(point.id), point.score) for point in answer] for answer in answers]

  def save(self, directory: str) -> None:
    """Writes everything to disk; copies the shard if it lies elsewhere."""
    self._shard.flush()
    self._shard.close()
    # Loading rewrites a settings file once. Doing it now keeps the files unchanged from here on.
    self._shard = self._engine.EdgeShard.load(self._path)
    target = os.path.join(directory, _SHARD)
    if os.path.abspath(target) != os.path.abspath(self._path):
      shutil.copytree(self._path, target)

  def load(self, directory: str) -> None:
    """Opens a shard that was saved."""
    self._path = os.path.join(directory, _SHARD)
    self._shard = self._engine.EdgeShard.load(self._path)

  def close(self) -> None:
    """Releases the files."""
    if self._shard is not None:
      self._shard.close()
      self._shard = None

  def _memory(self, on_disk: bool) -> Any:
    return self._engine.Memory.Cold if on_disk else self._engine.Memory.Cached

  def _quantisation(self) -> Any:
    engine, kind = self._engine, self._settings.quantisation
    if kind == "int8":
      return engine.ScalarQuantizationConfig(
        type=engine.ScalarType.Int8, memory=engine.Memory.Pinned
      )
    if kind == "binary":
      return engine.BinaryQuantizationConfig(memory=engine.Memory.Pinned)
    return None
