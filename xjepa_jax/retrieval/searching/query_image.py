"""Image files as queries: finding the file's sensor, and reading the part that the encoder sees.

A file is read and checked as in `embed`, so that a query is refused for the same reasons as a tile:
other units, another ground sampling distance, too little seen.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence

import numpy as np

from xjepa_jax.data import units
from xjepa_jax.data.band_choice import bands_of
from xjepa_jax.data.file_scaling import check_scaling
from xjepa_jax.data.raster import RasterHeader, check_placed
from xjepa_jax.data.resolution import check_resolution
from xjepa_jax.data.statistics import SensorStatistics
from xjepa_jax.errors import ImageError, SearchError
from xjepa_jax.model.inputs import SensorInput
from xjepa_jax.paths import StrPath
from xjepa_jax.retrieval.embedding.conforming import Fit
from xjepa_jax.retrieval.embedding.items import BandFile, Item, Window
from xjepa_jax.retrieval.embedding.windows import WindowReader, header_of

_LEAST_SEEN = 0.5  # share of the pixels that must have been seen
_TRUST = "give --trust-units (on the page: trust its units)"


@dataclasses.dataclass(frozen=True)
class QueryImage:
  """A query image.

  Attributes:
    sensor: the sensor's key in the encoder.
    values: (H, W, C) as the product stores them, of the size that the encoder takes.
    notes: remarks for the user on how it was read.
  """

  sensor: str
  values: np.ndarray
  notes: tuple[str, ...] = ()


def read_query(
  path: StrPath,
  inputs: Mapping[str, SensorInput],
  sensor: str | None = None,
  offset: float | None = None,
  trust_units: bool = False,
  told: Mapping[str, Sequence[str]] | None = None,
  nodata: Mapping[str, float | None] | None = None,
) -> QueryImage:
  """Read a GeoTIFF, JPEG 2000, PNG or npy file; from a larger image, its centre.

  Args:
    path: the file.
    inputs: sensor -> the images that the encoder takes.
    sensor: the image's sensor; None finds it by the file's bands and dtype.
    offset: offset of the stored values if it is not the encoder's (Sentinel-2's -1000).
    trust_units: accept values that contradict the sensor's units, and pixels of another size.
    told: sensor -> names of the file's bands in their order, as `bands_of` takes them.
    nodata: sensor -> the nodata value, whatever the file declares.

  Raises:
    ImageError: the file cannot be read, or does not fit the sensor.
    SearchError: it fits none or several of the encoder's sensors, shows too little, or its values
      are in units other than the sensor's.
  """
  path = os.fspath(path)
  if offset is not None and not math.isfinite(offset):
    raise SearchError(f"offset {offset}: expected a number such as -1000.")
  header = header_of(path)
  told, nodata = told or {}, nodata or {}
  key = _sensor(path, header, inputs, sensor, told)
  given = inputs[key]
  bands = bands_of(key, given.sensor, header, told.get(key, ()))
  check_placed(header)  # otherwise neither its orientation nor its pixel size is known
  rows, columns = header.shape
  if rows < given.height or columns < given.width:
    raise SearchError(
      f"{path}: is {rows} x {columns} pixels; the encoder looks at {given.height} x {given.width} "
      f"of {key!r}. Give a larger cut of the scene at the same resolution."
    )
  top, left = (rows - given.height) // 2, (columns - given.width) // 2
  if not trust_units:
    check_resolution(header, given.sensor, f"If they are right all the same, {_TRUST}.")
  files = tuple(BandFile(path, band) for band in bands)
  item = Item(path, key, path, rows, columns, transform=header.transform, files=files)
  its_own = given.sensor.scaling.offset
  fit = Fit(key, given.sensor, its_own if offset is None else offset)
  check_scaling(
    path, key, fit.checked_as(), header.scales, header.offsets, bands, "--offset ", False
  )
  reader = WindowReader(lambda name: name, {key: fit}, nodata)
  try:
    values, seen = reader.read(item, Window(left, top, given.width, given.height))
  finally:
    reader.close()
  if seen < _LEAST_SEEN:
    raise SearchError(
      f"{path}: only {seen:.0%} of the pixels looked at were seen; nodata is the rest. Give "
      "a part of the scene that was seen."
    )
  way = "Ask with --offset {offset}; an upload has a field for it"
  judge = units.Judge(given.sensor, nodata_option=f"--nodata {key}=", offset_way=way)
  wrong = [] if trust_units else judge.of_image(values)
  if wrong:
    raise SearchError(
      f"{path}: contradicts the units of the encoder's {key!r} ({given.sensor.product}): "
      f"{' '.join(wrong)} Ask with that product; give --offset if only an offset differs; "
      f"or, if they are right all the same, {_TRUST}."
    )
  notes = [] if trust_units else _notes(judge, values)
  if (rows, columns) != (given.height, given.width):
    notes.append(f"the middle {given.height} x {given.width} of {rows} x {columns} pixels")
  return QueryImage(key, values, tuple(notes))


def _notes(judge: units.Judge, values: np.ndarray) -> list[str]:
  """Return remarks on what one image cannot decide: bright or dark ground, or another product."""
  counted = SensorStatistics.of(judge.sensor)
  counted.add(judge.sensor, values)
  statistics = counted.to_json(judge.sensor)
  return judge.of_offset(statistics) + judge.remarks(statistics, {})


def _sensor(
  path: str,
  header: RasterHeader,
  inputs: Mapping[str, SensorInput],
  named: str | None,
  told: Mapping[str, Sequence[str]],
) -> str:
  if named is not None:
    if named not in inputs:
      raise SearchError(f"sensor {named!r}: the encoder knows {', '.join(inputs)}.")
    return named
  problems = {key: _problem(header, key, given, told) for key, given in inputs.items()}
  fitting = [key for key, problem in problems.items() if problem is None]
  if len(fitting) == 1:
    return fitting[0]
  what = f"{header.count} bands of {header.dtype}"
  if not fitting:
    known = "; ".join(
      f"{key}: {given.bands} of {given.sensor.dtype} ({', '.join(given.sensor.band_names)})"
      for key, given in inputs.items()
    )
    # A file with more or other bands may still be of the one sensor whose kind of values it has.
    near = [each for each in problems.values() if each] if header.count > 1 else []
    reason = f" {near[0]}" if len(near) == 1 else ""
    raise SearchError(
      f"{path}: holds {what}, which is no sensor of the encoder's. It takes {known}.{reason}"
    )
  raise SearchError(f"{path}: may be of {' or of '.join(fitting)}; name its sensor.")


def _problem(
  header: RasterHeader, key: str, given: SensorInput, told: Mapping[str, Sequence[str]]
) -> str | None:
  """Return why a file's bands are not the sensor's, "" if its values are of another kind, or None.

  None means that the bands fit.
  """
  # Signed and unsigned integers count as one kind.
  kinds = {np.dtype(each).kind.replace("u", "i") for each in (header.dtype, given.sensor.dtype)}
  if len(kinds) > 1:
    return ""
  try:
    bands_of(key, given.sensor, header, told.get(key, ()))
  except ImageError as error:
    return str(error) if header.count >= given.bands else ""
  return None
