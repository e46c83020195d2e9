"""Rows as Qdrant points and filters as Qdrant conditions, for the server and the engine alike.

Batches are the same every time, which lets an interrupted upload continue.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from xjepa_jax.retrieval.embedding.files import EmbeddingFiles, table_vectors
from xjepa_jax.retrieval.indexes.base import Filter
from xjepa_jax.retrieval.indexes.filters import filter_tables

BATCH = 1024  # rows per upload
# Field name -> kind of index. The geo index only narrows; longitude and latitude decide.
FIELDS = {
  "sensor": "Keyword",
  "centre": "Geo",
  "longitude": "Float",
  "latitude": "Float",
  "datetime": "Datetime",
  "labels": "Keyword",
}
# Qdrant's geo boxes exclude their bounds, and its geo index (server and engine of 2026) finds
# nothing in boxes that reach a pole and too little in boxes that span most of the globe. The geo
# condition is therefore a slightly larger box, and is used only for small boxes away from these.
_WIDER = 1e-3
_WIDEST = 90.0


def points(files: EmbeddingFiles) -> Iterator[tuple[np.ndarray, list[dict[str, Any]]]]:
  """Yields vectors (n, K) and the fields of n rows, in order, at most `BATCH` at once.

  The batches are the same every time, which continuing an upload relies on.
  """
  for table in filter_tables(files, "embedding"):
    for start in range(0, len(table), BATCH):
      some = table.slice(start, BATCH)
      rows = some.drop_columns(["embedding"]).to_pylist()
      yield table_vectors(some), [_fields(row) for row in rows]


def _fields(row: dict[str, Any]) -> dict[str, Any]:
  """A row's fields; unknown ones are omitted."""
  fields: dict[str, Any] = {"sensor": row["sensor"], "labels": row["labels"] or []}
  if row["centre_lon"] is not None and row["centre_lat"] is not None:
    fields["longitude"], fields["latitude"] = row["centre_lon"], row["centre_lat"]
    fields["centre"] = {"lon": row["centre_lon"], "lat": row["centre_lat"]}
  if row["datetime"] is not None:
    fields["datetime"] = row["datetime"].isoformat()
  return fields


def condition(filter: Filter | None, names: Any) -> Any:
  """A filter as a Qdrant condition; None lets all rows pass.

  Args:
    filter: filter of the search.
    names: has the classes `Filter`, `FieldCondition`, `MatchAny`, `Range`, `DatetimeRange`,
      `GeoBoundingBox` and `GeoPoint` of the server's client, or those of the engine by these names.
  """
  if filter is None or filter.passes_all():
    return None
  must: list[Any] = []
  for key, values in (("sensor", filter.sensors), ("labels", filter.labels)):
    if values:
      must.append(names.FieldCondition(key=key, match=names.MatchAny(any=list(values))))
  if filter.bbox is not None:
    boxes = [names.Filter(must=_inside(box, names)) for box in filter.boxes()]
    must.append(names.Filter(should=boxes))
  if filter.time is not None:
    # A range open at both ends gets a bound as well, so that only rows with a time pass.
    start, end = (None if bound is None else bound.isoformat() for bound in filter.time)
    times = names.DatetimeRange(gte=start or "0001-01-01T00:00:00+00:00", lt=end)
    must.append(names.FieldCondition(key="datetime", range=times))
  return names.Filter(must=must)


def _inside(box: tuple[float, float, float, float], names: Any) -> list[Any]:
  west, south, east, north = box
  conditions = [
    names.FieldCondition(key="longitude", range=names.Range(gte=west, lte=east)),
    names.FieldCondition(key="latitude", range=names.Range(gte=south, lte=north)),
  ]
  west, south, east, north = west - _WIDER, south - _WIDER, east + _WIDER, north + _WIDER
  if west > -180 and east < 180 and south > -90 and north < 90 and east - west < _WIDEST:
    area = names.GeoBoundingBox(
      top_left=names.GeoPoint(lon=west, lat=north),
      bottom_right=names.GeoPoint(lon=east, lat=south),
    )
    conditions.append(names.FieldCondition(key="centre", geo_bounding_box=area))
  return conditions


class EngineNames:
  """The engine's classes under the names that the client uses.

  Args:
    engine: the module `qdrant_edge`.
  """

  def __init__(self, engine: ModuleType):
    self._engine: Any = engine
    self.Range = engine.RangeFloat
    self.DatetimeRange = engine.RangeDateTime

  def __getattr__(self, name: str) -> Any:
    return getattr(self._engine, name)
