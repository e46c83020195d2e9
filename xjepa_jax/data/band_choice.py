"""Matches the bands of a file with those of a sensor, in the sensor's order.

Names decide where there are any: the file's own band descriptions if they include every band of the
sensor, or else the names that a user gives. A file may therefore have its bands in any order, and
other bands besides: an incidence angle, a quality mask, another sensor stacked on top. Single-band
files are treated as one file with all of the bands.
"""

from __future__ import annotations

from collections.abc import Sequence

from xjepa_jax.data.band_names import named_bands, plain_name
from xjepa_jax.data.raster import Raster, RasterHeader
from xjepa_jax.errors import ImageError
from xjepa_jax.sensors import Sensor

OTHER = "-"  # name given to a band of the file that does not belong to the sensor


def bands_of(
  key: str, sensor: Sensor, image: RasterHeader | Raster, told: Sequence[str]
) -> list[int]:
  """Numbers, from 1, of the file's bands that belong to the sensor, in the sensor's order.

  A file without band descriptions must have as many bands as the sensor, apart from an alpha band,
  and is assumed to have them in the sensor's order.

  Args:
    key: key of the sensor, for messages.
    sensor: sensor whose bands are wanted.
    image: the file.
    told: names of the file's bands, in its order, from the user; empty if not given.

  Raises:
    ImageError: the file lacks some of these bands, or its descriptions contradict their order or
      the names given.
  """
  wanted = [plain_name(name) for name in sensor.band_names]
  described = named_bands(image.descriptions, wanted)
  if all(described.count(name) == 1 for name in wanted):
    return [described.index(name) + 1 for name in wanted]
  if told:
    return _told(key, image, wanted, described, told)
  count = image.count
  # A trailing alpha band is not one of the sensor's and does not count.
  if count != len(wanted) and not (image.alpha == count == len(wanted) + 1):
    raise ImageError(f"{_called(image)}: {_wrong_number(key, sensor, image)}")
  # A band without a description is accepted in its place; a description must agree with it.
  for number, (found, expected) in enumerate(zip(described, wanted, strict=False), 1):
    if found not in ("", expected):
      raise ImageError(
        f"{_called(image, number)}: {_calling(image, number)} {image.descriptions[number - 1]!r}, "
        f"where sensor {key!r} ({', '.join(sensor.band_names)}) has {expected}. If it is another "
        f"product, describe that (--sensors); if its values are those of {expected}, correct what "
        f"the file calls it: {_renaming(image, number, expected)}"
      )
  return list(range(1, len(wanted) + 1))


def _told(
  key: str,
  image: RasterHeader | Raster,
  wanted: Sequence[str],
  described: Sequence[str],
  told: Sequence[str],
) -> list[int]:
  names = [plain_name(name) for name in told]
  if len(names) != image.count:
    raise ImageError(
      f"{_called(image)}: has {image.count} bands, --bands names {len(names)} for sensor {key!r}."
    )
  missing = [name for name in wanted if name not in names]
  if missing:
    raise ImageError(
      f"{_called(image)}: --bands {key}={','.join(told)} lacks {', '.join(missing)}, which sensor "
      f"{key!r} has."
    )
  for name in wanted:
    at = names.index(name)
    if described and described[at] not in ("", name):
      raise ImageError(
        f"{_called(image, at + 1)}: {_calling(image, at + 1)} {image.descriptions[at]}, and "
        f"--bands {key}={','.join(told)} names it {name}. If that is right, correct what the file "
        f"calls it: {_renaming(image, at + 1, name)}"
      )
  return [names.index(name) + 1 for name in wanted]


def _wrong_number(key: str, sensor: Sensor, image: RasterHeader | Raster) -> str:
  names = ", ".join(image.descriptions)
  described = f" described as {names}" if any(image.descriptions) else ""
  expected = f"the {len(sensor.bands)} of sensor {key!r} ({', '.join(sensor.band_names)})"
  if image.files:
    return (
      f"are {len(image.files)} files of one band each{described}; expected one file of all bands, "
      f"or one for each of {expected}. Add the files that are missing, or leave bands out of the "
      f"sensor with --bands."
    )
  # An example that the user can copy: as many names as the file has bands.
  others = [OTHER] * max(image.count - len(sensor.bands), 0)
  example = ",".join([*sensor.band_names, *others][: image.count])
  return (
    f"has {image.count} bands{described}; expected {expected}. Name the file's bands in their "
    f"order, {OTHER!r} for one that is not the sensor's: --bands {key}={example}"
  )


def _called(image: RasterHeader | Raster, number: int = 0) -> str:
  """The file of one band, or the first and last file if `number` is 0."""
  if not image.files:
    return image.path
  return image.files[number - 1] if number else f"{image.files[0]} to {image.files[-1]}"


def _calling(image: RasterHeader | Raster, number: int) -> str:
  return "calls its band" if image.files else f"calls its band {number}"


def _renaming(image: RasterHeader | Raster, number: int, name: str) -> str:
  place = 1 if image.files else number
  return (
    f"python -c \"import rasterio; rasterio.open('{_called(image, number)}', 'r+')"
    f".set_band_description({place}, '{name}')\""
  )
