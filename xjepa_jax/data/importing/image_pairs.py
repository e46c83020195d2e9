"""Reads pairs of image files, one image per sensor, onto one grid."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from xjepa_jax.data.archive import Entry
from xjepa_jax.data.band_stack import files_of, read_image
from xjepa_jax.data.grids import align, is_off_grid
from xjepa_jax.data.importing.file_sensors import FileSensors, as_stored
from xjepa_jax.data.importing.headers import Headers, one_column, without_pixels
from xjepa_jax.data.orientation import north_up, upright
from xjepa_jax.data.pairs import Observation, Pair
from xjepa_jax.data.raster import Raster, centre, check_placed
from xjepa_jax.data.resolution import check_resolution
from xjepa_jax.data.safe_paths import locate
from xjepa_jax.errors import ImageError

_ANY_RESOLUTION = "If such pixels are meant, give --any-resolution."


@dataclasses.dataclass(frozen=True)
class ImagePair:
  """The source of an `Entry`: the paths of a pair's images, and its metadata.

  Attributes:
    paths: (sensor key, path) in the order of the sensors; several single-band files are joined as
      "a.tif;b.tif", in the order of the sensor's bands. The pair's grid is that of the first image.
    acquired: (sensor key, ISO 8601 time) for the sensors with a known time.
    labels: names of classes.
    longitude, latitude: degrees in EPSG:4326; NaN to compute them from the images.
  """

  paths: tuple[tuple[str, str], ...]
  acquired: tuple[tuple[str, str], ...] = ()
  labels: tuple[str, ...] = ()
  longitude: float = math.nan
  latitude: float = math.nan


@dataclasses.dataclass(frozen=True)
class Reading:
  """The settings with which all pairs of an archive are read.

  Attributes:
    root: folder of the archive, free of links, to which paths are relative.
    allow_outside: whether paths may leave it.
    sensors: the sensors adapted to their files.
    misaligned, resample: as in `grids.align`.
    ungeoreferenced: whether images without a georeference may be paired.
    any_resolution: whether pixels may have another size than a sensor's.
  """

  root: str
  allow_outside: bool
  sensors: FileSensors
  misaligned: str
  resample: str
  ungeoreferenced: bool
  any_resolution: bool = False


def read_pair(entry: Entry, reading: Reading) -> Pair:
  """Read the images of one pair and bring them onto the first one's grid, north up.

  Raises:
    ImageError: an image cannot be read, or does not fit its sensor or the others.
    ArchiveError: an image's path now leads out of the archive.
  """
  source: ImagePair = entry.source
  rasters = {}
  for key, path in source.paths:
    files = [locate(reading.root, each, reading.allow_outside) for each in files_of(path)]
    rasters[key] = as_stored(key, read_image(files, reading.resample), reading.sensors)
  _check_located(list(rasters.values()), reading)
  rasters = upright(rasters)
  rasters = align(rasters, reading.sensors.sensors, reading.misaligned, reading.resample)
  first = next(iter(rasters.values()))
  # All images are on the first one's grid by now, so one turn fits all of them.
  turn = north_up(first.transform, *first.values.shape[:2])
  place = (source.longitude, source.latitude)
  if math.isnan(place[0]):
    located = [raster for raster in rasters.values() if raster.crs and raster.georeferenced]
    place = centre(located[0]) if located else place
  acquired = dict(source.acquired)
  return Pair(
    pair_id=entry.pair_id,
    observations={
      key: Observation(turn(raster.values), acquired.get(key, ""))
      for key, raster in rasters.items()
    },
    labels=source.labels,
    longitude=place[0],
    latitude=place[1],
    crs=first.crs,
    transform=turn.transform,
  )


def _check_located(rasters: Sequence[Raster], reading: Reading) -> None:
  """Refuse a pair whose images may show different places, unless the user vouches for it."""
  if len(rasters) < 2:
    return
  for raster in rasters:
    check_placed(raster)  # a place that is not read may differ from the first image's
    if not (raster.georeferenced or reading.ungeoreferenced):
      raise ImageError(
        f"{raster.path}: says nothing of where it lies. Give it a georeference, or, if it is known "
        "that the images of each pair lie on one another, --ungeoreferenced."
      )


def pair_sizes(entry: Entry, reading: Reading, headers: Headers) -> dict[str, tuple[int, int]]:
  """Sensor key -> height and width of the images that `read_pair` returns, from headers alone.

  Raises:
    ImageError: as in `read_pair`, as far as headers show it.
  """
  source: ImagePair = entry.source
  found = [(key, headers[path]) for key, path in source.paths]
  for key, header in found:
    as_stored(key, one_column(header, reading.sensors.sensors[key]), reading.sensors)
  _check_located([without_pixels(header) for _, header in found], reading)
  if not reading.any_resolution:
    # Warped images get the pixel size of the first, so only that one is checked.
    for key, header in found[:1] if reading.misaligned == "warp" else found:
      check_resolution(header, reading.sensors.sensors[key], _ANY_RESOLUTION)
  rasters = upright({key: without_pixels(header) for key, header in found})
  first = rasters[found[0][0]]
  for raster in list(rasters.values())[1:]:
    is_off_grid(raster, first, reading.misaligned)
  height, width = first.values.shape[:2]
  if north_up(first.transform, height, width).swapped:
    height, width = width, height
  return {key: (height, width) for key, _ in found}
