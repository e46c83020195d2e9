"""The headers of an archive's images, read once, for all decisions made before pixels are read."""

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

_MOST_BANDS = 32  # heights above this cannot be a number of bands put first by mistake


@dataclasses.dataclass(frozen=True)
class Headers:
  """The headers of the files of an archive.

  Attributes:
    read: path as in the archive -> header.
    problems: path -> why its header cannot be read.
  """

  read: Mapping[str, RasterHeader]
  problems: Mapping[str, str]

  def __getitem__(self, path: str) -> RasterHeader:
    """The header of an image.

    Raises:
      ImageError: it could not be read.
    """
    if path in self.problems:
      raise ImageError(self.problems[path])
    return self.read[path]

  def usual_first(self, paths: Sequence[str]) -> list[str]:
    """The paths, starting with those that have the most frequent bands, dtype and nodata."""
    kinds = {path: _kind(self.read[path]) for path in paths if path in self.read}
    if not kinds:
      return list(paths)
    ((usual, _),) = Counter(kinds.values()).most_common(1)
    return sorted(paths, key=lambda path: kinds.get(path) != usual)


def read_headers(paths: Iterable[str], locate: Callable[[str], str]) -> Headers:
  """Read the header of every image, with a progress bar if that takes long.

  Args:
    paths: paths as in the archive; several files of one image are joined as "a.tif;b.tif".
    locate: turns one of those into a path that can be opened.
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
    else:  # for a hundred thousand files, tags would take more memory than everything else
      read[path] = dataclasses.replace(header, tags={}, crs=sys.intern(header.crs))
  return Headers(read, problems)


def without_pixels(header: RasterHeader) -> Raster:
  """The image as `grids` compares it; broadcast zeros stand in for pixels and take no memory."""
  values = np.broadcast_to(np.zeros((), header.dtype), (*header.shape, header.count))
  return raster_of(header, values)


def one_column(header: RasterHeader, sensor: Sensor) -> Raster:
  """The start of a column of the image, filled with a valid value, to check its bands.

  It is as tall as the image, as long as that could be a number of bands put first by mistake.
  """
  image = without_pixels(header)
  value = min(set(range(1, header.count + 3)) - {sensor.nodata, *image.declared})
  height = min(header.shape[0], _MOST_BANDS)
  values = np.full((height, 1, header.count), value, header.dtype)
  return dataclasses.replace(image, values=values)


def _kind(header: RasterHeader) -> tuple[int, str, str, tuple[str, ...]]:
  return header.count, header.dtype, str(header.nodata), header.descriptions
