"""What a query was, and what was found."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Query:
  """What is looked for.

  Attributes:
    title: for people: a file's name, an id, a place.
    sensor: of the example, or "" where several sensors' examples were mixed.
    vector: (K,) float32 of length 1.
    rows: of the archive that are the examples themselves, and no answers.
    image: (H, W, C) of the file that is asked with, as stored, or None.
    mixed: whether the vector is of several examples, which no confidence was fitted for.
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
    rank: from 1 on.
    row: its number in the archive's embeddings.
    id, sensor, source, window, labels, valid_fraction: as the embeddings have them.
    score: inner product with the query's descriptor, at most 1.
    confidence: the probability that it is the query's scene, or None where none was fitted: within
      a sensor, and for several examples together.
    longitude, latitude: of its centre, degrees in EPSG:4326, or None.
    footprint: its outline as a GeoJSON geometry, or None.
    time: of acquisition, or None.
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
  """What was found for one query.

  Attributes:
    query: what was asked.
    hits: best first.
    among: how many embeddings passed the filter.
  """

  query: Query
  hits: tuple[Hit, ...]
  among: int
