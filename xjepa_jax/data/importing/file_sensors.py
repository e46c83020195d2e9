"""Adapts sensors to their files: the files' dtype, and nodata from the files or the user."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from xjepa_jax.data.band_choice import bands_of
from xjepa_jax.data.band_stack import files_of, read_image
from xjepa_jax.data.declared_nodata import hidden_by_declared, representable
from xjepa_jax.data.file_scaling import check_scaling
from xjepa_jax.data.raster import Raster
from xjepa_jax.errors import ArchiveError, ImageError, SensorError
from xjepa_jax.sensors import Sensor

_LOOKED_AT = 100  # files of a sensor that are tried until one can be read for dtype and nodata


@dataclasses.dataclass(frozen=True)
class FileSensors:
  """Sensors adapted to their files.

  Attributes:
    sensors: key -> description with the dtype and nodata value of the stored values.
    found: key -> dtype of the files. float64 is stored as float32.
    nodata_given: keys of the sensors whose nodata value the user gave, whatever the files declare.
    told: key -> names of its files' bands in their order, where the user gave them.
    notes: changes to the sensors, for the import's summary.
  """

  sensors: dict[str, Sensor]
  found: dict[str, str]
  nodata_given: tuple[str, ...]
  told: Mapping[str, Sequence[str]]
  notes: list[str]


def meet_files(
  src: str,
  sensors: Mapping[str, Sensor],
  nodata: Mapping[str, float | None],
  paths: Mapping[str, Sequence[str]],
  locate: Callable[[str], str],
  told: Mapping[str, Sequence[str]] | None = None,
) -> FileSensors:
  """Adapt each sensor to the first of its files that can be used.

  Args:
    src: the archive, for messages.
    sensors: key -> description.
    nodata: key -> value or None, for the sensors to which the user gave one.
    paths: key -> its files.
    locate: turns one of those into a path that can be opened.
    told: key -> names of its files' bands in their order, where the user gave them.

  Raises:
    ArchiveError: a sensor has no files, or none of its first files can be used.
    SensorError: the files' dtype cannot hold a given nodata value.
  """
  met = FileSensors({}, {}, tuple(nodata), told or {}, [])
  for key, sensor in sensors.items():
    files = paths.get(key, ())[:_LOOKED_AT]
    raster = _first_usable(src, key, sensor, files, locate, met.told.get(key, ()))
    met.found[key] = raster.values.dtype.name
    met.sensors[key] = _fit(key, sensor, raster, nodata, met.notes)
  return met


def as_stored(key: str, raster: Raster, met: FileSensors) -> Raster:
  """The sensor's bands of an image, in the sensor's dtype, with nodata where the file hides values.

  Raises:
    ImageError: the image lacks a band, has another dtype than the sensor's first file, declares
      another scale or offset, hides values although the sensor has no nodata value, or has no valid
      pixel.
  """
  sensor, dtype = met.sensors[key], raster.values.dtype.name
  raster = _chosen(key, sensor, raster, met.told.get(key, ()))
  if dtype != met.found[key]:
    raise ImageError(
      f"{raster.path}: holds {dtype}, but the first file of sensor {key!r} holds "
      f"{met.found[key]}. Convert it."
    )
  unseen = None
  if key not in met.nodata_given:
    unseen = hidden_by_declared(sensor, raster.values, raster.declared)
  # Only nodata values exceed the range of float32. They become infinite and remain nodata.
  with np.errstate(over="ignore"):
    values = raster.values.astype(sensor.dtype, copy=False)
  if unseen is not None:
    values = _hidden_by(f"its nodata, {_listed(raster)},", key, sensor, raster.path, values, unseen)
  if raster.hidden is not None:
    values = _hidden_by("a mask", key, sensor, raster.path, values, raster.hidden)
  if not sensor.valid(values).any():
    raise ImageError(
      f"{raster.path}: no pixel is valid (all are nodata, here {sensor.nodata}, or NaN)."
    )
  return dataclasses.replace(raster, values=values, hidden=None)


def as_told(key: str, sensor: Sensor, raster: Raster) -> Raster:
  """An image that already has its sensor's bands and dtype, with its masks applied.

  Raises:
    ImageError: it declares another scale or offset than the sensor has, or a mask hides part of it
      and the sensor has no nodata value.
  """
  bands = range(1, raster.count + 1)
  check_scaling(raster.path, key, sensor, raster.scales, raster.offsets, bands)
  if raster.hidden is None:
    return raster
  values = _hidden_by("a mask", key, sensor, raster.path, raster.values, raster.hidden)
  return dataclasses.replace(raster, values=values, hidden=None)


def _hidden_by(
  what: str, key: str, sensor: Sensor, path: str, values: np.ndarray, hidden: np.ndarray
) -> np.ndarray:
  """Replace hidden values with the sensor's nodata; `what` names in messages what hides them."""
  try:
    return sensor.hide(values, hidden)
  except SensorError as error:
    limits = np.iinfo(values.dtype)
    unused = next((v for v in (0, limits.max, limits.min) if not (values == v).any()), 0)
    raise ImageError(
      f"{path}: {what} hides {hidden.mean():.0%} of it. {error} Give sensor {key!r} one: --nodata "
      f"{key}={unused}."
    ) from error


