"""Writes the pairs of an archive as GeoTIFF files, one folder per sensor."""

from __future__ import annotations

import os
import warnings
from datetime import datetime

from xjepa_jax.data.archive import Archive
from xjepa_jax.data.image_formats import import_rasterio
from xjepa_jax.data.pairs import Observation, Pair
from xjepa_jax.errors import WriteError
from xjepa_jax.paths import StrPath
from xjepa_jax.sensors import Sensor


def write_geotiffs(archive: Archive, directory: StrPath) -> int:
  """Write every pair's images as DIRECTORY/SENSOR/PAIR.tif, with band names, nodata and time.

  Returns:
    The number of files.

  Raises:
    WriteError: the directory is not empty, or cannot be written to.
    ImageError: rasterio is not installed.
  """
  directory = os.fspath(directory)
  if os.path.isdir(directory) and os.listdir(directory):
    raise WriteError(f"{directory}: is not empty. Name a new directory.")
  import_rasterio()
  count = 0
  for entries in archive.splits.values():
    for entry in entries:
      pair = archive.read(entry)
      for key, observation in pair.observations.items():
        path = os.path.join(directory, key, f"{pair.pair_id}.tif")
        try:
          os.makedirs(os.path.dirname(path), exist_ok=True)
          _write(path, pair, observation, archive.sensors[key])
        except OSError as error:
          raise WriteError(f"{path}: cannot be written ({error}).") from error
        count += 1
  return count


def _write(path: str, pair: Pair, observation: Observation, sensor: Sensor) -> None:
  rasterio = import_rasterio()
  height, width, bands = observation.values.shape
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    with rasterio.open(
      path,
      "w",
      driver="GTiff",
      height=height,
      width=width,
      count=bands,
      dtype=observation.values.dtype.name,
      crs=pair.crs or None,
      transform=rasterio.Affine(*pair.transform) if pair.crs else None,
      nodata=sensor.nodata,
      compress="deflate",
    ) as file:
      for number, name in enumerate(sensor.band_names, 1):
        file.write(observation.values[..., number - 1], number)
        file.set_band_description(number, name)
      if observation.acquired:
        time = datetime.fromisoformat(observation.acquired)
        file.update_tags(TIFFTAG_DATETIME=time.strftime("%Y:%m:%d %H:%M:%S"))
