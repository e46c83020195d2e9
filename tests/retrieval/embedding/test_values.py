"""From files to the values that the encoder takes: bands, windows, types, nodata, offsets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.retrieval.embedding.conftest import WriteTif
from xjepa_jax.data.band_choice import bands_of
from xjepa_jax.data.band_stack import read_bands
from xjepa_jax.data.raster import read_header
from xjepa_jax.errors import DataError, ImageError, SensorError
from xjepa_jax.retrieval.embedding.conforming import Fit, fit_values, of_dataset
from xjepa_jax.retrieval.embedding.items import BandFile, Item, Window
from xjepa_jax.retrieval.embedding.windows import (
  WindowReader,
  files_of,
  header_of,
  source_of,
  stack_of,
)
from xjepa_jax.sensor_presets import preset
from xjepa_jax.sensors import Sensor

OPTICAL = preset("sentinel2_l2a").select(["B04", "B03", "B02"])
LATER = preset("sentinel2_l2a_n0400").select(["B04", "B03", "B02"])
RADAR = preset("sentinel1_grd")


def values_of(shape: tuple[int, int], count: int = 3, dtype: str = "uint16") -> np.ndarray:
  return np.random.default_rng(0).integers(1, 4000, (*shape, count)).astype(dtype)


# Values


def test_values_that_fit_are_taken_as_they_are() -> None:
  values = values_of((8, 8))
  values[:2] = 0
  found, seen = fit_values(Fit("optical", OPTICAL, 0.0), values, 0, "x")
  np.testing.assert_array_equal(found, values)
  assert seen == 0.75


@pytest.mark.parametrize(
  ("dtype", "sensor"), [("int16", OPTICAL), ("int32", OPTICAL), ("float64", RADAR)]
)
def test_a_type_that_holds_the_same_values_is_converted(dtype: str, sensor: Sensor) -> None:
  values = values_of((4, 4), 3 if sensor is OPTICAL else 2, dtype)
  found, _ = fit_values(Fit("x", sensor, 0.0), values, None, "x")
  assert found.dtype == sensor.dtype
  np.testing.assert_array_equal(found.astype(np.float64), values)


def test_values_in_other_units_or_out_of_range_are_refused() -> None:
  fit = Fit("optical", OPTICAL, 0.0)
  with pytest.raises(ImageError, match="holds float32, but .* stored as uint16, in reflectance"):
    fit_values(fit, values_of((4, 4)).astype(np.float32) / 1e4, None, "x")
  with pytest.raises(ImageError, match="from -9999 to .* declare it as nodata"):
    values = values_of((4, 4), dtype="int16")
    values[0, 0] = -9999
    fit_values(fit, values, None, "x")
  with pytest.raises(ImageError, match="holds uint16, but .* stored as float32, in dB"):
    fit_values(Fit("radar", RADAR, 0.0), values_of((4, 4), 2), None, "x")


@pytest.mark.parametrize(
  ("sensor", "dtype", "declared", "marker"),
  [
    (OPTICAL, "int16", -9999.0, 0),
    (OPTICAL, "uint16", 65535.0, 0),
    (RADAR, "float32", -9999.0, None),
  ],
)
def test_what_a_file_declares_as_nodata_becomes_the_sensors(
  sensor: Sensor, dtype: str, declared: float, marker: float | None
) -> None:
  values = values_of((4, 4), len(sensor.bands), dtype)
  values[1] = declared
  found, seen = fit_values(Fit("x", sensor, 0.0), values, declared, "x")
  assert seen == 0.75
  assert np.isnan(found[1]).all() if marker is None else (found[1] == marker).all()
  np.testing.assert_array_equal(found[2:].astype(float), values[2:].astype(float))


def test_an_image_that_does_not_carry_the_offset_is_refused() -> None:
  values = np.full((8, 8, 3), 400, np.uint16)
  values[:, :2] = 0  # nodata
  with pytest.raises(ImageError, match="c.tif: an offset of -1000 takes 100% of its values below"):
    fit_values(Fit("s2", OPTICAL, -1000.0), values, 0, "c.tif")
  values[values > 0] = 1400
  values[0, 2:4] = 990  # noise over water
  found, _ = fit_values(Fit("s2", OPTICAL, -1000.0), values, 0, "c.tif")
  assert sorted(set(found.ravel().tolist())) == [0, 1, 400]


def test_an_offset_is_brought_to_the_encoders_and_never_makes_nodata() -> None:
  values = np.array([[0, 1, 1000, 1001, 5000, 65535]], np.uint16)[..., None].repeat(3, -1)
  found, seen = fit_values(Fit("optical", OPTICAL, -1000.0), values, 0, "x")
  assert found[0, :, 0].tolist() == [0, 1, 1, 1, 4000, 64535]
  assert seen == pytest.approx(5 / 6)
  found, _ = fit_values(Fit("optical", LATER, 0.0), values, 0, "x")
  assert found[0, :, 0].tolist() == [0, 1001, 2000, 2001, 6000, 65535]


@pytest.mark.parametrize(("nodata", "shift"), [(-9999.0, -3.0), (-15.0, -3.0), (0.0, 12.0)])
def test_an_offset_never_makes_or_moves_a_float_nodata(nodata: float, shift: float) -> None:
  sensor = dataclasses.replace(RADAR, nodata=nodata)
  values = np.array([[nodata, -12, nodata - shift, np.nan, -np.inf]], np.float32)[..., None]
  values = values.repeat(2, -1)
  found, seen = fit_values(Fit("radar", sensor, sensor.scaling.offset + shift), values, nodata, "x")
  assert found.dtype == np.float32 and seen == pytest.approx(2 / 5)
  assert sensor.valid(found)[0].tolist() == [False, True, True, False, False]
  expected = [nodata, -12 + shift, nodata]
  np.testing.assert_allclose(found[0, :3, 0], expected, rtol=1e-6, atol=1e-6)
  assert found[0, 0, 0] == nodata


def test_a_data_sets_sensor_is_matched_by_the_names_of_its_bands() -> None:
  fit, bands = of_dataset("optical", OPTICAL, preset("sentinel2_l2a_n0400"))
  assert bands == (3, 2, 1) and fit.shift == -1000
  with pytest.raises(SensorError, match="has no band B03"):
    of_dataset("optical", OPTICAL, OPTICAL.select(["B04", "B02"]))
  with pytest.raises(SensorError, match="units 'dB', the encoder was trained with 'linear'"):
    of_dataset("radar", dataclasses.replace(RADAR, units="linear"), RADAR)


# Bands


def test_bands_are_found_by_name_in_any_order_or_taken_in_the_sensors(write_tif: WriteTif) -> None:
  values = values_of((4, 4), 4)
  named = write_tif("named.tif", values, descriptions=("b2", "B3", "B8", "B04"))
  assert bands_of("optical", OPTICAL, read_header(str(named)), ()) == [4, 2, 1]
  bare = write_tif("bare.tif", values[..., :3])
  assert bands_of("optical", OPTICAL, read_header(str(bare)), ()) == [1, 2, 3]
  assert bands_of("optical", OPTICAL, read_header(str(bare)), ("B02", "B03", "B04")) == [3, 2, 1]


def test_bands_that_are_not_there_are_refused(write_tif: WriteTif) -> None:
  four = read_header(str(write_tif("four.tif", values_of((4, 4), 4))))
  with pytest.raises(
    ImageError, match="has 4 bands; expected the 3 .*--bands optical=B04,B03,B02,-"
  ):
    bands_of("optical", OPTICAL, four, ())
  with pytest.raises(ImageError, match="has 4 bands, --bands names 3"):
    bands_of("optical", OPTICAL, four, ("B02", "B03", "B04"))
  with pytest.raises(ImageError, match="lacks B04, which sensor 'optical' has"):
    bands_of("optical", OPTICAL, four, ("B02", "B03", "B05", "B06"))


PATHS = st.text("a./;#%,123B5\n", min_size=1, max_size=8)


@given(st.lists(st.tuples(PATHS, st.integers(1, 4)), min_size=1, max_size=5))
def test_a_source_names_the_files_that_it_was_made_of(files: list[tuple[str, int]]) -> None:
  given_files = tuple(BandFile(*each) for each in files)
  assert files_of(source_of(given_files), len(given_files)) == given_files


def test_a_source_of_before_paths_were_encoded_is_read_as_it_was() -> None:
  assert files_of("a%20b.tif", 1) == (BandFile("a%20b.tif", 1),)
  assert files_of("a#1.tif", 1) == (BandFile("a#1.tif", 1),)


@pytest.mark.parametrize(
  ("source", "files"),
  [
    ("a.tif", (("a.tif", 1), ("a.tif", 2), ("a.tif", 3))),
    ("a.tif#3,2,1", (("a.tif", 3), ("a.tif", 2), ("a.tif", 1))),
    ("r.tif;g.tif;b.tif", (("r.tif", 1), ("g.tif", 1), ("b.tif", 1))),
    ("a%231.tif;g.tif#4;b.tif", (("a#1.tif", 1), ("g.tif", 4), ("b.tif", 1))),
    ("a.tif#1,2;b.tif", (("a.tif", 1), ("a.tif", 2), ("b.tif", 1))),
    ("a.tif;b.tif#1,2", (("a.tif", 1), ("b.tif", 1), ("b.tif", 2))),
    ("a%3Bb.tif", (("a;b.tif", 1), ("a;b.tif", 2), ("a;b.tif", 3))),
    ("100%25 clear%252.tif", (("100% clear%2.tif", 1), ("100% clear%2.tif", 2))),
  ],
)
def test_a_source_names_files_and_bands(source: str, files: tuple[tuple[str, int], ...]) -> None:
  assert source_of([BandFile(*each) for each in files]) == source
  assert files_of(source, len(files)) == tuple(BandFile(*each) for each in files)


# Windows


def reader() -> WindowReader:
  fits = {"optical": Fit("optical", OPTICAL, 0.0)}
  return WindowReader(lambda path: path, fits, {})


def test_a_window_is_that_part_of_the_image(write_tif: WriteTif) -> None:
  values = values_of((50, 40))
  path = str(write_tif("a.tif", values, tiled=True, blockxsize=16, blockysize=16))
  item = Item("a", "optical", path, 50, 40, files=files_of(path, 3))
  read = reader()
  for window in (Window(0, 0, 16, 16), Window(7, 31, 33, 19), Window(24, 34, 16, 16)):
    found, seen = read.read(item, window)
    rows, columns = slice(window.row, window.row + window.height), slice(window.column, None)
    np.testing.assert_array_equal(found, values[rows, columns][:, : window.width])
    assert seen == 1
  read.close()


def test_windows_of_bands_of_several_resolutions_are_those_of_the_whole_stack(
  write_tif: WriteTif,
) -> None:
  paths = [
    str(
      write_tif(
        f"{gsd}.tif", values_of((120 // gsd,) * 2, 1), transform=(gsd, 0, 5e5, 0, -gsd, 5e6)
      )
    )
    for gsd in (2, 1, 6)
  ]
  whole = read_bands(paths, "nearest").values
  stack = stack_of([header_of(path) for path in paths])
  assert stack.finest.path == paths[1] and list(stack.factors.values()) == [2, 1, 6]
  source = ";".join(paths)
  item = Item("a", "optical", source, 120, 120, files=files_of(source, 3))
  read = reader()
  for window in (Window(0, 0, 16, 16), Window(7, 31, 16, 17), Window(103, 104, 17, 16)):
    rows = slice(window.row, window.row + window.height)
    expected = whole[rows, window.column : window.column + window.width]
    np.testing.assert_array_equal(read.read(item, window)[0], expected)
  read.close()


def test_files_of_one_scene_that_lie_elsewhere_are_refused(write_tif: WriteTif) -> None:
  one = write_tif("one.tif", values_of((16, 16), 1))
  off = write_tif("off.tif", values_of((16, 16), 1), transform=(10, 0, 5.1e5, 0, -10, 5e6))
  with pytest.raises(ImageError, match="does not cover the area"):
    stack_of([header_of(str(one)), header_of(str(off))])


def test_a_header_of_more_pixels_than_are_ever_read_is_refused(
  write_tif: WriteTif, tmp_path: Path
) -> None:
  import rasterio

  huge = tmp_path / "huge.tif"
  with rasterio.open(
    huge, "w", driver="GTiff", height=100_000, width=100_000, count=1, dtype="uint8",
    sparse_ok=True, tiled=True, blockxsize=512, blockysize=512,
  ):  # fmt: skip
    pass
  with pytest.raises(ImageError, match="declares 100000 x 100000 pixels"):
    header_of(str(huge))
  np.save(tmp_path / "a.npy", np.zeros((4, 4), np.uint8))
  (tmp_path / "scene.vrt").write_text("<VRTDataset/>")
  with pytest.raises(DataError, match="unknown suffix"):
    header_of(str(tmp_path / "scene.vrt"))
  (tmp_path / "scene.tif").write_text("<VRTDataset/>")
  with pytest.raises(DataError, match="promises GeoTIFF, but it begins with"):
    header_of(str(tmp_path / "scene.tif"))
  with pytest.raises(DataError, match="no file of this machine"):
    header_of("/vsicurl/http://127.0.0.1/a.tif")


def test_a_damaged_block_is_told_by_file_and_window(write_tif: WriteTif) -> None:
  path = write_tif("a.tif", values_of((64, 64)), compress="deflate")
  path.write_bytes(path.read_bytes()[:-2000])
  item = Item("a", "optical", str(path), 64, 64, files=files_of(str(path), 3))
  read = reader()
  with pytest.raises(ImageError, match=r"a\.tif: .*the file is damaged"):
    for row in range(0, 64, 16):
      read.read(item, Window(0, row, 64, 16))
  read.close()
