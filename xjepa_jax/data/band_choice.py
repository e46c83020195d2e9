"""Which bands of a file are those of a sensor, in the sensor's order.

Names decide where there are any: the file's own descriptions if every band of the sensor is among
them, or else those that a user gives. So a file may have its bands in any order, and others beside
them: an incidence angle, a quality mask, another sensor stacked on top.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from xjepa_jax.data.raster import Raster, RasterHeader
from xjepa_jax.errors import ImageError
from xjepa_jax.sensors import Sensor

OTHER = "-"  # among the names of a file's bands: one that is not the sensor's


def bands_of(
  key: str, sensor: Sensor, image: RasterHeader | Raster, told: Sequence[str]
) -> list[int]:
  """Numbers, from 1, of the file's bands that the sensor has, in the sensor's order.

  A file that names nothing has to have as many bands as the sensor, besides one of transparency,
  and is taken to have them in its order.

  Args:
    key: of the sensor, for messages.
    sensor: whose bands are wanted.
    image: of the file.
    told: names of the file's bands, in its order; empty if nothing was told.

  Raises:
    ImageError: the file does not have these bands, or calls them otherwise than was told.
  """
  count = image.count
  wanted = [plain_name(name) for name in sensor.band_names]
  described = [plain_name(text) for text in image.descriptions]
  if all(described.count(name) == 1 for name in wanted):
    return [described.index(name) + 1 for name in wanted]
  if told:
    return _told(key, image.path, count, wanted, described, told)
  if count == len(wanted) or (image.alpha == count == len(wanted) + 1):
    return list(range(1, len(wanted) + 1))
  names = f" described as {', '.join(image.descriptions)}" if any(described) else ""
  example = ",".join([*sensor.band_names, *[OTHER] * max(count - len(wanted), 0)][:count])
  raise ImageError(
    f"{image.path}: has {count} bands{names}; expected the {len(wanted)} of sensor {key!r} "
    f"({', '.join(sensor.band_names)}). Name the file's bands in their order, {OTHER!r} for one "
    f"that is not the sensor's: --bands {key}={example}"
  )


def _told(
  key: str,
  path: str,
  count: int,
  wanted: Sequence[str],
  described: Sequence[str],
  told: Sequence[str],
) -> list[int]:
  names = [plain_name(name) for name in told]
  if len(names) != count:
    raise ImageError(f"{path}: has {count} bands, --bands names {len(names)} for sensor {key!r}.")
  missing = [name for name in wanted if name not in names]
  if missing:
    raise ImageError(
      f"{path}: --bands {key}={','.join(told)} lacks {', '.join(missing)}, which sensor {key!r} "
      "has."
    )
  for name in wanted:
    at = names.index(name)
    if described and described[at] != name and described[at] in wanted:
      raise ImageError(
        f"{path}: calls its band {at + 1} {described[at]}, and --bands {key}={','.join(told)} "
        f"names it {name}. Give the file's bands their right descriptions, or none."
      )
  return [names.index(name) + 1 for name in wanted]


def plain_name(text: str) -> str:
  """A band's name as most spell it: "b8a" is "B8A", "B2" is "B02"."""
  name = text.strip().upper()
  return f"B0{name[1]}" if re.fullmatch(r"B\d", name) else name
