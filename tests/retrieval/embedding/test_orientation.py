"""North lies above, and pixels have the size that the encoder knows, or an image is refused."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.retrieval.embedding.conftest import WriteTif
from xjepa_jax.data.raster import read_header
from xjepa_jax.data.resolution import pixel_metres
from xjepa_jax.errors import ArchiveError, ImageError, SearchError
from xjepa_jax.export import load_encoder
from xjepa_jax.retrieval.embedding.archives import ArchiveOptions, collect
from xjepa_jax.retrieval.embedding.items import Window
from xjepa_jax.retrieval.searching.query_image import read_query
from xjepa_jax.sensor_presets import preset

SENSORS = {"optical": preset("sentinel2_l2a").select(["B04", "B03", "B02"])}
OPTIONS = ArchiveOptions(SENSORS)
GROUND = np.random.default_rng(0).integers(200, 4000, (16, 16, 3)).astype(np.uint16)
# How the same ground may be stored: its values, and where its pixels lie.
STORED = {
  "north up": (GROUND, (10, 0, 5e5, 0, -10, 5e6)),
  "south up": (GROUND[::-1], (10, 0, 5e5, 0, 10, 5e6 - 160)),
  "mirrored": (GROUND[:, ::-1], (-10, 0, 5e5 + 160, 0, -10, 5e6)),
  "turned by a half": (GROUND[::-1, ::-1], (-10, 0, 5e5 + 160, 0, 10, 5e6 - 160)),
  "on its side": (GROUND.swapaxes(0, 1), (0, 10, 5e5, -10, 0, 5e6)),
  "turned by a quarter": (np.rot90(GROUND), (0, -10, 5e5 + 160, -10, 0, 5e6)),
}


def read(path: Path, options: ArchiveOptions = OPTIONS) -> np.ndarray:
  found = collect(str(path), options)
  (item,) = found.items
  reader = found.reader()
  try:
    return reader.read(item, Window(0, 0, 16, 16))[0]
  finally:
    reader.close()


@pytest.mark.parametrize("how", STORED)
def test_however_the_same_ground_is_stored_the_encoder_sees_it_north_up(
  how: str, write_tif: WriteTif, tile_encoder: str
) -> None:
  values, transform = STORED[how]
  path = write_tif("a.tif", values, transform=transform)
  np.testing.assert_array_equal(read(path), GROUND)
  query = read_query(str(path), load_encoder(tile_encoder).inputs, "optical")
  np.testing.assert_array_equal(query.values, GROUND)


@pytest.mark.parametrize(
  ("crs", "transform", "metres"),
  [
    ("EPSG:32633", (60, 0, 5e5, 0, -60, 5e6), (60, 60)),
    ("EPSG:4326", (1e-4, 0, 15, 0, -1e-4, 65), (111.195e-1 * np.cos(np.radians(65)), 11.1195)),
    ("EPSG:3857", (20, 0, 1.5e6, 0, -20, 8399737.9), (10, 10)),  # at 60 degrees north
    ("EPSG:2263", (32.8084, 0, 1e6, 0, -32.8084, 2e5), (10, 10)),  # feet
  ],
)
def test_pixels_are_measured_in_metres_in_any_system(
  crs: str, transform: tuple[float, ...], metres: tuple[float, float], write_tif: WriteTif
) -> None:
  path = write_tif("a.tif", GROUND, crs=crs, transform=transform)
  assert pixel_metres(read_header(str(path))) == pytest.approx(metres, rel=6e-3)


@pytest.mark.parametrize(
  ("crs", "transform", "said"),
  [
    ("EPSG:32633", (60, 0, 5e5, 0, -60, 5e6), r"(60|59\.\d|60\.\d) x (60|59\.\d|60\.\d) m"),
    ("EPSG:4326", (9e-5, 0, 15, 0, -9e-5, 65), "4.23 x 10 m"),
  ],
)
def test_pixels_of_another_size_are_refused_unless_it_was_said(
  crs: str, transform: tuple[float, ...], said: str, write_tif: WriteTif, tile_encoder: str
) -> None:
  path = write_tif("a.tif", GROUND, crs=crs, transform=transform)
  with pytest.raises(ArchiveError, match=f"pixels of {said}, and .* has 10 m.*--any-resolution"):
    collect(str(path), OPTIONS)
  np.testing.assert_array_equal(read(path, ArchiveOptions(SENSORS, any_resolution=True)), GROUND)
  inputs = load_encoder(tile_encoder).inputs
  with pytest.raises(ImageError, match="--trust-units"):
    read_query(str(path), inputs, "optical")
  assert read_query(str(path), inputs, "optical", trust_units=True).sensor == "optical"


def test_what_the_error_says_of_gdalwarp_makes_pixels_of_the_right_size(
  write_tif: WriteTif, tmp_path: Path
) -> None:
  if shutil.which("gdalwarp") is None:
    pytest.skip("gdalwarp is not installed: apt-get install gdal-bin")
  path = write_tif("a.tif", GROUND, crs="EPSG:4326", transform=(9e-5, 0, 15, 0, -9e-5, 65))
  with pytest.raises(ArchiveError) as refused:
    collect(str(path), OPTIONS)
  command = re.findall(r"mkdir -p .*gdalwarp .*?\.tif .*?\.tif", str(refused.value))[0]
  told = command.replace("EPSG:CODE", "EPSG:32633")
  subprocess.run(told, shell=True, check=True, capture_output=True, timeout=60)
  assert pixel_metres(read_header(told.split()[-1])) == pytest.approx((10, 10), rel=6e-3)


def test_levels_of_8_bits_are_no_reflectance_in_embed_and_as_a_query(
  write_tif: WriteTif, tile_encoder: str
) -> None:
  path = write_tif("a.tif", (GROUND % 256).astype(np.uint8))
  found = collect(str(path), OPTIONS)
  with pytest.raises(ImageError, match="holds uint8, levels of a picture"):
    found.reader().read(found.items[0], Window(0, 0, 16, 16))
  with pytest.raises((ImageError, SearchError), match="levels of a picture"):
    read_query(str(path), load_encoder(tile_encoder).inputs, "optical")


def test_a_query_s_bands_and_fill_are_told_as_the_error_says(
  write_tif: WriteTif, tile_encoder: str
) -> None:
  inputs = load_encoder(tile_encoder).inputs
  rng = np.random.default_rng(0)
  angle = np.full((16, 16, 1), 38, np.float32)
  radar = rng.normal((-11, -18), 2, (16, 16, 2)).astype(np.float32)
  path = str(write_tif("angle.tif", np.concatenate([angle, radar], axis=-1)))
  with pytest.raises(SearchError, match="--bands radar=VV,VH,-"):
    read_query(path, inputs)
  found = read_query(path, inputs, told={"radar": ["-", "VV", "VH"]})
  np.testing.assert_array_equal(found.values, radar)
  filled = radar.copy()
  filled[:, :6] = -999
  path = str(write_tif("fill.tif", filled))
  with pytest.raises(SearchError, match="--nodata radar=-999") as refused:
    read_query(path, inputs)
  assert "--trust-units" in str(refused.value)
  found = read_query(path, inputs, nodata={"radar": -999})
  assert np.isnan(found.values[:, :6]).all() and not np.isnan(found.values[:, 6:]).any()
  path = str(write_tif("hh.tif", radar, descriptions=["HH", "HV"]))
  with pytest.raises(SearchError, match="calls its band 1 'HH'"):
    read_query(path, inputs)


def test_a_query_that_is_placed_by_control_points_is_refused_as_embed_does(
  write_tif: WriteTif, tile_encoder: str
) -> None:
  from rasterio.control import GroundControlPoint

  path = write_tif("a.tif", GROUND, crs=None)
  with rasterio.open(path, "r+") as file:
    points = [
      GroundControlPoint(row, column, 5e5 + 10 * column, 5e6 + 10 * row)
      for row in (0, 16) for column in (0, 16)
    ]  # fmt: skip
    file.gcps = (points, rasterio.CRS.from_epsg(32633))
  for refuse in (
    lambda: collect(str(path), OPTIONS),
    lambda: read_query(str(path), load_encoder(tile_encoder).inputs, "optical"),
  ):
    with pytest.raises((ArchiveError, ImageError), match="4 ground control points.*gdalwarp"):
      refuse()
