"""The plan of an output directory, made before anything is computed.

The bytes of the directory depend only on `Plan.settings`, so a directory that was begun with other
settings can be told and is refused.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from xjepa_jax.config import dotted
from xjepa_jax.data.description import SENSORS_FILE
from xjepa_jax.retrieval.embedding.items import Collected
from xjepa_jax.retrieval.embedding.listing import Tiles

_OF_THE_ARCHIVE = (f"archive.{SENSORS_FILE}",)
_SHOWN = 5  # differences between two plans that a message lists


@dataclasses.dataclass(frozen=True)
class Options:
  """The command-line options that the rows depend on.

  Attributes:
    head: head of the encoder.
    quantisation: quantisation of the stored descriptors.
    min_valid: tiles with a smaller fraction of valid pixels have no row.
    part_rows: tiles per part.
    batch: rows per device and call; it may change the last bits of a descriptor.
    geometry: whether rows have coordinates.
  """

  head: str
  quantisation: str
  min_valid: float
  part_rows: int
  batch: int
  geometry: bool


@dataclasses.dataclass(frozen=True)
class Plan:
  """A directory of embeddings to write.

  Attributes:
    archive: contents of the archive.
    tiles: tiles in storage order.
    parts: start and end of each part among the tiles.
    encoder: "name", "sha256" of its manifest, "head".
    dimensions: number of dimensions of its descriptors.
    options: command-line options.
    settings: everything that the bytes depend on, as JSON types.
    versions: versions of the packages.
  """

  archive: Collected
  tiles: Tiles
  parts: Sequence[tuple[int, int]]
  encoder: Mapping[str, str]
  dimensions: int
  options: Options
  settings: Mapping[str, Any]
  versions: Mapping[str, str]

  def about(self) -> dict[str, str]:
    """Key-value metadata of every part."""
    return {
      "model": self.encoder["name"],
      "model_sha256": self.encoder["sha256"],
      "head": self.encoder["head"],
      "quantisation": self.options.quantisation,
      "distance": "cosine",
      "source": self.archive.path.rstrip("/").rsplit("/", 1)[-1],
      "xjepa_jax": self.versions.get("xjepa-jax", ""),
    }


def settings_of(
  archive: Collected,
  tiles: Tiles,
  encoder: Mapping[str, str],
  options: Options,
  stride: int | None,
  platform: str,
  versions: Mapping[str, str],
) -> dict[str, Any]:
  """Everything that the bytes of a directory depend on, as JSON types.

  This includes the platform, JAX's name for the devices such as "cpu" or "gpu", because platforms
  round differently.
  """
  return {
    "encoder": encoder["sha256"],
    "head": options.head,
    "quantisation": options.quantisation,
    "archive": {"kind": archive.kind, "path": archive.path, **archive.settings},
    "tiles": {"count": len(tiles), "sha256": tiles.fingerprint()},
    "stride": stride,
    "min_valid": options.min_valid,
    "part_rows": options.part_rows,
    "batch": options.batch,
    "geometry": options.geometry,
    "platform": platform,
    "versions": dict(versions),
  }


def differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
  """Settings that differ between a directory and a command: dotted key -> (stored, now)."""
  # The round trip through JSON makes tuples and lists compare equal.
  old, new = (dotted(json.loads(json.dumps(each))) for each in (stored, now))
  return {
    name: (old.get(name), new.get(name))
    for name in sorted({*old, *new})
    if old.get(name) != new.get(name)
  }


def in_words(differing: Mapping[str, tuple[Any, Any]]) -> str:
  """The first few differences as phrases."""
  found = [f"{name} is {old!r} there and {new!r} now" for name, (old, new) in differing.items()]
  more = len(found) - _SHOWN
  return "; ".join(found[:_SHOWN] + ([f"{more} more"] if more > 0 else []))


def of_the_archive(differing: Mapping[str, tuple[Any, Any]]) -> bool:
  """Whether only the archive's images differ, and not how they are embedded."""
  return all(name.startswith("tiles.") or name in _OF_THE_ARCHIVE for name in differing)
