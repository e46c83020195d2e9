"""Imports SEN12MS and SEN12MS-CR: 256 x 256 pixels of Sentinel-1 and Sentinel-2 L1C at 10 m.

SEN12MS     ROIs1158_spring/s1_<scene>/ROIs1158_spring_s1_<scene>_p<id>.tif, likewise s2 and lc
SEN12MS-CR  ROIs1158_spring_s1/s1_<scene>/..., likewise _s2 and _s2_cloudy
flat        s1/ROIs1158_spring_<scene>_p<id>.tif, likewise s2 or s2_cloudfree, s2_cloudy, lc

A file is identified by its name, and by its folder only if its name does not contain the sensor, so
these layouts may be mixed or nested. Sentinel-1 is VV, VH in dB; Sentinel-2 has all 13 bands; band
1 of lc is the IGBP class (Schmitt et al. 2019; Ebel et al. 2021).
"""

from __future__ import annotations

import argparse
import functools
import os
import re
from collections.abc import Iterator, Mapping

import numpy as np

from xjepa_jax.data.archive import Archive, Entry, Skip
from xjepa_jax.data.grids import align
from xjepa_jax.data.importing.file_sensors import as_told
from xjepa_jax.data.importing.splits import hashed_split, in_order
from xjepa_jax.data.pairs import Observation, Pair
from xjepa_jax.data.raster import Raster, centre, read_raster
from xjepa_jax.errors import ArchiveError, ImageError
from xjepa_jax.sensor_presets import preset
from xjepa_jax.sensors import Sensor

SUMMARY = "SEN12MS or SEN12MS-CR: Sentinel-1 with Sentinel-2 L1C, worldwide, four seasons"
EXAMPLE = "python -m xjepa_jax.data.importers sen12ms --src SEN12MS --out data/sen12ms"

# MODIS MCD12Q1, LC_Type1: the classes 1 to 17.
IGBP = (
  "Evergreen needleleaf forests",
  "Evergreen broadleaf forests",
  "Deciduous needleleaf forests",
  "Deciduous broadleaf forests",
  "Mixed forests",
  "Closed shrublands",
  "Open shrublands",
  "Woody savannas",
  "Savannas",
  "Grasslands",
  "Permanent wetlands",
  "Croplands",
  "Urban and built-up lands",
  "Cropland/natural vegetation mosaics",
  "Permanent snow and ice",
  "Barren",
  "Water bodies",
)
LABEL_SHARE = 0.1  # share of a patch that a class must cover to be one of its labels

# SEN12MS_holdOutScenes.txt of the authors' toolbox: about 10 % of the patches, distributed over
# space and seasons like the whole.
HOLD_OUT = {
  "ROIs1158_spring": (15, 17, 63, 97, 124, 146),
  "ROIs1868_summer": (15, 19, 43, 72, 79, 104, 131),
  "ROIs1970_fall": (30, 35, 39, 47, 61, 120, 141, 144),
  "ROIs2017_winter": (32, 64, 107, 135, 146),
}

