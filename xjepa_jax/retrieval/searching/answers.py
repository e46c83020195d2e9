"""Queries, hits and answers as plain values, shared by the command line, the page and the API."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Query:
  """A search query.

  Attributes:
    title: its name for people: a file's name, an id, a place.
    sensor: the example's sensor, or "" where examples of several sensors were combined.
    vector: (K,) float32 of length 1.
    rows: rows of the archive that are the examples themselves, and are not returned as hits.
    image: (H, W, C) values of the query's file, as stored, or None.
    mixed: whether the vector combines several examples, for which no confidence was fitted.
  """

  title: str
  sensor: str
  vector: np.ndarray
  rows: tuple[int, ...] = ()
  image: np.ndarray | None = None
  mixed: bool = False


@dataclasses.dataclass(frozen=True)
class Hit:
  """One answer.

  Attributes:
    rank: from 1.
    row: its number in the archive's embeddings.
    id, sensor, source, window, labels, valid_fraction: as in the embeddings.
    score: inner product with the query's descriptor, at most 1.
    confidence: the probability that it is the query's scene, or None where none was fitted: for
      hits of the query's own sensor, and for several examples together.
    longitude, latitude: its centre, degrees in EPSG:4326, or None.
    footprint: its outline as a GeoJSON geometry, or None.
    time: time of acquisition, or None.
  """

  rank: int
  row: int
  id: str
  sensor: str
  score: float
  confidence: float | None
  longitude: float | None
  latitude: float | None
  footprint: dict[str, Any] | None
  time: datetime | None
  source: str
  window: dict[str, int] | None
  labels: tuple[str, ...]
  valid_fraction: float | None


@dataclasses.dataclass(frozen=True)
class Answer:
  """The answer to one query.

  Attributes:
    query: the query.
    hits: the hits, best first.
    among: how many embeddings passed the filter.
  """

  query: Query
  hits: tuple[Hit, ...]
  among: int
