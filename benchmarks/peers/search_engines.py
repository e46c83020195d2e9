"""Our back ends, plain faiss and NumPy, behind the two functions that the benchmark calls."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

Search = Callable[[np.ndarray, int], np.ndarray]  # queries (Q, K), k -> rows (Q, k)

# title -> back end and settings of ours, or None for a peer.
ENGINES: dict[str, tuple[str, dict[str, Any]] | None] = {
  "exact": ("exact", {}),
  "faiss, rabitq7": ("faiss", {"kind": "rabitq7"}),
  "faiss, sq8": ("faiss", {"kind": "sq8"}),
  "faiss, rabitq": ("faiss", {"kind": "rabitq"}),
  "qdrant in process, hnsw": ("qdrant", {}),
  "pgvector, hnsw": ("pgvector", {}),
  "IndexFlatIP": None,
  "NumPy": None,
}


def build(title: str, directory: str, server: str) -> int:
  """Builds the index of an archive; returns its bytes on the disk."""
  ours = ENGINES[title]
  if ours is None:
    return os.path.getsize(f"{directory}/vectors.npy")
  from xjepa_jax.retrieval.embedding.files import open_embeddings
  from xjepa_jax.retrieval.indexes.directory import build_index

  backend, settings = ours
  if backend == "pgvector":
    settings = {**settings, "server": server}
  out = index_directory(title, directory)
  description = build_index(open_embeddings(f"{directory}/embeddings"), out, backend, settings)
  table = str(description.settings.get("table", ""))
  return _table_bytes(server, table) if table else disk_bytes(out)


def opened(title: str, directory: str) -> Search:
  """Ready to search."""
  if title == "NumPy":
    return _numpy(np.load(f"{directory}/vectors.npy"))
  if title == "IndexFlatIP":
    import faiss

    flat: Any = faiss.IndexFlatIP(256)
    flat.add(np.load(f"{directory}/vectors.npy"))
    return lambda queries, k: flat.search(queries, k)[1]
  from xjepa_jax.retrieval.indexes.directory import open_index

  index = open_index(index_directory(title, directory))
  return lambda queries, k: index.search(queries, k).rows


def index_directory(title: str, directory: str) -> str:
  """Where the index of an archive lies."""
  return os.path.join(directory, "index " + title)


def disk_bytes(directory: str) -> int:
  """Bytes that the files of a directory take on the disk: holes take none."""
  return sum(
    512 * os.stat(os.path.join(folder, name)).st_blocks
    for folder, _, names in os.walk(directory)
    for name in names
  )


def _table_bytes(server: str, table: str) -> int:
  import psycopg

  with psycopg.connect(server) as connection:
    found = connection.execute("SELECT pg_total_relation_size(%s)", (table,)).fetchone()
  return int(found[0]) if found else 0


def _numpy(vectors: np.ndarray) -> Search:
  def search(queries: np.ndarray, k: int) -> np.ndarray:
    scores = queries @ vectors.T
    best = np.argpartition(scores, -k, axis=1)[:, -k:]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
    return np.take_along_axis(best, order, axis=1)

  return search
