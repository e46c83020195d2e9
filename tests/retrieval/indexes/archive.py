"""A small archive to index, and what a plain loop over its rows answers."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import numpy as np

from xjepa_jax.retrieval.embedding.description import EmbeddingDescription
from xjepa_jax.retrieval.embedding.files import EmbeddingFiles, open_embeddings
from xjepa_jax.retrieval.embedding.rows import Rows, part_table
from xjepa_jax.retrieval.embedding.writing import write_embeddings
from xjepa_jax.retrieval.indexes.base import Filter

SENSORS = ("radar", "optical")
LABELS = ("water", "forest", "crops", 'Łódź\'s "old" town')


@dataclasses.dataclass(frozen=True)
class Archive:
  """What was written: (N, K) float32 of length 1, and for each row what filters look at."""

  vectors: np.ndarray
  sensors: list[str]
  longitude: np.ndarray
  latitude: np.ndarray
  times: list[datetime | None]
  labels: list[list[str]]


def make(count: int, dimensions: int = 16, seed: int = 0) -> Archive:
  """Rows around the globe, both poles and the antimeridian; some without a place or a time."""
  rng = np.random.default_rng(seed)
  vectors = rng.standard_normal((count, dimensions), np.float32)
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  longitude = rng.uniform(-180, 180, count)
  latitude = rng.uniform(-85, 85, count)
  edges = [
    (180.0, 0.0),
    (-180.0, 10.0),
    (179.999, 5.0),
    (-179.999, 5.0),
    (12.0, 90.0),
    (0.0, -90.0),
  ]
  for row, (x, y) in enumerate(edges):
    longitude[row], latitude[row] = x, y
  longitude[20:30] = np.linspace(10, 19, 10)  # on the bounds of boxes
  latitude[20:30] = np.linspace(40, 49, 10)
  nowhere = slice(count // 2, count // 2 + count // 10)
  longitude[nowhere] = latitude[nowhere] = np.nan
  start = datetime(2020, 1, 1, tzinfo=UTC)
  # Microseconds apart at the start, for bounds are exact; then days.
  times: list[datetime | None] = [
    start + (timedelta(microseconds=row) if row < 40 else timedelta(days=row))
    for row in range(count)
  ]
  times[count // 3 :: 7] = [None] * len(times[count // 3 :: 7])
  labels = [[name for name in LABELS if rng.random() < 0.2] for _ in range(count)]
  labels[0] = ["rare"]
  sensors = [SENSORS[row % 2] for row in range(count)]
  return Archive(vectors, sensors, longitude, latitude, times, labels)


def write(archive: Archive, directory: str, parts: int = 3, quantisation: str = "float32") -> None:
  """Writes it as a directory of embeddings."""
  count, dimensions = archive.vectors.shape
  tables = []
  for rows in np.array_split(np.arange(count), parts):
    rows_list = [int(row) for row in rows]
    some = Rows(
      ids=[f"scene {row // 2}" for row in rows_list],
      sensors=[archive.sensors[row] for row in rows_list],
      sources=["source"] * len(rows),
      vectors=archive.vectors[rows],
      longitude=archive.longitude[rows],
      latitude=archive.latitude[rows],
      footprints=None,
      boxes=None,
      windows=np.zeros((len(rows), 4), np.int32),
      valid_fraction=np.ones(len(rows)),
      times=[archive.times[row] for row in rows_list],
      labels=[archive.labels[row] for row in rows_list],
    )
    tables.append(part_table(some, quantisation, True, {}))
  description = EmbeddingDescription(
    encoder={"name": "none", "sha256": "", "head": "layout"},
    dimensions=dimensions,
    quantisation=quantisation,
    sensors=tuple(sorted(set(archive.sensors))),
    source={"kind": "test"},
    count=count,
    georeferenced=True,
  )
  write_embeddings(directory, description, tables)


def embeddings(archive: Archive, directory: str, quantisation: str = "float32") -> EmbeddingFiles:
  """Written and opened."""
  write(archive, directory, quantisation=quantisation)
  return open_embeddings(directory)


def passing(archive: Archive, filter: Filter) -> list[int]:
  """Rows that pass, by asking each."""

  def passes(row: int) -> bool:
    x, y, time = archive.longitude[row], archive.latitude[row], archive.times[row]
    if filter.sensors and archive.sensors[row] not in filter.sensors:
      return False
    if filter.labels and not set(filter.labels) & set(archive.labels[row]):
      return False
    if filter.bbox is not None:
      west, south, east, north = filter.bbox
      across = west > east
      along = (x >= west or x <= east) if across else west <= x <= east
      if np.isnan(x) or not (along and south <= y <= north):
        return False
    if filter.time is not None:
      start, end = filter.time
      if time is None or (start and time < start) or (end and time >= end):
        return False
    return True

  return [row for row in range(len(archive.sensors)) if passes(row)]


def answers(
  archive: Archive, queries: np.ndarray, k: int, filter: Filter
) -> tuple[np.ndarray, np.ndarray]:
  """(Q, k) rows and scores by sorting every product, -1 and -inf where none are left."""
  rows = np.array(passing(archive, filter), np.int64)
  found = np.full((len(queries), k), -1)
  scores = np.full((len(queries), k), -np.inf)
  for i, query in enumerate(queries.astype(np.float64)):
    products = archive.vectors[rows].astype(np.float64) @ query
    best = np.lexsort((rows, -products))[:k]
    found[i, : len(best)], scores[i, : len(best)] = rows[best], products[best]
  return found, scores
