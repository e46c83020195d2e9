"""Order, tiling and outlines of tiles: against shapely, PROJ and brute force."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xjepa_jax.data.geography import to_degrees
from xjepa_jax.errors import ImageError
from xjepa_jax.retrieval.embedding import wkb
from xjepa_jax.retrieval.embedding.footprints import cut, footprints
from xjepa_jax.retrieval.embedding.hilbert import hilbert
from xjepa_jax.retrieval.embedding.tiling import corners, starts

shapely = pytest.importorskip("shapely")
pyproj = pytest.importorskip("pyproj")


def test_a_step_along_the_curve_leads_to_a_neighbouring_cell_of_any_grid() -> None:
  for cells in (2, 8, 32):
    middle = (np.arange(cells) + 0.5) / cells
    x, y = (grid.reshape(-1) for grid in np.meshgrid(middle, middle))
    order = np.argsort(hilbert(x * 360 - 180, y * 180 - 90))
    steps = np.abs(np.diff(x[order])) + np.abs(np.diff(y[order]))
    np.testing.assert_allclose(steps, 1 / cells)


def test_places_at_the_edge_of_the_earth_have_one_on_the_curve_and_unknown_ones_come_last() -> None:
  longitude = np.array([-180, 180, 180, -180, np.nan, 0])
  along = hilbert(longitude, np.array([-90.0, -90, 90, 90, 0, np.nan]))
  assert len(set(along[:4])) == 4
  assert (along[4:] > along[:4].max()).all()


@given(st.integers(1, 400), st.integers(1, 64), st.integers(1, 80))
def test_tiles_lie_inside_and_miss_at_most_a_quarter_of_one_at_the_edges(
  length: int, size: int, stride: int
) -> None:
  found = starts(length, size, stride)
  if length < size:
    assert not len(found)
    return
  assert found[0] >= 0 and found[-1] + size <= length
  assert (np.diff(found) > 0).all() and (np.diff(found) <= stride).all()
  missed = found[0] + length - found[-1] - size
  assert missed * 4 <= size or (stride > size and missed < stride)
  assert abs(found[0] - (length - found[-1] - size)) <= 1 or missed * 4 <= size


def test_a_stride_of_0_takes_one_tile_from_the_middle() -> None:
  columns, rows = corners(100, 37, (16, 16), 0)
  assert (columns.tolist(), rows.tolist()) == ([10], [42])


def test_tiles_are_listed_row_by_row() -> None:
  columns, rows = corners(32, 48, (16, 16), 16)
  assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [
    (0, 0), (0, 16), (0, 32), (16, 0), (16, 16), (16, 32),
  ]  # fmt: skip


def test_points_and_polygons_are_read_by_shapely() -> None:
  points = wkb.points(np.array([1.5, np.nan, -3]), np.array([2.0, 1, 4]))
  assert points.null_count == 1
  assert [shapely.from_wkb(points[i].as_py()).wkt for i in (0, 2)] == [
    "POINT (1.5 2)",
    "POINT (-3 4)",
  ]
  ring = np.array([[0, 0], [1, 0], [1, 1], [0, 0]], float)
  polygons = wkb.polygons(np.stack([ring, ring * np.nan, ring + 5]))
  assert polygons.is_valid().to_pylist() == [True, False, True]
  assert shapely.from_wkb(polygons[2].as_py()).equals(shapely.Polygon(ring + 5))
  assert shapely.from_wkb(wkb.polygon([ring, ring + 2])).geom_type == "MultiPolygon"


def outline(crs: str, transform: tuple[float, ...], window: tuple[int, ...]) -> Any:
  found, boxes = footprints([crs], np.array([transform]), np.array([window]))
  shape = shapely.from_wkb(found[0].as_py())
  assert shape.is_valid
  np.testing.assert_allclose(shape.bounds, boxes[0])
  assert -180 <= boxes[0][0] <= boxes[0][2] <= 180
  for part in getattr(shape, "geoms", [shape]):
    assert part.exterior.is_ccw
  return shape


@pytest.mark.parametrize(
  ("crs", "transform", "size"),
  [
    ("EPSG:32633", (10, 0, 4e5, 0, -10, 5e6), 128),
    ("EPSG:32633", (10, 0, 4e5, 0, -10, 5e6), 10980),
    ("EPSG:32733", (10, 0, 4e5, 0, 10, 5e6), 256),
    ("EPSG:3857", (500, 0, 1e6, 0, -500, 6e6), 512),
    ("EPSG:3413", (1000, 0, 2e5, 0, -1000, 9e5), 256),
    ("EPSG:4326", (0.001, 0, 10, 0, -0.001, 50), 100),
    ("EPSG:32633", (7, 7, 4e5, 7, -7, 5e6), 500),
  ],
)
def test_an_outline_is_the_windows_edge_as_proj_projects_it(
  crs: str, transform: tuple[float, ...], size: int
) -> None:
  shape = outline(crs, transform, (0, 0, size, size))
  a, b, c, d, e, f = transform
  along = np.linspace(0, size, 200)
  edge = np.concatenate(
    [
      np.stack([along, 0 * along], 1),
      np.stack([0 * along + size, along], 1),
      np.stack([along[::-1], 0 * along + size], 1),
      np.stack([0 * along, along[::-1]], 1),
    ]
  )
  x, y = a * edge[:, 0] + b * edge[:, 1] + c, d * edge[:, 0] + e * edge[:, 1] + f
  to_degrees = pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
  exact = shapely.Polygon(np.stack(to_degrees.transform(x, y), 1))
  pixel = np.sqrt(exact.area) / size
  # Half a pixel of the window, anywhere along its edge.
  assert exact.symmetric_difference(shape).area < 0.5 * pixel * exact.length
  assert exact.hausdorff_distance(shape) < 2 * pixel


@pytest.mark.parametrize("west", [179.0, 539.0, -181.0])
def test_an_outline_across_the_antimeridian_is_cut_there(west: float) -> None:
  shape = outline("EPSG:4326", (0.01, 0, west, 0, -0.01, 10), (0, 0, 200, 100))
  assert shape.geom_type == "MultiPolygon"
  assert shape.equals(
    shapely.union_all([shapely.box(179, 9, 180, 10), shapely.box(-180, 9, -179, 10)])
  )


def test_an_outline_in_utm_across_the_antimeridian_has_the_area_of_one_elsewhere() -> None:
  there = outline("EPSG:32601", (10, 0, 3e5, 0, -10, 6.2e6), (0, 0, 2000, 2000))
  here = outline("EPSG:32633", (10, 0, 3e5, 0, -10, 6.2e6), (0, 0, 2000, 2000))
  assert there.geom_type == "MultiPolygon"
  assert there.area == pytest.approx(here.area, rel=1e-9)


@pytest.mark.parametrize(("crs", "sign"), [("EPSG:3413", 1), ("EPSG:3031", -1)])
def test_an_outline_around_a_pole_reaches_it_at_every_longitude(crs: str, sign: int) -> None:
  shape = outline(crs, (1000, 0, -70000, 0, -1000, 64000), (0, 0, 128, 128))
  to_map = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
  rng = np.random.default_rng(0)
  longitude, latitude = rng.uniform(-180, 180, 400), sign * rng.uniform(88.5, 90, 400)
  x, y = to_map.transform(longitude, latitude)
  inside = (np.abs(x + 6000) < 63000) & (np.abs(y) < 63000)
  outside = (np.abs(x + 6000) > 65000) | (np.abs(y) > 65000)
  held = shapely.contains_xy(shape, longitude, latitude)
  assert held[inside].all() and not held[outside].any()


def test_an_image_in_no_system_has_no_outline() -> None:
  found, boxes = footprints(["", 'LOCAL_CS["here"]'], np.ones((2, 6)), np.ones((2, 4)))
  assert found.null_count == 2 and np.isnan(boxes).all()
  assert footprints([], np.ones((0, 6)), np.ones((0, 4)))[0].equals(pa.array([], pa.binary()))


@given(st.floats(-180, 179.9), st.floats(-80, 80), st.floats(0.01, 60), st.floats(0.01, 9))
def test_cutting_keeps_the_area(west: float, south: float, width: float, height: float) -> None:
  ring = np.array([[0, 0], [width, 0], [width, height], [0, height]]) + [west, south]
  parts = [shapely.Polygon(part) for part in cut(ring)]
  assert sum(part.area for part in parts) == pytest.approx(width * height, rel=1e-6)
  assert all(part.bounds[0] >= -180 and part.bounds[2] <= 180 for part in parts)


def test_degrees_need_no_rasterio(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setitem(sys.modules, "rasterio", None)
  x, y = np.array([0.25, 179.5]), np.array([-0.5, 91.0])
  longitude, latitude = to_degrees("EPSG:4326", x, y)
  np.testing.assert_array_equal(longitude, [0.25, np.nan])  # 91 degrees north is no place
  np.testing.assert_array_equal(latitude, [-0.5, np.nan])
  np.testing.assert_array_equal(y, [-0.5, 91.0])
  with pytest.raises(ImageError, match="need rasterio"):
    to_degrees("EPSG:32634", x, y)
