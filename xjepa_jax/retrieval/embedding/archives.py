"""Detects the kind of an archive from its path, and lists its images.

All kinds become a `Collected`, so that tiling, reading and writing do not depend on the kind. An
option that has no meaning for a kind is refused rather than ignored.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence

from xjepa_jax.data import storage
from xjepa_jax.data.description import INFO_FILE, SENSORS_FILE
from xjepa_jax.errors import ArchiveError, OptionError
from xjepa_jax.paths import StrPath
from xjepa_jax.retrieval.embedding.archive_paths import opener
from xjepa_jax.retrieval.embedding.digests import with_digests
from xjepa_jax.retrieval.embedding.folder import EVERYTHING, name_folder
from xjepa_jax.retrieval.embedding.image_times import TimeSource
from xjepa_jax.retrieval.embedding.images import ImageOptions, collect_images, known_sensor
from xjepa_jax.retrieval.embedding.items import Collected
from xjepa_jax.retrieval.embedding.pairs import collect_pairs
from xjepa_jax.retrieval.embedding.stac import is_stac, name_items
from xjepa_jax.retrieval.embedding.table import check_told, name_rows
from xjepa_jax.sensors import Sensor


@dataclasses.dataclass(frozen=True)
class ArchiveOptions:
  """Archive options from the command line.

  Attributes:
    sensors: the encoder's sensors, key -> description.
    patterns: sensor -> pattern of its files, `EVERYTHING` if only the sensor was named; empty for
      all sensors.
    splits: splits of pairs or of a table; empty for all.
    bands, offset, nodata: see `ImageOptions`.
    allow_outside: let paths leave the archive's folder.
    time: source of acquisition times, "" for none; see `TimeSource`.
    geometry: False embeds without coordinates. True refuses images that have none; pairs are
      accepted with or without.
    any_resolution: accept images whose pixel size differs from that of the encoder's sensor.
  """

  sensors: Mapping[str, Sensor]
  patterns: Mapping[str, str] = dataclasses.field(default_factory=dict)
  splits: Sequence[str] = ()
  bands: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
  offset: Mapping[str, float] = dataclasses.field(default_factory=dict)
  nodata: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
  allow_outside: bool = False
  time: str = ""
  geometry: bool = True
  any_resolution: bool = False


def collect(path: StrPath, options: ArchiveOptions) -> Collected:
  """Lists the images of an archive: a data set of pairs, a folder, a table, or STAC.

  Raises:
    DataError: it cannot be read, or nothing in it can be embedded.
    OptionError: an option does not apply to this kind of archive.
    SensorError: a sensor of the archive does not match the encoder's.
  """
  path = os.fspath(path)
  wanted = {key: options.sensors[known_sensor(key, options.sensors)] for key in options.patterns}
  sensors = wanted or dict(options.sensors)
  # Refuses options for a sensor that is not embedded.
  for key in (*options.bands, *options.offset, *options.nodata):
    known_sensor(key, sensors)
  if _is_pairs(path):
    _refuse(path, options, "pairs", "bands", "offset", "nodata", "time")
    return collect_pairs(path, sensors, options.splits, options.geometry)
  if storage.is_remote(path):
    raise ArchiveError(
      f"{path}: only a data set of pairs is read from object storage, and it has no {INFO_FILE}. "
      "Copy the images to disk."
    )
  collected = _collect_files(path, sensors, options)
  find = opener(path, options.allow_outside)
  return dataclasses.replace(collected, items=with_digests(collected.items, find))


def _collect_files(path: str, sensors: Mapping[str, Sensor], options: ArchiveOptions) -> Collected:
  """Lists the images of an archive of files, that is, anything but a data set of pairs."""
  images = ImageOptions(
    sensors,
    options.bands,
    options.offset,
    options.nodata,
    options.allow_outside,
    options.geometry,
    TimeSource(options.time) if options.time else None,
    options.any_resolution,
  )
  find = opener(path, options.allow_outside)
  if is_stac(path):
    _refuse(path, options, "STAC", "splits", "bands")
    named, left_out, declared = name_items(path, sensors, find)
    _check_offsets(path, sensors, declared, options.offset)
    return collect_images("stac", path, named, left_out, find, images)
  if path.lower().endswith((".csv", ".parquet")):
    named, told = name_rows(path, list(sensors), options.splits, find)
    collected = collect_images("images", path, named, (), find, images)
    check_told(path, told, collected.items)
    return collected
  _refuse(path, options, "a folder of images", "splits")
  patterns = dict(options.patterns)
  # With one sensor, all images can only be its own.
  if not patterns and len(sensors) == 1:
    patterns = dict.fromkeys(sensors, EVERYTHING)
  if not patterns:
    raise OptionError(
      f"{path}: images of which sensor? Give --sensor KEY, or --sensor KEY=PATTERN for each; the "
      f"encoder knows {', '.join(sensors)}."
    )
  named, others = name_folder(path, patterns)
  found = collect_images("images", path, named, (), find, images)
  if not others:
    return found
  note = f"{others:,} more images match no --sensor pattern and are left alone"
  return dataclasses.replace(found, notes=(*found.notes, note))


def _is_pairs(path: str) -> bool:
  base = path.rstrip("/")
  return any(storage.exists(f"{base}/{name}") for name in (SENSORS_FILE, INFO_FILE))


def _refuse(path: str, options: ArchiveOptions, kind: str, *names: str) -> None:
  for name in names:
    if getattr(options, name):
      option = "--split" if name == "splits" else f"--{name}"
      raise OptionError(f"{path}: is {kind}, for which {option} means nothing. Leave it out.")


def _check_offsets(
  path: str,
  sensors: Mapping[str, Sensor],
  declared: Mapping[str, Sequence[float]],
  given: Mapping[str, float],
) -> None:
  """Refuses declared offsets that differ from the encoder's, unless --offset decides.

  The declaration alone cannot be trusted: some catalogues declare Sentinel-2's +1000 although it
  has been removed from the values, and others the reverse.
  """
  for key, offsets in declared.items():
    used = given.get(key, sensors[key].scaling.offset)
    other = sorted({offset for offset in offsets if offset != used})
    if other and key not in given:
      raise ArchiveError(
        f"{path}: assets of sensor {key!r} declare an offset of {other[0]:g} stored values, the "
        f"encoder was trained with {used:g} ({sensors[key].product}). Say which the files have: "
        f"--offset {key}={other[0]:g}, or --offset {key}={used:g} if the catalogue is wrong."
      )
