"""A collection on a Qdrant server or cluster.

It is uploaded in batches that survive an interruption. The graph is built only after the last
batch, since otherwise it would be rebuilt many times.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xjepa_jax.errors import SearchIndexError
from xjepa_jax.retrieval.indexes.base import Filter
from xjepa_jax.retrieval.indexes.qdrant_points import BATCH, FIELDS, condition
from xjepa_jax.retrieval.indexes.qdrant_settings import QdrantSettings, index_above, kilobytes

_KEY = "QDRANT_API_KEY"
_SECONDS = 300  # per request; creating indexes on a large collection takes long
_RETRIES = 5
_LOOK_SECONDS = 1.0


class ServerEngine:
  """One collection of points.

  Args:
    settings: settings of the index.
    client: a `QdrantClient`; None connects to `settings.server`.

  Raises:
    SearchIndexError: the package is not installed.
  """

  def __init__(self, settings: QdrantSettings, client: Any = None):
    try:
      import qdrant_client
    except ImportError as error:
      raise SearchIndexError(
        f"a Qdrant server needs the package qdrant-client ({error}): "
        "pip install 'xjepa-jax[qdrant]'."
      ) from error
    self._models: Any = qdrant_client.models
    self._settings = settings
    self._own = client is None
    self._client: Any = client
    if client is None:
      self._client = qdrant_client.QdrantClient(
        url=settings.server,
        api_key=os.environ.get(_KEY),
        timeout=_SECONDS,
        check_compatibility=False,  # it would only warn; the first request reports any problem
      )
    self._name = settings.collection
    self._dimensions = 0

  def settings(self) -> QdrantSettings:
    """The settings, with the complete name of the collection."""
    return dataclasses.replace(self._settings, collection=self._name)

  def create(self, dimensions: int, identity: str) -> None:
    """Creates the collection for these embeddings and settings, unless a past run has left it."""
    models, settings = self._models, self._settings
    self._name = f"{settings.collection}-{identity[:12]}"
    self._dimensions = dimensions
    if self._asking(self._client.collection_exists, self._name):
      return
    self._asking(
      self._client.create_collection,
      self._name,
      vectors_config=models.VectorParams(
        size=dimensions, distance=models.Distance.DOT, on_disk=settings.on_disk
      ),
      shard_number=settings.shards,
      replication_factor=settings.replicas,
      write_consistency_factor=settings.writes_agree,
      hnsw_config=models.HnswConfigDiff(
        m=settings.m,
        ef_construct=settings.ef_construct,
        full_scan_threshold=max(kilobytes(settings.full_scan_below, dimensions), 10),
        max_indexing_threads=settings.build_threads,
      ),
      quantization_config=self._quantisation(),
      # A threshold of 0 builds no graph while points arrive; it would be rebuilt many times.
      optimizers_config=models.OptimizersConfigDiff(indexing_threshold=0),
    )
    for field, kind in FIELDS.items():
      schema = getattr(models.PayloadSchemaType, kind.upper())
      self._asking(self._client.create_payload_index, self._name, field, schema)

  def upload(self, first: int, vectors: np.ndarray, fields: Sequence[Mapping[str, Any]]) -> None:
    """Writes the rows `first`, `first + 1`, ... and waits until the server has them."""
    self._asking(
      self._client.upload_collection,
      self._name,
      vectors=vectors,
      payload=list(fields),
      ids=range(first, first + len(vectors)),
      batch_size=BATCH,
      max_retries=_RETRIES,
      wait=True,
    )

  def finish(self, count: int) -> None:
    """Lets the server build the graph, and waits for it.

    Raises:
      SearchIndexError: the server does not have as many rows as were sent, or cannot build.
    """
    models = self._models
    self._asking(
      self._client.update_collection,
      self._name,
      optimizers_config=models.OptimizersConfigDiff(
        indexing_threshold=index_above(self._settings, self._dimensions)
      ),
    )
    while (state := self._asking(self._client.get_collection, self._name)).status in (
      models.CollectionStatus.YELLOW,
      models.CollectionStatus.GREY,
    ):
      time.sleep(_LOOK_SECONDS)
    if state.status == models.CollectionStatus.RED:
      raise SearchIndexError(
        f"{self._settings.server}: cannot build the collection {self._name} "
        f"({state.optimizer_status}). See the server's log; delete the collection, then run the "
        "same command again."
      )
    if self.count() != count:
      raise SearchIndexError(
        f"{self._settings.server}: the collection {self._name} has {self.count()} points where "
        f"{count} were sent; something else writes to it. Delete it, then run the command again."
      )

  def count(self) -> int:
    """Number of rows."""
    return int(self._asking(self._client.count, self._name, exact=True).count)

  def search(
    self, vectors: np.ndarray, k: int, filter: Filter | None, exact: bool
  ) -> list[list[tuple[int, float]]]:
    """Rows and scores for each query, best first."""
    models, settings = self._models, self._settings
    quantised = None
    if settings.quantisation:
      quantised = models.QuantizationSearchParams(
        rescore=True, oversampling=settings.oversampling, ignore=exact
      )
    params = models.SearchParams(hnsw_ef=settings.ef, exact=exact, quantization=quantised)
    chosen = condition(filter, models)
    asked = [
      models.QueryRequest(query=vector, limit=k, filter=chosen, params=params)
      for vector in vectors.tolist()
    ]
    answers = self._asking(self._client.query_batch_points, self._name, asked)
    return [[(int(point.id), point.score) for point in answer.points] for answer in answers]

  def save(self, directory: str) -> None:
    """Writes nothing: the server and the collection are named in `index.json`."""

  def load(self, directory: str) -> None:
    """Raises a SearchIndexError unless the collection exists."""
    if not self._asking(self._client.collection_exists, self._name):
      raise SearchIndexError(
        f"{self._settings.server}: has no collection {self._name}. Run the command that built the "
        "index again, with --rebuild."
      )

  def close(self) -> None:
    """Closes the connection, unless the client was given."""
    if self._own:
      self._client.close()

  def _quantisation(self) -> Any:
    models, kind = self._models, self._settings.quantisation
    if kind == "int8":
      return models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
      )
    if kind == "binary":
      return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
    return None

  def _asking(self, request: Any, *args: Any, **options: Any) -> Any:
    """The server's response, or an error that names the server."""
    from qdrant_client.http.exceptions import ApiException

    try:
      return request(*args, **options)
    except (ApiException, OSError) as error:
      raise SearchIndexError(
        f"{self._settings.server}: Qdrant did not answer as expected ({error}). Check that it "
        f"runs, the address, and the key in {_KEY}; then run the same command again: it continues."
      ) from error
