"""Which bands of a file are those that the encoder takes, in its order."""

from __future__ import annotations

from collections.abc import Sequence

from xjepa_jax.data.importing.file_sensors import plain_name
from xjepa_jax.data.raster import RasterHeader
from xjepa_jax.errors import ImageError
from xjepa_jax.sensors import Sensor


def bands_of(key: str, sensor: Sensor, header: RasterHeader, told: Sequence[str]) -> list[int]:
  """Numbers, from 1, of the file's bands that the sensor has, in the sensor's order.

  Names decide where there are any: those that were told, or else the file's own descriptions if
  every band of the sensor is among them. A file that names nothing has to have as many bands as the
  sensor, and is taken to have them in its order.

  Args:
    key: of the sensor, for messages.
    sensor: as the encoder has it.
    header: of the file.
    told: names of the file's bands, in its order; empty if nothing was told.

  Raises:
    ImageError: the file does not have these bands.
  """
  wanted = [plain_name(name) for name in sensor.band_names]
  if told:
    if len(told) != header.count:
      raise ImageError(
        f"{header.path}: has {header.count} bands, --bands names {len(told)} for sensor {key!r}."
      )
    names = [plain_name(name) for name in told]
    missing = [name for name in wanted if name not in names]
    if missing:
      raise ImageError(
        f"{header.path}: --bands {key}={','.join(told)} lacks {', '.join(missing)}, which the "
        "encoder takes."
      )
    return [names.index(name) + 1 for name in wanted]
  names = [plain_name(text) for text in header.descriptions]
  if all(names.count(name) == 1 for name in wanted):
    return [names.index(name) + 1 for name in wanted]
  if header.count == len(wanted):
    return list(range(1, header.count + 1))
  described = f" described as {', '.join(header.descriptions)}" if any(names) else ""
  raise ImageError(
    f"{header.path}: has {header.count} bands{described}; the encoder takes the {len(wanted)} of "
    f"sensor {key!r} ({', '.join(sensor.band_names)}). Name the file's bands in their order: "
    f"--bands {key}=..."
  )