_NAME = re.compile(
  r"(ROIs\d+_(?:spring|summer|fall|winter))_(?:(s1|s2|s2_cloudy|lc)_)?(\d+)_p(\d+)\.tif"
)
_FOLDERS = {"s1": "s1", "s2": "s2", "s2_cloudfree": "s2", "s2_cloudy": "s2_cloudy", "lc": "lc"}
_DAMAGED = ("ROIs1868_summer", 146, 202)  # its Sentinel-1 image is damaged in the published archive
_DEPTH = 4  # levels of folders below --src that are searched
_Place = tuple[str, int, int]  # season, scene, patch


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Add the options specific to this importer."""
  parser.add_argument(
    "--cloudy", action="store_true", help="import SEN12MS-CR's cloudy images as a third sensor"
  )
  parser.add_argument(
    "--split",
    choices=("hash", "holdout"),
    default="hash",
    help="by a hash of the scene, or test = the scenes that SEN12MS' authors hold out",
  )


def open_archive(args: argparse.Namespace) -> Archive:
  """List the patches below `args.src`.

  Raises:
    ArchiveError: there is no image of a sensor at all, or one occurs twice.
  """
  files = _files(args.src)
  sensors = _sensors(args.cloudy)
  _check_found(args.src, files, sensors)
  splits: dict[str, list[Entry]] = {}
  skipped: list[Skip] = []
  for place, paths in sorted(files.items()):
    season, scene, patch = place
    pair_id = f"{season}_{scene}_p{patch}"
    missing = [key for key in sensors if key not in paths]
    if place == _DAMAGED:
      skipped.append(Skip(pair_id, "the Sentinel-1 image is damaged in the published archive."))
    elif missing:
      here = ", ".join(paths.values())
      skipped.append(Skip(pair_id, f"has no image of {', '.join(missing)}, only {here}."))
    else:
      wanted = tuple((key, paths[key]) for key in (*sensors, "lc") if key in paths)
      splits.setdefault(_split(args, season, scene), []).append(Entry(pair_id, wanted))
  return Archive(
    name="sen12ms",
    sensors=sensors,
    splits=in_order(splits),
    read=functools.partial(
      read_pair,
      src=args.src,
      sensors=sensors,
      misaligned=args.misaligned,
      resample=args.resample,
    ),
    skipped=skipped,
    notes=(_split_note(args),),
  )


def read_pair(
  entry: Entry, src: str, sensors: Mapping[str, Sensor], misaligned: str, resample: str
) -> Pair:
  """Read one patch of all sensors, and its labels if there is land cover.

  Raises:
    ImageError: an image is damaged or has another size, or is not on the first one's grid.
  """
  images = {key: read_raster(os.path.join(src, path)) for key, path in entry.source}
  cover = images.pop("lc", None)
  for key, image in images.items():
    _check_bands(image, sensors[key])
    images[key] = as_told(key, sensors[key], image)
  images = align(images, sensors, misaligned, resample)
  first = next(iter(images.values()))
  longitude, latitude = centre(first)
  return Pair(
    pair_id=entry.pair_id,
    observations={key: Observation(image.values) for key, image in images.items()},
    labels=() if cover is None else _labels(cover),
    longitude=longitude,
    latitude=latitude,
    crs=first.crs,
    transform=first.transform,
  )


def _sensors(cloudy: bool) -> dict[str, Sensor]:
  sensors = {"s1": preset("sentinel1_grd"), "s2": preset("sentinel2_l1c")}
  if cloudy:
    sensors["s2_cloudy"] = preset("sentinel2_l1c", product="Sentinel-2 L1C, cloudy")
  return sensors


def _check_bands(image: Raster, sensor: Sensor) -> None:
  found = image.values.shape[-1]
  if found != len(sensor.bands) or image.values.dtype != sensor.dtype:
    raise ImageError(
      f"{image.path}: has {found} bands of {image.values.dtype}; expected {len(sensor.bands)} of "
      f"{sensor.dtype}, {', '.join(sensor.band_names)}."
    )


def _labels(cover: Raster) -> tuple[str, ...]:
  """Names of the IGBP classes that cover at least LABEL_SHARE of the patch, in order of number."""
  classes = cover.values[..., 0]
  numbers, counts = np.unique(classes, return_counts=True)
  return tuple(
    IGBP[int(number) - 1]
    for number, count in zip(numbers, counts, strict=True)
    if 1 <= number <= len(IGBP) and count >= LABEL_SHARE * classes.size
  )


# Listing


def _files(src: str) -> dict[_Place, dict[str, str]]:
  """Place -> sensor key or "lc" -> path below `src`."""
  files: dict[_Place, dict[str, str]] = {}
  for path in _walk(src, "", _DEPTH):
    folder, name = os.path.split(path)
    match = _NAME.fullmatch(name)
    if not match:
      continue
    season, kind, scene, patch = match.groups()
    kind = kind or _FOLDERS.get(os.path.basename(folder or os.path.abspath(src)))
    if kind is None:
      continue
    known = files.setdefault((season, int(scene), int(patch)), {})
    if kind in known:
      raise ArchiveError(
        f"{src}: {known[kind]} and {path} are both the {kind} image of one patch. Give --src a "
        "folder with one copy of the archive."
      )
    known[kind] = path
  return files


def _walk(src: str, below: str, depth: int) -> Iterator[str]:
  """Paths of all files below `src`, in order; links are followed, hence the limit of depth."""
  folder = os.path.join(src, below) if below else src
  try:
    with os.scandir(folder) as found:
      entries = sorted(found, key=lambda entry: entry.name)
  except OSError as error:
    raise ArchiveError(f"{folder}: cannot be listed ({error.strerror}).") from error
  for entry in entries:
    path = os.path.join(below, entry.name)
    if not entry.is_dir():
      yield path
    elif depth:
      yield from _walk(src, path, depth - 1)


def _check_found(
  src: str, files: Mapping[_Place, Mapping[str, str]], sensors: Mapping[str, Sensor]
) -> None:
  kinds = {kind for paths in files.values() for kind in paths}
  missing = [key for key in sensors if key not in kinds]
  if missing:
    found = f"only of {', '.join(sorted(kinds))}" if kinds else "none at all"
    raise ArchiveError(
      f"{src}: no image of {', '.join(missing)} was found, {found}. Looked for names like "
      f"ROIs1158_spring_{missing[0]}_1_p30.tif in folders up to {_DEPTH} deep."
    )


def _split(args: argparse.Namespace, season: str, scene: int) -> str:
  split = hashed_split(f"{season}_{scene}", args.seed)
  if args.split == "hash":
    return split
  if scene in HOLD_OUT.get(season, ()):
    return "test"
  return "validation" if split == "validation" else "train"


def _split_note(args: argparse.Namespace) -> str:
  if args.split == "holdout":
    return (
      "splits: test = the scenes that SEN12MS' authors hold out; train and validation hold about "
      f"90 and 10 % of the other scenes by a hash of season and scene (seed {args.seed})"
    )
  return (
    "splits: train, validation and test hold about 80, 10 and 10 % of the scenes by a hash of "
    f"season and scene (seed {args.seed})"
  )
