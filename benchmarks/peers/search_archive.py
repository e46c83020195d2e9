"""The archive that search is timed on, written as `embed` writes one, and its true neighbours.

python -m benchmarks.peers.search_archive DIRECTORY 100000
"""

from __future__ import annotations

import argparse
import datetime
import json
import os

import numpy as np

from benchmarks.peers.search_descriptors import SENSORS, descriptors
from xjepa_jax.retrieval import ranking
from xjepa_jax.retrieval.embedding.description import EmbeddingDescription
from xjepa_jax.retrieval.embedding.rows import Rows, part_table
from xjepa_jax.retrieval.embedding.writing import write_embeddings

DIMENSIONS = 256
QUERIES = 512
K = 10
_PART = 65536
_LABELS = 20
_START = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


def write(directory: str, count: int) -> None:
  """Writes `embeddings/`, `vectors.npy`, `queries.npy` and `truth.npy` (Q, K), once."""
  truth = os.path.join(directory, "truth.npy")
  if os.path.exists(truth):
    return
  os.makedirs(directory, exist_ok=True)
  vectors, queries, _ = descriptors(count, DIMENSIONS, QUERIES)
  tables = (_table(vectors[at : at + _PART], at) for at in range(0, count, _PART))
  description = EmbeddingDescription(
    encoder={"name": "simulated", "sha256": "", "head": "layout"},
    dimensions=DIMENSIONS,
    quantisation="float32",
    sensors=tuple(sorted(SENSORS)),
    source={"kind": "simulated"},
    count=count,
    georeferenced=True,
  )
  write_embeddings(os.path.join(directory, "embeddings"), description, tables)
  np.save(os.path.join(directory, "vectors.npy"), vectors)
  np.save(os.path.join(directory, "queries.npy"), queries)
  np.save(truth, ranking.top(queries, vectors, K)[0])


def _table(vectors: np.ndarray, first: int) -> object:
  """Rows of a part: scenes along a track around the globe, a day for each ten of them."""
  rows = np.arange(first, first + len(vectors))
  scene = rows // 2
  some = Rows(
    ids=[f"scene {number}" for number in scene.tolist()],
    sensors=[SENSORS[number % 2] for number in rows.tolist()],
    sources=["track"] * len(rows),
    vectors=vectors,
    longitude=scene * 0.013 % 360 - 180,
    latitude=80 * np.sin(scene * 0.0007),
    footprints=None,
    boxes=None,
    windows=np.zeros((len(rows), 4), np.int32),
    valid_fraction=np.ones(len(rows), np.float32),
    times=[_START + datetime.timedelta(days=number // 10) for number in scene.tolist()],
    labels=[[f"class {number // 16 % _LABELS}"] for number in scene.tolist()],
  )
  return part_table(some, "float32", True, {})


if __name__ == "__main__":
  parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.search_archive")
  parser.add_argument("directory")
  parser.add_argument("count", type=int)
  args = parser.parse_args()
  write(args.directory, args.count)
  print(json.dumps({"count": args.count}))
