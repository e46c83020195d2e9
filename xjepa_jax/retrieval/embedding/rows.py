"""The rows of a part as arrays, and their conversion to an Arrow table.

A part has geometry columns only if the directory is georeferenced; a row without a position then
has nulls.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from xjepa_jax.retrieval.embedding import wkb
from xjepa_jax.retrieval.embedding.quantisation import quantise
from xjepa_jax.retrieval.embedding.schema import (
  BBOX,
  TIME,
  WINDOW,
  geo_metadata,
  part_schema,
  with_metadata,
)


@dataclasses.dataclass(frozen=True)
class Rows:
  """n rows with descriptors and metadata.

  Attributes:
    ids, sensors, sources: one per row.
    vectors: (n, K) float32.
    longitude, latitude: (n,) float64, centres in EPSG:4326; NaN where unknown.
    footprints: (n,) binary, WKB; null where unknown. None: null everywhere.
    boxes: (n, 4) float64, west, south, east, north of the footprints; NaN where unknown. None: the
      centres.
    windows: (n, 4) int32, column, row, width and height in the source.
    valid_fraction: (n,) fraction of valid pixels.
    times: aware datetimes, or None where unknown.
    labels: label names of each row.
    digests: digests of the source images; None omits the column.
  """

  ids: Sequence[str]
  sensors: Sequence[str]
  sources: Sequence[str]
  vectors: np.ndarray
  longitude: np.ndarray
  latitude: np.ndarray
  footprints: pa.Array | None
  boxes: np.ndarray | None
  windows: np.ndarray
  valid_fraction: np.ndarray
  times: Sequence[datetime.datetime | None]
  labels: Sequence[Sequence[str]]
  digests: Sequence[str] | None = None


def part_table(
  rows: Rows, quantisation: str, georeferenced: bool, about: Mapping[str, str]
) -> pa.Table:
  """The Arrow table of a part.

  Args:
    rows: rows of the part.
    quantisation: one of `QUANTISATIONS`.
    georeferenced: whether the directory's parts have geometry.
    about: key-value metadata for users and other tools.
  """
  count, size = rows.vectors.shape
  stored, scale = quantise(rows.vectors, quantisation)
  schema = part_schema(size, quantisation, georeferenced, rows.digests is not None)
  times = pa.array(list(rows.times), TIME)
  windows = np.ascontiguousarray(rows.windows, np.int32).reshape(count, 4)
  columns = {
    "id": pa.array(list(rows.ids), pa.string()),
    "sensor": pa.array(list(rows.sensors), pa.string()),
    "embedding": pa.FixedSizeListArray.from_arrays(
      pa.array(stored.reshape(-1)), type=schema.field("embedding").type
    ),
    # TorchGeo's readers require one name or the other.
    "datetime": times,
    "timestamp": times,
    "centre_lat": _known(rows.latitude),
    "centre_lon": _known(rows.longitude),
    "source": pa.array(list(rows.sources), pa.string()),
    "window": pa.StructArray.from_arrays(
      [pa.array(windows[:, i]) for i in range(4)], fields=list(WINDOW)
    ),
    "valid_fraction": pa.array(np.asarray(rows.valid_fraction, np.float32)),
    "labels": pa.array([list(names) for names in rows.labels], schema.field("labels").type),
  }
  if rows.digests is not None:
    columns["source_digest"] = pa.array(list(rows.digests), pa.string())
  if scale is not None:
    columns["embedding_scale"] = pa.array(scale)
  geo = None
  if georeferenced:
    footprints = rows.footprints
    if footprints is None:
      footprints = pa.nulls(count, pa.binary())
    boxes = _boxes(rows)
    columns["geometry"] = wkb.points(rows.longitude, rows.latitude)
    columns["footprint"] = footprints
    columns["bbox"] = pa.StructArray.from_arrays(
      [_known(boxes[:, i]) for i in range(4)], fields=list(BBOX)
    )
    geo = geo_metadata(_kinds(footprints), _bounds(boxes))
  table = pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)
  return table.cast(with_metadata(schema, about, geo))


def _boxes(rows: Rows) -> np.ndarray:
  """(n, 4) bounding boxes; that of a row without a footprint is its centre."""
  centre = np.stack([rows.longitude, rows.latitude, rows.longitude, rows.latitude], axis=1)
  if rows.boxes is None:
    return centre
  return np.where(np.isfinite(rows.boxes).all(axis=1, keepdims=True), rows.boxes, centre)


def _known(values: np.ndarray) -> pa.Array:
  """float64, with null in place of NaN."""
  return pa.array(np.asarray(values, np.float64), from_pandas=True)


def _kinds(footprints: pa.Array) -> list[str]:
  multiple = [wkb.is_multipolygon(value) for value in footprints.to_pylist() if value is not None]
  return sorted({"MultiPolygon" if each else "Polygon" for each in multiple})


def _bounds(boxes: np.ndarray) -> tuple[float, float, float, float] | None:
  known = boxes[np.isfinite(boxes).all(axis=1)]
  if not len(known):
    return None
  west, south = known[:, :2].min(axis=0)
  east, north = known[:, 2:].max(axis=0)
  return float(west), float(south), float(east), float(north)
