"""The headers of an archive's images, read once: what is decided before any pixel is read."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from xjepa_jax.data.band_stack import files_of, stacked_header
from xjepa_jax.data.raster import Raster, RasterHeader, raster_of, read_header
from xjepa_jax.errors import DataError, ImageError
from xjepa_jax.sensors import Sensor

_MOST_BANDS = 32  # of a sensor; a taller image is not taken for one with bands first


@dataclasses.dataclass(frozen=True)
class Headers:
  """What the files of an archive say of themselves.

  Attributes:
    read: path, as the archive has it -> header.
    problems: path -> why it has none.
  """

  read: Mapping[str, RasterHeader]
  problems: Mapping[str, str]

  def __getitem__(self, path: str) -> RasterHeader:
    """The header of an image that was read.

    Raises:
      ImageError: it has none.
    """
    if path in self.problems:
      raise ImageError(self.problems[path])
    return self.read[path]

  def usual_first(self, paths: Sequence[str]) -> list[str]:
    """The paths, those before the others whose bands, type and nodata most of them have."""
    kinds = {path: _kind(self.read[path]) for path in paths if path in self.read}
    if not kinds:
      return list(paths)
    ((usual, _),) = Counter(kinds.values()).most_common(1)
    return sorted(paths, key=lambda path: kinds.get(path) != usual)


def read_headers(paths: Iterable[str], locate: Callable[[str], str]) -> Headers:
  """Reads the header of every image, with a bar where that takes a while.

  Args:
    paths: as the archive has them, those of several files "a.tif;b.tif".
    locate: from one of those to a path that can be opened.
  """
  from tqdm import tqdm

  read: dict[str, RasterHeader] = {}
  problems: dict[str, str] = {}
  for path in tqdm(list(dict.fromkeys(paths)), unit="files", desc="headers", delay=5):
    try:
      parts = [read_header(locate(each)) for each in files_of(path)]
      header = parts[0] if len(parts) == 1 else stacked_header(parts)
    except DataError as error:
      problems[path] = str(error)
    else:  # of a hundred thousand files, tags would take more memory than all else
      read[path] = dataclasses.replace(header, tags={}, crs=sys.intern(header.crs))
  return Headers(read, problems)


def without_pixels(header: RasterHeader) -> Raster:
  """The image as `grids` compares it; instead of pixels it has zeros that take no memory."""
  values = np.broadcast_to(np.zeros((), header.dtype), (*header.shape, header.count))
  return raster_of(header, values)


def one_column(header: RasterHeader, sensor: Sensor) -> Raster:
  """The start of a column of the image, of a value that counts as seen: its bands can be checked.

  Its height is the image's as far as that could be a number of bands, put first by mistake.
  """
  image = without_pixels(header)
  value = min(set(range(1, header.count + 3)) - {sensor.nodata, *image.declared})
  height = min(header.shape[0], _MOST_BANDS)
  values = np.full((height, 1, header.count), value, header.dtype)
  return dataclasses.replace(image, values=values)


def _kind(header: RasterHeader) -> tuple[int, str, str, tuple[str, ...]]:
  return header.count, header.dtype, str(header.nodata), header.descriptions
