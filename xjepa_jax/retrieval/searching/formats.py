"""Answers as a table for people, and as JSON, GeoJSON and CSV for other tools."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from xjepa_jax.data.plain_text import for_spreadsheet, one_line
from xjepa_jax.data.tables import csv_text
from xjepa_jax.retrieval.searching.answers import Answer, Hit

_COLUMNS = (
  "query", "rank", "id", "sensor", "score", "confidence", "longitude", "latitude", "time",
  "source", "column", "row", "width", "height", "labels",
)  # fmt: skip


def as_table(answers: Sequence[Answer]) -> str:
  """Format answers as aligned text, a line per hit, with the query above."""
  return "\n\n".join(_table(answer) for answer in answers)


def as_json(answers: Sequence[Answer]) -> str:
  """Format answers as a JSON list with one object per query."""
  entries = [
    {
      "query": answer.query.title,
      "sensor": answer.query.sensor,
      "among": answer.among,
      "hits": [{**_fields(hit), "footprint": hit.footprint} for hit in answer.hits],
    }
    for answer in answers
  ]
  # ASCII only: on a terminal that lacks a character, its replacement would not be valid JSON.
  return json.dumps(entries, indent=1, allow_nan=False)


def as_geojson(answers: Sequence[Answer], sources: bool = True) -> str:
  """Format answers as a FeatureCollection (RFC 7946), one feature per hit.

  The geometry is the hit's footprint, or its centre, or null where neither is known.

  Args:
    answers: the answers to all queries.
    sources: whether to include the file and window of each hit; False for readers who do not have
      these files.
  """
  hidden = () if sources else ("source", "window")
  features = [
    {
      "type": "Feature",
      "id": f"{number}-{hit.rank}",
      "geometry": hit.footprint or _point(hit),
      "properties": {
        "query": answer.query.title,
        **{name: value for name, value in _fields(hit).items() if name not in hidden},
      },
    }
    for number, answer in enumerate(answers)
    for hit in answer.hits
  ]
  collection = {"type": "FeatureCollection", "features": features}
  return json.dumps(collection, allow_nan=False)


def as_csv(answers: Sequence[Answer]) -> str:
  """Format answers as CSV, a row per hit; labels are joined by ";".

  Text is escaped by `for_spreadsheet`, because spreadsheets take some text for formulas.
  """
  rows = []
  for answer in answers:
    for hit in answer.hits:
      fields = {**_fields(hit), "query": answer.query.title, "labels": ";".join(hit.labels)}
      fields |= fields.pop("window") or {}
      cells = [fields.get(name) for name in _COLUMNS]
      rows.append([for_spreadsheet(cell) if isinstance(cell, str) else cell for cell in cells])
  return csv_text([_COLUMNS, *rows])


FORMATS: dict[str, Callable[[Sequence[Answer]], str]] = {
  "table": as_table,
  "json": as_json,
  "geojson": as_geojson,
  "csv": as_csv,
}


def _fields(hit: Hit) -> dict[str, Any]:
  return {
    "rank": hit.rank,
    "id": hit.id,
    "sensor": hit.sensor,
    "score": round(hit.score, 6),
    "confidence": None if hit.confidence is None else round(hit.confidence, 4),
    "longitude": hit.longitude,
    "latitude": hit.latitude,
    "time": None if hit.time is None else hit.time.isoformat(),
    "source": hit.source,
    "window": hit.window,
    "labels": list(hit.labels),
  }


def _point(hit: Hit) -> dict[str, Any] | None:
  if hit.longitude is None or hit.latitude is None:
    return None
  return {"type": "Point", "coordinates": [hit.longitude, hit.latitude]}


def _table(answer: Answer) -> str:
  of = f" ({answer.query.sensor})" if answer.query.sensor else ""
  lines = [f"{one_line(answer.query.title)}{of}: {len(answer.hits)} of {answer.among:,}"]
  if not answer.hits:
    return lines[0] + ". Nothing passes the filter."
  rows: list[tuple[str, ...]] = [("", "score", "confidence", "sensor", "id", "place", "time")]
  rows += [_row(hit) for hit in answer.hits]
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  for row in rows:
    cells = [
      cell.rjust(width) if i < 3 else cell.ljust(width)
      for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    lines.append("  ".join(cells).rstrip())
  return "\n".join(lines)


def _row(hit: Hit) -> tuple[str, ...]:
  place = ""
  if hit.longitude is not None and hit.latitude is not None:
    place = f"{hit.latitude:.5f}, {hit.longitude:.5f}"
  return (
    str(hit.rank),
    f"{hit.score:.3f}",
    "" if hit.confidence is None else f"{hit.confidence:.0%}",
    hit.sensor,
    one_line(hit.id),
    place,
    "" if hit.time is None else f"{hit.time:%Y-%m-%d %H:%M}",
  )
