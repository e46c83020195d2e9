"""A table's lon and lat have to be the place that the images have, in import and in embed."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely

from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.geography import distances
from xjepa_jax.data.importers import __main__ as importers
from xjepa_jax.errors import TableError
from xjepa_jax.retrieval.embedding.archives import ArchiveOptions, collect
from xjepa_jax.sensor_presets import preset

SENSORS = {"s1": preset("grey"), "s2": preset("grey")}
BERLIN = ("EPSG:32633", 10.0, 390000.0, 5820000.0)
ANTIMERIDIAN = ("EPSG:4326", 0.001, 179.99, 0.0)


def tif(path: Path, where: tuple[str, float, float, float], level: int = 7) -> None:
  crs, size, x, y = where
  with rasterio.open(
    path, "w", driver="GTiff", height=64, width=64, count=1, dtype="uint8",
    crs=crs, transform=rasterio.Affine(size, 0, x, 0, -size, y),
  ) as file:  # fmt: skip
    file.write(np.full((1, 64, 64), level, np.uint8))


def table(folder: Path, *places: tuple[object, object]) -> Path:
  rows = [f"p{number},a.tif,b.tif,{lon},{lat}" for number, (lon, lat) in enumerate(places)]
  path = folder / "pairs.csv"
  path.write_text("\n".join(["pair_id,s1,s2,lon,lat", *rows]) + "\n")
  return path


def by_import(path: Path) -> None:
  from tests.data.importers.test_manifest import listed

  listed(path, "--sensor", "s1=grey", "--sensor", "s2=grey", "--ungeoreferenced")


def by_embed(path: Path) -> None:
  collect(str(path), ArchiveOptions(SENSORS, any_resolution=True))


@pytest.fixture
def berlin(tmp_path: Path) -> Path:
  tif(tmp_path / "a.tif", BERLIN)
  tif(tmp_path / "b.tif", BERLIN)
  return tmp_path


@pytest.fixture
def centre() -> tuple[float, float]:
  from rasterio.warp import transform

  (lon,), (lat,) = transform("EPSG:32633", "EPSG:4326", [390320.0], [5819680.0])
  return lon, lat


both = pytest.mark.parametrize("check", [by_import, by_embed])


@both
def test_swapped_columns_are_refused_with_row_and_both_places(
  check: Callable[[Path], None], berlin: Path, centre: tuple[float, float]
) -> None:
  lon, lat = centre
  with pytest.raises(TableError) as caught:
    check(table(berlin, (lon, lat), (lat, lon)))
  said = str(caught.value)
  assert "pairs.csv: 1 rows tell a place that is not their image's" in said
  assert f"line 3 ('p1'): lon {lat:g}, lat {lon:g}" in said and "p0" not in said
  assert re.search(rf"a.tif lies at lon {lon:.5f}, lat {lat:.5f}, [\d,.]+ km away", said)
  assert "(are lon and lat swapped?)" in said
  check(table(berlin, (lon, lat), ("", "")))  # the remedies
  check(table(berlin, (lon, lat), (lon, lat)))


@both
def test_the_geometry_of_a_geoparquet_is_a_place_too(
  check: Callable[[Path], None], berlin: Path, centre: tuple[float, float]
) -> None:
  geopandas = pytest.importorskip("geopandas")
  point = geopandas.points_from_xy([centre[0]], [centre[1]], crs="EPSG:4326")
  rows = {"pair_id": ["p0"], "s1": ["a.tif"], "s2": ["b.tif"]}
  path = berlin / "pairs.parquet"
  geopandas.GeoDataFrame(
    rows, geometry=shapely.buffer(point.to_numpy(), 0.001), crs="EPSG:4326"
  ).to_parquet(path)
  check(path)
  elsewhere = geopandas.points_from_xy([centre[1]], [centre[0]], crs="EPSG:4326")
  geopandas.GeoDataFrame(rows, geometry=elsewhere).to_parquet(path)
  with pytest.raises(TableError, match=r"'p0'.*a.tif lies at lon 13\.\d+.*swapped"):
    check(path)
  geopandas.GeoDataFrame(rows, geometry=point).to_crs(32633).to_parquet(path)
  with pytest.raises(TableError, match=r"'geometry' lies at 390320, .*to_crs\(4326\)"):
    check(path)
  frame = geopandas.read_parquet(path).to_crs(4326)  # as the message says
  frame.to_parquet(path)
  check(path)


@both
def test_a_place_is_refused_beyond_the_diagonal_and_not_before(
  check: Callable[[Path], None], berlin: Path, centre: tuple[float, float]
) -> None:
  lon, lat = centre
  degrees = math.sqrt(2) * 0.640 / (2 * math.pi * 6371.0088 / 360)  # 64 pixels of 10 m, northwards
  check(table(berlin, (lon, lat + 0.99 * degrees)))
  with pytest.raises(TableError, match="1 rows .*: line 2 .* 0.9 km away"):
    check(table(berlin, (lon, lat + 1.01 * degrees)))


@both
def test_a_wrong_place_that_swapping_does_not_mend_is_not_called_swapped(
  check: Callable[[Path], None], berlin: Path, centre: tuple[float, float]
) -> None:
  lon, lat = centre
  with pytest.raises(TableError) as caught:
    check(table(berlin, (-lon, lat)))
  assert "swapped" not in str(caught.value)


@both
def test_a_longitude_in_the_column_of_latitudes_is_called_swapped(
  check: Callable[[Path], None], berlin: Path
) -> None:
  with pytest.raises(TableError, match="'lat': '151.2' is no number .*are lon and lat swapped"):
    check(table(berlin, (-33.9, 151.2)))


@both
def test_either_side_of_the_antimeridian_is_the_same_place(
  check: Callable[[Path], None], tmp_path: Path
) -> None:
  for name in ("a.tif", "b.tif"):
    tif(tmp_path / name, ANTIMERIDIAN)
  check(table(tmp_path, (-179.978, -0.032)))
  with pytest.raises(TableError, match="lon 179, lat -0.032"):
    check(table(tmp_path, (179, -0.032)))


def test_images_without_a_place_take_the_tables(tmp_path: Path) -> None:
  for name in ("a", "b"):
    np.save(tmp_path / f"{name}.npy", np.full((64, 64), 7, np.uint8))
  path = table(tmp_path, (13.4, 52.5))
  path.write_text(path.read_text().replace(".tif", ".npy"))
  argv = ["manifest", "--src", str(path), "--out", str(tmp_path / "out"), "--workers", "1"]
  assert (
    importers.main([*argv, "--sensor", "s1=grey", "--sensor", "s2=grey", "--ungeoreferenced"]) == 0
  )
  with PairDataset(str(tmp_path / "out"), None) as pairs:
    assert (pairs[0].longitude, pairs[0].latitude) == (13.4, 52.5)


def test_the_second_image_tells_where_the_first_does_not(
  tmp_path: Path, centre: tuple[float, float]
) -> None:
  tif(tmp_path / "b.tif", BERLIN)
  np.save(tmp_path / "a.npy", np.full((64, 64), 7, np.uint8))
  path = table(tmp_path, centre[::-1])
  path.write_text(path.read_text().replace("a.tif", "a.npy"))
  with pytest.raises(TableError, match="b.tif lies at .*swapped"):
    by_import(path)


def test_many_rows_are_counted_and_ten_are_shown(berlin: Path, centre: tuple[float, float]) -> None:
  with pytest.raises(TableError) as caught:
    by_import(table(berlin, *[centre[::-1]] * 25))
  assert "25 rows" in str(caught.value) and str(caught.value).count("swapped") == 10


@pytest.mark.parametrize(
  ("a", "b", "expected"),
  [
    ((13.4, 52.5), (13.4, 52.5), 0.0),
    ((0, 0), (0, 90), 10007.557),  # a quarter of a meridian of the mean radius
    ((179.5, 0), (-179.5, 0), 111.195),
  ],
)
def test_distances_are_those_of_the_sphere(
  a: tuple[float, float], b: tuple[float, float], expected: float
) -> None:
  found = distances(a[0], a[1], np.array([b[0]]), np.array([b[1]]))
  np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("read", [by_import, by_embed])
def test_places_may_be_called_longitude_and_latitude(
  read: Callable[[Path], None], berlin: Path, centre: tuple[float, float]
) -> None:
  def renamed(path: Path) -> Path:
    path.write_text(path.read_text().replace("lon,lat", "longitude,latitude"))
    return path

  read(renamed(table(berlin, centre)))
  with pytest.raises(TableError, match="1 rows tell a place that is not their image's"):
    read(renamed(table(berlin, (2.35, 48.85))))


@pytest.mark.parametrize("read", [by_import, by_embed])
def test_a_table_of_another_encoding_or_separator_says_what_helps(
  read: Callable[[Path], None], berlin: Path, centre: tuple[float, float]
) -> None:
  text = table(berlin, centre).read_text().replace("p0", "p\u00e9")
  for encoding in ("latin-1", "utf-16"):
    (berlin / "pairs.csv").write_bytes(text.encode(encoding))
    with pytest.raises(TableError, match="iconv") as refused:
      read(berlin / "pairs.csv")
    mending = re.findall("iconv .*", str(refused.value))[0]
    subprocess.run(mending, shell=True, check=True, timeout=60)
    read(berlin / "pairs_utf8.csv")
  (berlin / "pairs.csv").write_text(text.replace(",", ";"))
  with pytest.raises(TableError, match="separated by commas"):
    read(berlin / "pairs.csv")
