"""Qdrant: on servers, for hundreds of millions of rows and many writers; or in a directory.

Vectors are in a graph (HNSW), and each field that filters use has an index of its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from xjepa_jax.retrieval.embedding.files import EmbeddingFiles
from xjepa_jax.retrieval.indexes.base import Filter, Hits, check_query
from xjepa_jax.retrieval.indexes.qdrant_edge import EdgeEngine
from xjepa_jax.retrieval.indexes.qdrant_points import points
from xjepa_jax.retrieval.indexes.qdrant_server import ServerEngine
from xjepa_jax.retrieval.indexes.qdrant_settings import PRESETS, QdrantSettings

__all__ = ["PRESETS", "QdrantIndex", "QdrantSettings"]
_ABOUT = "about.json"  # what the engine does not store: dimensions, sensors, number of rows


class QdrantIndex:
  """Vectors and fields in a collection.

  Args:
    settings: settings of the index.
    client: a `QdrantClient` of the server; None connects to `settings.server`.

  Raises:
    SearchIndexError: a package is not installed, or the server does not answer.
  """

  backend = "qdrant"

  def __init__(self, settings: QdrantSettings = PRESETS["hnsw"], client: Any = None):
    self._settings = settings
    self._client = client
    self._engine: EdgeEngine | ServerEngine | None = None
    self._scratch: tempfile.TemporaryDirectory[str] | None = None
    self._count = 0
    self.dimensions = 0
    self.sensors: tuple[str, ...] = ()

  def __len__(self) -> int:
    return self._count

  def settings(self) -> Mapping[str, Any]:
    """Settings as JSON types."""
    return dataclasses.asdict(self._engine.settings() if self._engine else self._settings)

  def build(self, files: EmbeddingFiles, directory: str | None = None) -> None:
    """Replaces the contents with the rows of `files`; see `Index.build`."""
    self.close()
    if directory is None and not self._on_server():
      # Without a server the engine needs a directory to build in.
      self._scratch = tempfile.TemporaryDirectory(prefix="qdrant-")
      directory = self._scratch.name
    engine = self._open(directory or "")
    self.dimensions = files.description.dimensions
    asked = {**dataclasses.asdict(self._settings), "of": files.fingerprint}
    identity = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    engine.create(self.dimensions, identity)
    self.add(files)

  def add(self, files: EmbeddingFiles) -> None:
    """Appends the rows of `files`, numbered from `len(self)` on.

    On a server, batches that are there already are not sent again. They are known to be the first
    ones, except for the last batch, because rows are sent in order and each batch is confirmed
    before the next.
    """
    engine = self._opened()
    first, there = self._count, engine.count()
    for vectors, fields in points(files):
      if first + len(vectors) > there:
        engine.upload(first, vectors, fields)
      first += len(vectors)
    engine.finish(first)
    self._count = first
    self.sensors = tuple(sorted({*self.sensors, *files.description.sensors}))

  def search(self, vectors: np.ndarray, k: int, filter: Filter | None = None) -> Hits:
    """The k best rows that pass the filter; see `Index.search`."""
    vectors = check_query(self, vectors, k, filter)
    hits = Hits.none(len(vectors), k)
    among = min(k, len(self))
    if not among or not len(vectors):
      return hits
    engine, exact = self._opened(), self._settings.exact
    answers = engine.search(vectors, among, filter, exact)
    # A graph may miss rows that pass a filter; only all products show that there are no more.
    short = [i for i, answer in enumerate(answers) if len(answer) < among]
    if short and not exact:
      again = engine.search(vectors[short], among, filter, True)
      for i, answer in zip(short, again, strict=True):
        answers[i] = answer
    for i, answer in enumerate(answers):
      # Among equal scores the lower row comes first, as in every index.
      answer = sorted(answer, key=lambda hit: (-hit[1], hit[0]))
      for place, (row, score) in enumerate(answer):
        hits.rows[i, place], hits.scores[i, place] = row, score
    return hits

  def save(self, directory: str) -> None:
    """Writes the engine's files, if it has any, and what the engine does not store."""
    self._opened().save(directory)
    about = {"count": len(self), "dimensions": self.dimensions, "sensors": self.sensors}
    with open(os.path.join(directory, _ABOUT), "w", encoding="utf-8") as file:
      json.dump(about, file)

  def load(self, directory: str) -> None:
    """Restores what `save` wrote."""
    self.close()
    with open(os.path.join(directory, _ABOUT), encoding="utf-8") as file:
      about = json.load(file)
    engine = self._open(directory)
    engine.load(directory)
    self._count = engine.count()
    self.dimensions, self.sensors = about["dimensions"], tuple(about["sensors"])

  def close(self) -> None:
    """Releases files and connections."""
    if self._engine is not None:
      self._engine.close()
      self._engine = None
    if self._scratch is not None:
      self._scratch.cleanup()
      self._scratch = None
    self._count, self.dimensions, self.sensors = 0, 0, ()

  def _on_server(self) -> bool:
    return bool(self._settings.server) or self._client is not None

  def _open(self, directory: str) -> EdgeEngine | ServerEngine:
    if self._on_server():
      self._engine = ServerEngine(self._settings, self._client)
    else:
      self._engine = EdgeEngine(self._settings, directory)
    return self._engine

  def _opened(self) -> EdgeEngine | ServerEngine:
    if self._engine is None:
      raise RuntimeError("the index was neither built nor loaded")
    return self._engine
