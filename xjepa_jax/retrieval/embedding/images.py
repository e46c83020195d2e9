"""Archives of image files: found in a folder, listed in a table, or referenced by STAC items.

All headers are read before anything is computed, so that a missing band, grid or scale stops the
command early. An image that cannot be used is left out with the reason; a sensor without any usable
image is an error.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from xjepa_jax.data.band_choice import bands_of
from xjepa_jax.data.band_stack import stacked_header
from xjepa_jax.data.file_scaling import check_scaling
from xjepa_jax.data.raster import RasterHeader, check_placed, giving_system
from xjepa_jax.data.resolution import check_resolution
from xjepa_jax.errors import ArchiveError, DataError, OptionError
from xjepa_jax.retrieval.embedding.conforming import Fit
from xjepa_jax.retrieval.embedding.image_times import TimeSource
from xjepa_jax.retrieval.embedding.items import BandFile, Collected, Item, LeftOut
from xjepa_jax.retrieval.embedding.windows import WindowReader, header_of, source_of, stack_of
from xjepa_jax.sensors import Sensor

ANY_RESOLUTION = "If the encoder was trained on such pixels all the same, give --any-resolution."
_THREADS = 8  # opening files is bound by the disk, not by the cores


@dataclasses.dataclass(frozen=True)
class Named:
  """An image that an archive lists, not yet opened.

  Attributes:
    id, sensor, time, labels: as in `Item`.
    paths: one file, or one file per band in the sensor's order.
    bands: band number within each file, if the archive states them; otherwise `bands_of` finds
      them.
  """

  id: str
  sensor: str
  paths: tuple[str, ...]
  bands: tuple[int, ...] = ()
  time: str = ""
  labels: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ImageOptions:
  """Options for reading image files.

  Attributes:
    sensors: key -> description, as the encoder has it.
    bands: key -> names of the bands in its files, in file order.
    offset: key -> offset of its stored values, if it differs from the encoder's.
    nodata: key -> nodata value, which overrides what the files declare.
    allow_outside: whether paths may leave the archive's folder.
    geometry: refuse files without coordinates.
    time: source of acquisition times that the archive itself does not give.
    any_resolution: accept files whose pixel size differs from that of the encoder's sensor.
  """

  sensors: Mapping[str, Sensor]
  bands: Mapping[str, Sequence[str]]
  offset: Mapping[str, float]
  nodata: Mapping[str, float | None]
  allow_outside: bool
  geometry: bool
  time: TimeSource | None = None
  any_resolution: bool = False


def collect_images(
  kind: str,
  path: str,
  named: Iterable[Named],
  left_out: Sequence[LeftOut],
  locate: Callable[[str], str],
  options: ImageOptions,
) -> Collected:
  """Opens the header of every image.

  Args:
    kind, path: kind and path of the archive.
    named: its images.
    left_out: what was already left out when the archive was listed.
    locate: turns a path, as the archive writes it, into one that can be opened; refuses others.
    options: options for reading the files.

  Raises:
    ArchiveError: images lack coordinates although rows need them, no image has a time where --time
      points, or nothing can be used.
  """
  with ThreadPoolExecutor(_THREADS) as pool:
    found = list(pool.map(functools.partial(_open, locate=locate, options=options), named))
  items = [each for each in found if isinstance(each, Item)]
  unusable = [each for each in found if isinstance(each, LeftOut)]
  skipped = [*left_out, *unusable]
  for key in options.sensors:
    lost = [each for each in unusable if each.sensor == key]
    if lost and not any(item.sensor == key for item in items):
      raise ArchiveError(
        f"{path}: none of the {len(lost)} images of sensor {key!r} can be embedded. The first: "
        f"{lost[0].reason}"
      )
  if not items:
    reason = f" The first: {skipped[0].id}: {skipped[0].reason}" if skipped else ""
    raise ArchiveError(f"{path}: has no image that can be embedded.{reason}")
  nowhere = [item for item in items if not item.georeferenced]
  if nowhere and options.geometry:
    raise ArchiveError(
      f"{path}: {len(nowhere)} of {len(items)} images have no coordinate reference system or no "
      f"transform, the first {nowhere[0].source}. {_giving(nowhere[0], locate)}, or give "
      "--no-geometry to embed all without coordinates."
    )
  timeless = [item for item in items if not item.time]
  if options.time and len(timeless) == len(items):
    raise ArchiveError(
      f"{path}: --time {options.time.told} tells the time of none of {len(items)} images, the "
      f"first {items[0].source}."
    )
  if not options.geometry:
    # An item without a reference system counts as not georeferenced.
    items = [dataclasses.replace(item, crs="") for item in items]
  fits = {
    key: Fit(key, sensor, options.offset.get(key, sensor.scaling.offset))
    for key, sensor in options.sensors.items()
  }
  return Collected(
    kind=kind,
    path=os.path.abspath(path),
    items=items,
    left_out=skipped,
    reader=functools.partial(WindowReader, locate, fits, options.nodata),
    tiled=True,
    settings={
      "bands": {key: list(names) for key, names in options.bands.items()},
      "offset": dict(options.offset),
      "nodata": {key: str(value) for key, value in options.nodata.items()},
      "allow_outside": options.allow_outside,
      **({"any_resolution": True} if options.any_resolution else {}),
    },
    notes=[
      f"{key}: stored values are shifted by {fit.shift:+g} to the encoder's {fit.sensor.product}."
      for key, fit in fits.items()
      if fit.shift
    ]
    + [f"{len(timeless):,} images have no time of acquisition"] * bool(options.time and timeless),
  )


def _giving(item: Item, locate: Callable[[str], str]) -> str:
  """Advice on how to give an image the coordinates that it lacks."""
  path = locate(item.files[0].path)
  if math.isnan(item.transform[0]):
    return "Give them one"
  return f"Write the system into them, and name the new files: {giving_system(path)}"


def known_sensor(key: str, sensors: Mapping[str, Sensor]) -> str:
  """The key, if the encoder has that sensor.

  Raises:
    OptionError: the encoder does not have it.
  """
  if key not in sensors:
    raise OptionError(f"sensor {key!r}: the encoder knows {', '.join(sensors)}.")
  return key


def _open(image: Named, locate: Callable[[str], str], options: ImageOptions) -> Item | LeftOut:
  sensor = options.sensors[image.sensor]
  try:
    full = {path: locate(path) for path in image.paths}
    headers = {path: header_of(full[path]) for path in full}
    files = _files(image, sensor, headers, options.bands.get(image.sensor, ()))
    _check(image, headers, files, options)
    stack = stack_of(list(headers.values()))
    nbytes = sum(os.path.getsize(each) for each in full.values())
  except (DataError, OSError) as error:
    return LeftOut(image.id, image.sensor, ";".join(image.paths), str(error))
  finest = stack.finest
  return Item(
    id=image.id,
    sensor=image.sensor,
    source=source_of(files),
    height=finest.shape[0],
    width=finest.shape[1],
    crs=finest.crs,
    transform=finest.transform,
    time=image.time or _time(image, headers, options.time),
    labels=image.labels,
    nbytes=nbytes,
    files=files,
  )


def _check(
  image: Named,
  headers: Mapping[str, RasterHeader],
  files: Sequence[BandFile],
  options: ImageOptions,
) -> None:
  """Refuses files that are located by something not read here, or scaled unlike the encoder's."""
  key = image.sensor
  sensor = options.sensors[key]
  fit = Fit(key, sensor, options.offset.get(key, sensor.scaling.offset))
  for file in files:
    header = headers[file.path]
    check_scaling(
      file.path,
      key,
      fit.checked_as(),
      header.scales,
      header.offsets,
      [file.band],
      f"--offset {key}=",
      describable=False,
    )
    if options.geometry:
      check_placed(header)
  if not options.any_resolution:
    finest = stack_of(list(headers.values())).finest
    check_resolution(finest, sensor, ANY_RESOLUTION)


def _time(image: Named, headers: Mapping[str, RasterHeader], source: TimeSource | None) -> str:
  path = image.paths[0]
  return source.time(path.replace(os.sep, "/"), headers[path]) if source else ""


def _files(
  image: Named, sensor: Sensor, headers: Mapping[str, RasterHeader], told: Sequence[str]
) -> tuple[BandFile, ...]:
  if image.bands:
    for path, band in zip(image.paths, image.bands, strict=True):
      if band > headers[path].count:
        raise ArchiveError(f"{path}: has {headers[path].count} bands, band {band} was named")
    return tuple(BandFile(*each) for each in zip(image.paths, image.bands, strict=True))
  several = [path for path in image.paths if headers[path].count != 1]
  if several and len(image.paths) > 1:
    raise ArchiveError(f"{several[0]}: has {headers[several[0]].count} bands, expected one a file")
  if len(image.paths) == 1:
    (path,) = image.paths
    bands = bands_of(image.sensor, sensor, headers[path], told)
    return tuple(BandFile(path, band) for band in bands)
  stacked = stacked_header([headers[path] for path in image.paths])
  return tuple(
    BandFile(image.paths[number - 1], 1) for number in bands_of(image.sensor, sensor, stacked, told)
  )
