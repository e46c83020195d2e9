"""Tiles and hits as JSON for the page, without anything about the server's folders."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import shapely

from xjepa_jax.retrieval.searching.answers import Answer, Hit

Json = dict[str, Any]


def tile_json(entry: Mapping[str, Any]) -> Json:
  """Convert a row of `EmbeddingFiles.take`."""
  footprint = entry.get("footprint")
  return {
    "row": int(entry["row"]),
    "id": entry["id"],
    "sensor": entry["sensor"],
    "longitude": entry["centre_lon"],
    "latitude": entry["centre_lat"],
    "footprint": shapely.geometry.mapping(shapely.from_wkb(footprint)) if footprint else None,
    "time": _text(entry["datetime"]),
    "labels": list(entry["labels"] or ()),
  }


def hit_json(hit: Hit) -> Json:
  """Convert a hit: its tile, rank, score and confidence."""
  return {
    "row": hit.row,
    "id": hit.id,
    "sensor": hit.sensor,
    "longitude": hit.longitude,
    "latitude": hit.latitude,
    "footprint": hit.footprint,
    "time": _text(hit.time),
    "labels": list(hit.labels),
    "rank": hit.rank,
    "score": round(hit.score, 6),
    "confidence": None if hit.confidence is None else round(hit.confidence, 4),
  }


def answer_json(answer: Answer) -> Json:
  """Convert an answer, with its query's title and sensor."""
  return {
    "title": answer.query.title,
    "sensor": answer.query.sensor,
    "among": answer.among,
    "hits": [hit_json(hit) for hit in answer.hits],
  }


def _text(time: datetime | None) -> str | None:
  return None if time is None else time.isoformat()
