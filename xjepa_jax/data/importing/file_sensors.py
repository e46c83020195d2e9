"""Sensors as their files show them: with the files' dtype, and the files' or a given nodata."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from xjepa_jax.data.raster import Raster, read_raster
from xjepa_jax.errors import ArchiveError, ImageError
from xjepa_jax.sensors import Sensor

_LOOKED_AT = 100  # files of a sensor that are tried for one that shows its dtype and nodata


@dataclasses.dataclass(frozen=True)
class FileSensors:
  """Sensors that have met their files.

  Attributes:
    sensors: key -> description with the dtype and nodata value under which values are stored.
    found: key -> dtype of the files. float64 is stored as float32.
    nodata_given: keys of the sensors whose nodata value was given, whatever files declare.
    notes: what about the sensors was changed, for the import's summary.
  """

  sensors: dict[str, Sensor]
  found: dict[str, str]
  nodata_given: tuple[str, ...]
  notes: list[str]


def meet_files(
  src: str,
  sensors: Mapping[str, Sensor],
  nodata: Mapping[str, float | None],
  paths: Mapping[str, Sequence[str]],
  locate: Callable[[str], str],
) -> FileSensors:
  """Fits each sensor to the first of its files that can be used.

  Args:
    src: the archive, for messages.
    sensors: key -> description.
    nodata: key -> value or None, for those to which it was given.
    paths: key -> its files.
    locate: from one of those to a path that can be opened.

  Raises:
    ArchiveError: a sensor has no files, or none of the first can be used.
    SensorError: a given nodata value is none of the files' dtype.
  """
  met = FileSensors({}, {}, tuple(nodata), [])
  for key, sensor in sensors.items():
    raster = _first_usable(src, key, sensor, paths.get(key, ())[:_LOOKED_AT], locate)
    met.found[key] = raster.values.dtype.name
    met.sensors[key] = _fit(key, sensor, raster, nodata, met.notes)
  return met


def as_stored(key: str, raster: Raster, met: FileSensors) -> Raster:
  """The image in its sensor's dtype.

  Raises:
    ImageError: it has another number or order of bands than its sensor, another dtype than the
      sensor's first file, declares a nodata value of its own, or shows nothing.
  """
  sensor, dtype = met.sensors[key], raster.values.dtype.name
  _check_bands(key, sensor, raster)
  if dtype != met.found[key]:
    raise ImageError(
      f"{raster.path}: holds {dtype}, but the first file of sensor {key!r} holds "
      f"{met.found[key]}. Convert it."
    )
  declared = raster.nodata
  if (
    declared is not None
    and key not in met.nodata_given
    and _representable(declared, sensor.dtype)
    and not _same(declared, sensor.nodata, sensor.dtype)
  ):
    raise ImageError(
      f"{raster.path}: declares the nodata value {declared:g}, but sensor {key!r} has "
      f"{sensor.nodata}. If all files are to have one, give it: --nodata {key}=VALUE."
    )
  with np.errstate(over="ignore"):  # beyond float32 lie only markers; infinite, they stay unseen
    values = raster.values.astype(sensor.dtype, copy=False)
  if not sensor.valid(values).any():
    raise ImageError(
      f"{raster.path}: no pixel is valid (all are nodata, here {sensor.nodata}, or NaN)."
    )
  return dataclasses.replace(raster, values=values)


def _check_bands(key: str, sensor: Sensor, raster: Raster) -> None:
  """Refuses an image that has not as many bands as its sensor, or says it has another order."""
  expected, shape = len(sensor.bands), raster.values.shape
  if shape[2] == expected:
    _check_order(key, sensor, raster)
    return
  hint = f"If it holds other bands, name them in their order: --bands {key}=..."
  if raster.path.lower().endswith(".npy") and shape[0] == expected:
    hint = "It seems to have bands first: save it as (H, W, C), as by np.moveaxis(image, 0, -1)."
  raise ImageError(
    f"{raster.path}: has {shape[2]} bands, expected the {expected} of sensor {key!r} "
    f"({', '.join(sensor.band_names)}). {hint}"
  )


def _check_order(key: str, sensor: Sensor, raster: Raster) -> None:
  """Refuses an image whose file calls its bands by the sensor's names, in another order."""
  told = [plain_name(text) for text in raster.descriptions]
  names = {plain_name(name): name for name in sensor.band_names}
  if told != list(names) and sorted(told) == sorted(names):
    found = ",".join(names[name] for name in told)
    raise ImageError(
      f"{raster.path}: its bands are, by their descriptions, {found}; expected the order of sensor "
      f"{key!r}, {','.join(sensor.band_names)}. If all files have theirs, say so: "
      f"--bands {key}={found}."
    )


def plain_name(text: str) -> str:
  """A band's name as most spell it: "b8a" is "B8A", "B2" is "B02"."""
  name = text.strip().upper()
  return f"B0{name[1]}" if re.fullmatch(r"B\d", name) else name


def _first_usable(
  src: str, key: str, sensor: Sensor, paths: Sequence[str], locate: Callable[[str], str]
) -> Raster:
  reasons = []
  for path in paths:
    try:
      raster = read_raster(locate(path))
      _check_bands(key, sensor, raster)
      return raster
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
  nodata, declared = sensor.nodata, raster.nodata
  if key in given:
    nodata = given[key]
    if declared is not None and not _same(declared, nodata, dtype):
      notes.append(f"{key}: the files declare nodata {declared:g}; {nodata} is used, as told.")
  elif declared is not None and not _representable(declared, dtype):
    notes.append(f"{key}: the files declare nodata {declared:g}, which is no {dtype}; ignored.")
  elif declared is not None and not _same(declared, nodata, dtype):
    notes.append(f"{key}: the files declare nodata {declared:g}, not {nodata}; theirs is used.")
    nodata = declared
  if key not in given and nodata is not None and not _representable(nodata, dtype):
    notes.append(f"{key}: the sensor's nodata {nodata} is no {dtype}; there is none now.")
    nodata = None
  if nodata is not None and dtype == "float32":
    with np.errstate(over="ignore"):
      nodata = float(np.float32(nodata))  # as it is in the values; -1.8e308 becomes -inf
  return dataclasses.replace(sensor, dtype=dtype, nodata=nodata)


def _representable(value: float, dtype: str) -> bool:
  if dtype.startswith("float"):
    return True
  limits = np.iinfo(dtype)
  return float(value).is_integer() and limits.min <= value <= limits.max


def _same(a: float, b: float | None, dtype: str) -> bool:
  if b is None or not (_representable(a, dtype) and _representable(b, dtype)):
    return False
  with np.errstate(over="ignore"):
    first, second = (np.float64(value).astype(dtype) for value in (a, b))
  return bool(np.array_equal(first, second, equal_nan=True))
