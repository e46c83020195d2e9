"""Describes the directory as a STAC 1.1.0 collection, with the Embedding extension v0.0.1."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from xjepa_jax.retrieval.embedding.description import EmbeddingDescription
from xjepa_jax.retrieval.embedding.manifest import PARTS

COLLECTION = "collection.json"
_EXTENSION = "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json"
_PARQUET = "application/vnd.apache.parquet"
_WORLD = (-180.0, -90.0, 180.0, 90.0)


def collection_json(
  description: EmbeddingDescription,
  name: str,
  bounds: tuple[float, float, float, float] | None,
  times: tuple[str, str] | None,
  tile: Mapping[str, Sequence[int]],
  stride: int | None,
  licence: str,
) -> bytes:
  """The content of `collection.json`.

  Args:
    description: description of the directory.
    name: name of the collection.
    bounds: west, south, east, north; None if no row has coordinates, which gives the whole Earth,
      because STAC requires a box.
    times: first and last time, RFC 3339; None if no time is known.
    tile: sensor -> height and width of a tile.
    stride: distance between tiles in pixels; None for a tile's own size.
    licence: an SPDX identifier, or "other".
  """
  # Only one chip size can be stated; it is that of the first sensor.
  height, width = next(iter(tile.values()))
  content: dict[str, Any] = {
    "type": "Collection",
    "stac_version": "1.1.0",
    "stac_extensions": [_EXTENSION],
    "id": name,
    "title": f"Descriptors of {name}",
    "description": (
      f"{description.count:,} descriptors of tiles seen by {', '.join(description.sensors)}, "
      f"computed by {description.encoder['name']} (head {description.encoder['head']}). Vectors "
      "have length 1 before they are quantised; scalar products rank tiles, across sensors too."
    ),
    "license": licence,
    "extent": {
      "spatial": {"bbox": [list(bounds or _WORLD)]},
      "temporal": {"interval": [list(times or (None, None))]},
    },
    "emb:type": "chip",
    "emb:dimensions": description.dimensions,
    "data_type": description.quantisation,
    "emb:chip_layout": {
      "layout_type": "regular_grid",
      "chip_size": [height, width],
      "stride": [stride or height, stride or width],
    },
    "emb:quantization": _quantisation(description.quantisation),
    "emb:fit_for_use": ["retrieval", "similarity_search"],
    "summaries": {"sensor": list(description.sensors)},
    "links": [
      {"rel": "emb:model", "href": description.encoder["path"], "title": _model(description)},
      {"rel": "emb:source-data", "href": description.source["path"]},
    ],
    "assets": {
      "embeddings": {
        "href": f"./{PARTS}/",
        "type": _PARQUET,
        "roles": ["data"],
        "title": "GeoParquet, a file a part",
      }
    },
  }
  return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def _model(description: EmbeddingDescription) -> str:
  encoder = description.encoder
  return f"{encoder['name']}, SHA-256 of its manifest {encoder['sha256']}"


def _quantisation(kind: str) -> dict[str, str]:
  if kind == "float32":
    return {"method": "none", "original_dtype": "float32"}
  method = "linear, a scale a row in the column embedding_scale" if kind == "int8" else "rounding"
  return {"method": method, "original_dtype": "float32", "quantized_dtype": kind}
