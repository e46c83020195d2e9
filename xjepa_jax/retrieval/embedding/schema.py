"""The columns of a part, and the metadata that makes it GeoParquet 1.1.

The names `id`, `embedding`, `geometry`, `datetime`, `timestamp`, `centre_lat` and `centre_lon` are
those that TorchGeo's readers of Earth Index, Major TOM and Clay embeddings require.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

_TYPES = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8()}
TIME = pa.timestamp("us", tz="UTC")
BBOX = pa.struct([(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")])
WINDOW = pa.struct([(name, pa.int32()) for name in ("column", "row", "width", "height")])
# PROJ's description of EPSG:4326. In GeoParquet 1.1, x is the longitude regardless of this axis
# order. A column without a "crs" would be in OGC:CRS84, which is the same under another name.
_REALISATIONS = (
  ("Transit", 1166),
  ("G730", 1152),
  ("G873", 1153),
  ("G1150", 1154),
  ("G1674", 1155),
  ("G1762", 1156),
  ("G2139", 1309),
  ("G2296", 1383),
)
_EPSG_4326: dict[str, Any] = {
  "$schema": "https://proj.org/schemas/v0.7/projjson.schema.json",
  "type": "GeographicCRS",
  "name": "WGS 84",
  "datum_ensemble": {
    "name": "World Geodetic System 1984 ensemble",
    "members": [
      {
        "name": f"World Geodetic System 1984 ({name})",
        "id": {"authority": "EPSG", "code": code},
      }
      for name, code in _REALISATIONS
    ],
    "ellipsoid": {
      "name": "WGS 84",
      "semi_major_axis": 6378137,
      "inverse_flattening": 298.257223563,
    },
    "accuracy": "2.0",
    "id": {"authority": "EPSG", "code": 6326},
  },
  "coordinate_system": {
    "subtype": "ellipsoidal",
    "axis": [
      {
        "name": f"Geodetic {name}",
        "abbreviation": name[:3].title(),
        "direction": direction,
        "unit": "degree",
      }
      for name, direction in (("latitude", "north"), ("longitude", "east"))
    ],
  },
  "id": {"authority": "EPSG", "code": 4326},
}
_COVERING = {"bbox": {name: ["bbox", name] for name in ("xmin", "ymin", "xmax", "ymax")}}


def part_schema(
  dimensions: int, quantisation: str, georeferenced: bool, digests: bool = False
) -> pa.Schema:
  """The columns of every part of a directory, without metadata.

  Args:
    dimensions: number of dimensions of the descriptors, K.
    quantisation: quantisation of the descriptors.
    georeferenced: whether rows have geometry.
    digests: whether rows have a digest of their source, as all newly written rows do.
  """
  fields: list[Any] = [
    ("id", pa.string()),
    ("sensor", pa.string()),
    ("embedding", pa.list_(pa.field("element", _TYPES[quantisation]), dimensions)),
  ]
  if quantisation == "int8":
    fields.append(("embedding_scale", pa.float32()))
  if georeferenced:
    fields += [("geometry", pa.binary()), ("footprint", pa.binary()), ("bbox", BBOX)]
  fields += [
    ("datetime", TIME),
    ("timestamp", TIME),
    ("centre_lat", pa.float64()),
    ("centre_lon", pa.float64()),
    ("source", pa.string()),
    *([("source_digest", pa.string())] if digests else []),
    ("window", WINDOW),
    ("valid_fraction", pa.float32()),
    ("labels", pa.list_(pa.field("element", pa.string()))),
  ]
  return pa.schema(fields)


def geo_metadata(
  footprint_types: Sequence[str], bounds: tuple[float, float, float, float] | None
) -> bytes:
  """The value of the metadata key "geo".

  A row's box is that of its footprint, which contains its centre as well.

  Args:
    footprint_types: geometry types among the footprints, such as "Polygon".
    bounds: west, south, east, north of all footprints; None if there is no row.
  """
  shared: dict[str, Any] = {"encoding": "WKB", "crs": _EPSG_4326, "covering": _COVERING}
  if bounds is not None:
    shared["bbox"] = list(bounds)
  content = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {
      "geometry": {**shared, "geometry_types": ["Point"]},
      "footprint": {
        **shared,
        "geometry_types": sorted(footprint_types),
        "orientation": "counterclockwise",
        "edges": "planar",
      },
    },
  }
  return json.dumps(content, sort_keys=True).encode()


def with_metadata(schema: pa.Schema, about: Mapping[str, str], geo: bytes | None) -> pa.Schema:
  """The schema with a part's metadata; `about` is for users and other tools."""
  metadata = {key.encode(): value.encode() for key, value in about.items()}
  if geo is not None:
    metadata[b"geo"] = geo
  return schema.with_metadata(metadata)