def _listed(raster: Raster) -> str:
  return ", ".join(sorted({f"{value:g}" for value in raster.declared if value is not None}))


def _chosen(key: str, sensor: Sensor, raster: Raster, told: Sequence[str]) -> Raster:
  """The sensor's bands of an image, in the sensor's order, hidden where the image is transparent.

  Raises:
    ImageError: a band is missing, or the image declares another scaling than the sensor's.
  """
  if raster.path.lower().endswith(".npy") and raster.count != len(sensor.bands):
    _check_bands_last(sensor, raster)
  bands = bands_of(key, sensor, raster, told)
  check_scaling(raster.path, key, sensor, raster.scales, raster.offsets, bands)
  hidden = raster.hidden
  # An alpha band masks pixels unless it is one of the sensor's bands.
  if raster.alpha and raster.alpha not in bands:
    transparent = raster.values[..., raster.alpha - 1 : raster.alpha] == 0
    if transparent.any():
      hidden = transparent if hidden is None else hidden | transparent
  places = [number - 1 for number in bands]
  if places == list(range(raster.count)):
    return dataclasses.replace(raster, hidden=hidden)
  if hidden is not None and hidden.shape[2] > 1:
    hidden = hidden[..., places]
  values = np.ascontiguousarray(raster.values[..., places])
  of_bands = tuple(raster.declared[place] for place in places) if raster.nodata_of_bands else ()
  return dataclasses.replace(
    raster, values=values, hidden=hidden, nodata_of_bands=of_bands, descriptions=(), scales=(),
    offsets=(), alpha=0,
  )  # fmt: skip


def _check_bands_last(sensor: Sensor, raster: Raster) -> None:
  if raster.values.shape[0] == len(sensor.bands):
    raise ImageError(
      f"{raster.path}: has {raster.count} bands, and seems to have bands first. Save it as "
      "(H, W, C), as by np.moveaxis(image, 0, -1)."
    )


def _first_usable(
  src: str,
  key: str,
  sensor: Sensor,
  paths: Sequence[str],
  locate: Callable[[str], str],
  told: Sequence[str],
) -> Raster:
  reasons = []
  for path in paths:
    try:
      raster = read_image([locate(each) for each in files_of(path)], "nearest")
      return _chosen(key, sensor, raster, told)
    except ImageError as error:
      reasons.append(str(error))
  if not paths:
    raise ArchiveError(f"{src}: no pair has a file for sensor {key!r}. Leave it out of the import.")
  raise ArchiveError(
    f"{src}: none of the first {len(paths)} files of sensor {key!r} can be used: {reasons[0]}"
  )


def _fit(
  key: str,
  sensor: Sensor,
  raster: Raster,
  given: Mapping[str, float | None],
  notes: list[str],
) -> Sensor:
  """The sensor with the dtype and the nodata value of its files."""
  found = raster.values.dtype.name
  dtype = "float32" if found == "float64" else found
  if found == "float64":
    notes.append(f"{key}: the files hold float64; values are stored as float32.")
  elif dtype != sensor.dtype:
    notes.append(f"{key}: the files hold {found}, not {sensor.dtype}; values stay {found}.")
  # The user's nodata takes precedence over the files', and that over the sensor's.
  nodata, declared = sensor.nodata, raster.nodata
  if key in given:
    nodata = given[key]
    if declared is not None and not _same(declared, nodata, dtype):
      notes.append(f"{key}: the files declare nodata {declared:g}; {nodata} is used, as told.")
  elif declared is not None and not representable(declared, dtype):
    notes.append(f"{key}: the files declare nodata {declared:g}, which is no {dtype}; ignored.")
  elif declared is not None and not _same(declared, nodata, dtype):
    notes.append(f"{key}: the files declare nodata {declared:g}, not {nodata}; theirs is used.")
    nodata = declared
  if key not in given and nodata is not None and not representable(nodata, dtype):
    notes.append(f"{key}: the sensor's nodata {nodata} is no {dtype}; there is none now.")
    nodata = None
  if nodata is not None and dtype == "float32":
    with np.errstate(over="ignore"):
      nodata = float(np.float32(nodata))  # rounded as the values are; -1.8e308 becomes -inf
  return dataclasses.replace(sensor, dtype=dtype, nodata=nodata)


def _same(a: float, b: float | None, dtype: str) -> bool:
  if b is None or not (representable(a, dtype) and representable(b, dtype)):
    return False
  with np.errstate(over="ignore"):
    first, second = (np.float64(value).astype(dtype) for value in (a, b))
  return bool(np.array_equal(first, second, equal_nan=True))
