"""Settings of a Qdrant index, in this process or on servers."""

from __future__ import annotations

import dataclasses

from xjepa_jax.errors import SearchIndexError

QUANTISATIONS = ("", "int8", "binary")


@dataclasses.dataclass(frozen=True)
class QdrantSettings:
  """Settings of a Qdrant index.

  Attributes:
    server: address such as http://host:6333; "": Qdrant's engine in this process, in the index's
      directory.
    collection: prefix of the collection's name on a server; a digest of embeddings and settings
      follows. The index sets the complete name once it is built.
    shards: parts that a collection is split into over the nodes of a cluster.
    replicas: copies of each part; writes_agree: number of copies that have to confirm a write.
    m, ef_construct: edges per node of the graph (HNSW, Malkov and Yashunin, 2018), and candidates
      from which they are chosen; build_threads: 0 uses all cores, 1 always builds the same graph.
    ef: candidates that a search examines.
    full_scan_below: fewer rows than this, in all or after a filter, are searched exactly.
    quantisation: of the vectors that the graph compares: "", "int8" or "binary"; `oversampling`
      times k of them are re-ranked with the original vectors.
    on_disk: read vectors from disk when they are needed.
    exact: do not use the graph, and compute all inner products.
  """

  server: str = ""
  collection: str = "xjepa"
  shards: int = 1
  replicas: int = 1
  writes_agree: int = 1
  m: int = 16
  ef_construct: int = 100
  build_threads: int = 0
  ef: int = 128
  full_scan_below: int = 10_000
  quantisation: str = ""
  oversampling: float = 2.0
  on_disk: bool = False
  exact: bool = False

  def __post_init__(self) -> None:
    if self.quantisation not in QUANTISATIONS:
      raise SearchIndexError(
        f"qdrant's quantisation {self.quantisation!r}: expected one of {QUANTISATIONS}."
      )
    for name in ("shards", "replicas", "writes_agree", "m", "ef_construct", "ef"):
      if getattr(self, name) < 1:
        raise SearchIndexError(f"qdrant's {name} is {getattr(self, name)}; expected at least 1.")


PRESETS = {
  "hnsw": QdrantSettings(),
  "int8": QdrantSettings(quantisation="int8", on_disk=True),
  "exact": QdrantSettings(exact=True),
}


def index_above(settings: QdrantSettings, dimensions: int) -> int:
  """Kilobytes of vectors above which a segment gets a graph; 0 for never."""
  return 0 if settings.exact else kilobytes(settings.full_scan_below, dimensions)


def kilobytes(rows: int, dimensions: int) -> int:
  """Rows in kilobytes of float32, the unit of Qdrant's thresholds."""
  return max(rows * dimensions * 4 // 1024, 1)
