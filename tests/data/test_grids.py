"""Sensors of a pair come to one grid: by whole pixels, along a plane, or not at all."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from rasterio import Affine
from rasterio.warp import transform, transform_bounds

from xjepa_jax.data.grids import align, corner_shift
from xjepa_jax.data.raster import Raster
from xjepa_jax.errors import ImageError
from xjepa_jax.sensor_presets import preset
from xjepa_jax.sensors import Sensor

GREY = preset("grey", nodata=255)
DECIBEL = preset("sentinel1_grd").select(["VV"])
ORIGIN = Affine(10, 0, 500000, 0, -10, 4000000)


def raster(values: np.ndarray, grid: Affine | None = ORIGIN, crs: str = "EPSG:32633") -> Raster:
  where = tuple(grid)[:6] if grid is not None else (math.nan,) * 6
  values = values if values.ndim == 3 else values[..., None]
  return Raster(values, "other.tif", crs if grid is not None else "", where)


def reference(
  height: int = 8, width: int = 8, grid: Affine | None = ORIGIN, crs: str = "EPSG:32633"
) -> Raster:
  return dataclasses.replace(raster(np.zeros((height, width), np.uint8), grid, crs), path="ref.tif")


def aligned(
  first: Raster, other: Raster, sensor: Sensor = GREY, warp: bool = True, how: str = "nearest"
) -> np.ndarray:
  sensors = {"a": GREY, "b": sensor}
  result = align({"a": first, "b": other}, sensors, "warp" if warp else "refuse", how)
  assert list(result) == ["a", "b"] and result["a"] is first
  assert result["b"].values.shape[:2] == first.values.shape[:2]
  return result["b"].values[..., 0]


def shifted(columns: float, rows: float) -> Affine:
  return Affine(10, 0, 500000 + 10 * columns, 0, -10, 4000000 - 10 * rows)


def centres(grid: Affine, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
  columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
  return grid.a * columns + grid.b * rows + grid.c, grid.d * columns + grid.e * rows + grid.f


@pytest.mark.parametrize("columns, rows", [(0.5, 0), (0, -0.5), (-0.49, 0.49)])
def test_up_to_half_a_pixel_is_let_pass_untouched(columns: float, rows: float):
  other = raster(np.arange(64, dtype=np.uint8).reshape(8, 8), shifted(columns, rows))
  assert align({"a": reference(), "b": other}, {}, "refuse", "nearest")["b"] is other


@pytest.mark.parametrize("columns, rows", [(0.51, 0), (0, -0.51), (3, 4)])
def test_more_than_half_a_pixel_is_refused_with_the_shift(columns: float, rows: float):
  other = raster(np.zeros((8, 8), np.uint8), shifted(columns, rows))
  with pytest.raises(ImageError, match="other.tif") as caught:
    aligned(reference(), other, warp=False)
  assert f"{columns:+.2f} columns and {rows:+.2f} rows" in str(caught.value)
  assert "ref.tif" in str(caught.value)


def test_a_scale_that_shows_only_at_the_far_corner_is_seen():
  # The same origin, columns 10 % wider: 0.4 pixels off after 4 columns, 0.8 after 8.
  grid = Affine(11, 0, 500000, 0, -10, 4000000)
  other = raster(np.zeros((8, 8), np.uint8), grid)
  assert corner_shift(other, reference()) == pytest.approx((0.8, 0.0))
  aligned(reference(8, 4), raster(np.zeros((8, 4), np.uint8), grid), warp=False)
  with pytest.raises(ImageError, match=r"\+0\.80 columns and \+0\.00 rows"):
    aligned(reference(), other, warp=False)


def test_other_sizes_and_systems_are_refused_by_name():
  with pytest.raises(ImageError, match="9 x 8 pixels, not the 8 x 8"):
    aligned(reference(), raster(np.zeros((9, 8), np.uint8)), warp=False)
  with pytest.raises(ImageError, match="EPSG:32634, not in the EPSG:32633"):
    aligned(reference(), raster(np.zeros((8, 8), np.uint8), crs="EPSG:32634"), warp=False)


def test_one_system_in_two_spellings_is_one():
  from rasterio.crs import CRS

  other = raster(np.zeros((8, 8), np.uint8), crs=CRS.from_epsg(32633).to_wkt())
  aligned(reference(), other, warp=False)


def test_without_georeference_only_the_size_counts():
  aligned(reference(grid=None), raster(np.zeros((8, 8), np.uint8), None), warp=False)
  aligned(reference(), raster(np.zeros((8, 8), np.uint8), None), warp=False)
  for warp in (False, True):
    with pytest.raises(ImageError, match="4 x 8"):
      aligned(reference(), raster(np.zeros((4, 8), np.uint8), None), warp=warp)


@pytest.mark.parametrize("how", ["nearest", "bilinear"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_a_warp_by_whole_pixels_moves_values_and_fills_with_nodata(how: str, dtype: str):
  values = np.arange(64).reshape(8, 8).astype(dtype)
  sensor = dataclasses.replace(GREY, dtype=dtype, nodata=100)
  moved = aligned(reference(), raster(values, shifted(2, 1)), sensor, how=how)
  expected = np.full((8, 8), 100, dtype)
  expected[1:, 2:] = values[:-1, :-2]
  assert moved.dtype == dtype
  np.testing.assert_array_equal(moved, expected)


def test_every_stored_value_survives_a_warp():
  """GDAL would turn a real value that equals the fill into its neighbour."""
  values = np.arange(256, dtype=np.uint8).reshape(16, 16)
  sensor = dataclasses.replace(GREY, nodata=0)
  two = np.stack([values, values[::-1]], axis=-1)
  moved = align(
    {"a": reference(16, 16), "b": raster(two, shifted(1, 0))}, {"b": sensor}, "warp", "nearest"
  )["b"].values
  np.testing.assert_array_equal(moved[:, 1:], two[:, :-1])
  np.testing.assert_array_equal(moved[:, 0], 0)


def plane(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  return 0.01 * (x - 500000) - 0.02 * (y - 4000000) + 3


@pytest.mark.parametrize("pixel", [10.0, 5.0])
def test_a_plane_in_map_coordinates_stays_that_plane(pixel: float):
  """From a rotated, sheared grid onto an upright one that it covers."""
  source = Affine(10, 1.5, 499700, 0.7, -10, 4000200)
  values = plane(*centres(source, 150, 150)).astype(np.float32)
  target = Affine(pixel, 0, 500100, 0, -pixel, 3999900)
  first = reference(60, 50, target)
  result = aligned(first, raster(values, source), DECIBEL, how="bilinear")
  np.testing.assert_allclose(result, plane(*centres(target, 60, 50)), atol=2e-6, rtol=0)


def test_nearest_takes_the_pixel_that_lies_under_each_centre():
  source = Affine(7.3, 0.4, 499900, 0.3, -7.9, 4000100)
  values = np.random.default_rng(0).integers(0, 255, (90, 90)).astype(np.uint8)
  result = aligned(reference(40, 40), raster(values, source))
  x, y = centres(ORIGIN, 40, 40)
  area = source.a * source.e - source.b * source.d  # the inverse by hand
  columns = (source.e * (x - source.c) - source.b * (y - source.f)) / area
  rows = (source.a * (y - source.f) - source.d * (x - source.c)) / area
  np.testing.assert_array_equal(result, values[rows.astype(int), columns.astype(int)])


def test_a_plane_of_longitude_and_latitude_warps_onto_utm():
  first = reference(50, 50)
  west, south, east, north = transform_bounds(first.crs, "EPSG:4326", 500000, 3999500, 500500, 4e6)
  source = Affine((east - west) / 40, 0, west - 0.001, 0, (south - north) / 40, north + 0.001)
  longitude, latitude = centres(source, 70, 70)
  # Coarser than the target, so that GDAL interpolates and does not average.
  values = (1e3 * (longitude - 15) - 5e2 * (latitude - 36)).astype(np.float64)
  sensor = dataclasses.replace(DECIBEL, dtype="float64")
  result = aligned(first, raster(values, source, "EPSG:4326"), sensor, how="bilinear")
  x, y = centres(ORIGIN, 50, 50)
  places = transform(first.crs, "EPSG:4326", x.ravel(), y.ravel())
  longitude, latitude = (np.array(values).reshape(50, 50) for values in places)
  # A pixel is 0.14 along this plane; rasterio 1.4 places it to within 2e-4 pixel here.
  np.testing.assert_allclose(
    result, 1e3 * (longitude - 15) - 5e2 * (latitude - 36), atol=1e-3 * 0.14, rtol=0
  )


def test_interpolation_leaves_out_what_was_not_seen():
  values = np.full((8, 8), 50, np.uint8)
  values[4, 4] = 255
  result = aligned(reference(), raster(values, shifted(0.7, 0)), how="bilinear")
  assert set(np.unique(result)) <= {50, 255}
  spread = np.full((8, 8), 50, np.float32)
  spread[4, 4] = np.nan
  result = aligned(reference(), raster(spread, shifted(0.7, 0)), DECIBEL, how="bilinear")
  seen = result[np.isfinite(result)]
  assert seen.size >= 8 * 7 - 2 and set(seen) == {50}


def test_a_pixel_dark_in_one_band_was_seen_and_is_kept():
  values = np.full((8, 8, 2), 9, np.uint8)
  values[3, 3] = (0, 5)
  sensor = dataclasses.replace(GREY, nodata=0)
  moved = align(
    {"a": reference(), "b": raster(values, shifted(1, 0))}, {"b": sensor}, "warp", "nearest"
  )["b"].values
  np.testing.assert_array_equal(moved[3, 4], (0, 5))


def test_a_warp_that_cannot_be_is_refused():
  no_nodata = dataclasses.replace(GREY, nodata=None)
  small = raster(np.zeros((8, 8), np.uint8), shifted(2, 0))
  with pytest.raises(ImageError, match="no nodata value"):
    aligned(reference(), small, no_nodata)
  covering = raster(np.ones((12, 12), np.uint8), shifted(-2, -2))
  assert (aligned(reference(), covering, no_nodata) == 1).all()
  with pytest.raises(ImageError, match="shows nothing of the area"):
    aligned(reference(), raster(np.zeros((8, 8), np.uint8), shifted(500, 0)))
  with pytest.raises(ImageError, match="shows nothing"):
    aligned(reference(), raster(np.full((8, 8), 255, np.uint8), shifted(2, 0)))
  with pytest.raises(ImageError, match="holds uint8, expected float32"):
    aligned(reference(), small, DECIBEL)
  for crs in ("EPSG:999999", "garbage", 'LOCAL_CS["unnamed",UNIT["metre",1]]'):
    with pytest.raises(ImageError, match="cannot be warped"):
      aligned(reference(), raster(np.zeros((8, 8), np.uint8), crs=crs))


def test_a_float_without_nodata_value_is_filled_with_nan():
  sensor = dataclasses.replace(DECIBEL, nodata=None)
  result = aligned(reference(), raster(np.ones((8, 8), np.float32), shifted(2, 0)), sensor)
  assert np.isnan(result[:, :2]).all() and (result[:, 2:] == 1).all()
