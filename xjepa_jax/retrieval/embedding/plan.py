"""What will be written, decided before anything is computed."""

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
_SHOWN = 5  # differences between two plans


@dataclasses.dataclass(frozen=True)
class Options:
  """What of the command line the rows depend on.

  Attributes:
    head: of the encoder.
    quantisation: of the stored descriptors.
    min_valid: tiles of which a smaller fraction was seen have no row.
    part_rows: tiles of a part.
    batch: rows that a device computes at once; it may change a descriptor's last bits.
    geometry: whether rows have a place.
  """

  head: str
  quantisation: str
  min_valid: float
  part_rows: int
  batch: int
  geometry: bool


@dataclasses.dataclass(frozen=True)
class Plan:
  """A directory to be written.

  Attributes:
    archive: as it was listed.
    tiles: in their order.
    parts: where each part begins and ends among them.
    encoder: "name", "sha256" of its manifest, "head".
    dimensions: of its descriptors.
    options: of the command line.
    settings: everything that the bytes depend on, in JSON's types.
    versions: of the packages.
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
  """Everything that the bytes of a directory depend on.

  The platform is JAX's name of the devices, such as "cpu" or "gpu": they round differently.
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
  """What differs between the settings of a directory and of a command: dotted key -> both."""
  old, new = (dotted(json.loads(json.dumps(each))) for each in (stored, now))
  return {
    name: (old.get(name), new.get(name))
    for name in sorted({*old, *new})
    if old.get(name) != new.get(name)
  }


def in_words(differing: Mapping[str, tuple[Any, Any]]) -> str:
  """The first of some differences, a phrase each."""
  found = [f"{name} is {old!r} there and {new!r} now" for name, (old, new) in differing.items()]
  more = len(found) - _SHOWN
  return "; ".join(found[:_SHOWN] + ([f"{more} more"] if more > 0 else []))


def of_the_archive(differing: Mapping[str, tuple[Any, Any]]) -> bool:
  """Whether it is the archive alone that differs: its images, not how they are embedded."""
  return all(name.startswith("tiles.") or name in _OF_THE_ARCHIVE for name in differing)
