"""A table of pairs is imported value by value, or refused by row, column and file."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from xjepa_jax.data.archive import Archive
from xjepa_jax.data.importers import manifest
from xjepa_jax.data.pairs import Pair, PairFormat
from xjepa_jax.errors import (
  ArchiveError,
  ImageError,
  OptionError,
  SensorError,
  TableError,
  XJepaError,
)
from xjepa_jax.sensor_presets import preset
from xjepa_jax.sensors import sensor_to_json

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "data"
OMBRIA = SHARED / "ombria"
GEOTIFF = SHARED / "geotiff"
needs_ombria = pytest.mark.skipif(
  not OMBRIA.is_dir(), reason="OMBRIA's real pairs are not in ../shared/data/ombria"
)
needs_geotiff = pytest.mark.skipif(
  not GEOTIFF.is_dir(), reason="real GeoTIFFs are not in ../shared/data/geotiff"
)
UTM = (10.0, 0.0, 500000.0, 0.0, -10.0, 4000000.0)
TWO = ("--sensor", "s1=grey", "--sensor", "s2=rgb", "--ungeoreferenced")


def listed(src: Path, *options: str, misaligned: str = "refuse", seed: int = 0) -> Archive:
  parser = argparse.ArgumentParser()
  manifest.add_arguments(parser)
  args = parser.parse_args(options)
  args.src, args.out, args.seed = str(src), "", seed
  args.misaligned, args.resample = misaligned, "nearest"
  return manifest.open_archive(args)


def entry(archive: Archive, pair_id: str):
  (found,) = (e for split in archive.splits.values() for e in split if e.pair_id == pair_id)
  return found


def read(archive: Archive, pair_id: str) -> Pair:
  return archive.read(entry(archive, pair_id))


def table(folder: Path, text: str, name: str = "pairs.csv") -> Path:
  (folder / name).write_text(text)
  return folder / name


def png(path: Path, *shape: int, seed: int = 0) -> np.ndarray:
  path.parent.mkdir(exist_ok=True)
  values = np.random.default_rng(seed).integers(1, 255, shape).astype(np.uint8)
  Image.fromarray(values).save(path)
  return values


def tif(
  path: Path, bands: np.ndarray, transform=UTM, crs="EPSG:32633", nodata=None, descriptions=()
) -> None:
  count, height, width = bands.shape
  with rasterio.open(
    path, "w", driver="GTiff", height=height, width=width, count=count, dtype=bands.dtype,
    transform=rasterio.Affine(*transform), crs=crs, nodata=nodata,
  ) as file:  # fmt: skip
    file.write(bands)
    for number, text in enumerate(descriptions, 1):
      file.set_band_description(number, text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
  """Pairs a, b, c, d of s1 (grey) and s2 (RGB) as PNG."""
  for number, name in enumerate("abcd"):
    png(tmp_path / "s1" / f"{name}.png", 4, 6, seed=number)
    png(tmp_path / "s2" / f"{name}.png", 4, 6, 3, seed=number + 10)
  return tmp_path


ROWS = "pair_id,s1,s2\n" + "".join(f"{name},s1/{name}.png,s2/{name}.png\n" for name in "abcd")


def refused(src: Path, *words: str, options: tuple[str, ...] = TWO, error=TableError) -> str:
  with pytest.raises(error) as caught:
    listed(src, *options)
  for word in words:
    assert word in str(caught.value), str(caught.value)
  return str(caught.value)


# Real data, by value


@needs_ombria
def test_ombria_is_imported_pixel_by_pixel():
  archive = listed(OMBRIA / "pairs.csv", *TWO, "--nodata", "s1=255", "--nodata", "s2=0")
  assert {name: len(entries) for name, entries in archive.splits.items()} == {
    "train": 484,
    "validation": 70,
    "test": 140,
  }
  assert not archive.skipped and archive.name == "pairs"
  assert archive.sensors["s1"].nodata == 255 and archive.sensors["s2"].nodata == 0
  with open(OMBRIA / "pairs.csv", newline="") as file:
    rows = list(csv.DictReader(file))
  for row in rows[::60]:
    pair = read(archive, row["pair_id"])
    for key in ("s1", "s2"):
      expected = np.asarray(Image.open(OMBRIA / row[key]))
      expected = expected.reshape(*expected.shape[:2], -1)
      np.testing.assert_array_equal(pair.observations[key].values, expected)
    assert math.isnan(pair.longitude) and pair.crs == ""
    assert pair.pair_id in {e.pair_id for e in archive.splits[row["split"]]}


def outside(folder: Path, **files: Path) -> Path:
  """A table of one pair of files that lie elsewhere."""
  names = ",".join(files)
  return table(
    folder, f"pair_id,{names}\nx,{','.join(str(path.resolve()) for path in files.values())}\n"
  )


@needs_geotiff
def test_terramesh_bands_are_those_of_the_files(tmp_path: Path):
  folder = GEOTIFF / "terramesh"
  name = sorted((folder / "S1RTC").glob("*.tif"))[0].name
  src = outside(tmp_path, s1=folder / "S1RTC" / name, s2=folder / "S2L2A" / name)
  options = ("--sensor", "s1=sentinel1_rtc", "--sensor", "s2=sentinel2_l2a", "--allow-outside")
  archive = listed(src, *options)
  pair = read(archive, "x")
  assert archive.sensors["s1"].dtype == "float32" and archive.sensors["s2"].dtype == "int16"
  notes = " ".join(archive.notes)
  assert "s1: the files hold float64" in notes and "s2: the files hold int16" in notes
  with rasterio.open(folder / "S1RTC" / name) as file:
    vh = file.read(2)
    assert pair.crs == file.crs.to_string() and pair.transform == tuple(file.transform)[:6]
  np.testing.assert_array_equal(pair.observations["s1"].values[..., 1], vh.astype(np.float32))
  with rasterio.open(folder / "S2L2A" / name) as file:
    b8a = archive.sensors["s2"].band_names.index("B8A")
    assert b8a == 8
    np.testing.assert_array_equal(pair.observations["s2"].values[..., b8a], file.read(9))
  assert (pair.longitude, pair.latitude) == pytest.approx((-48.10604546, -25.31594460), abs=1e-7)


@needs_geotiff
def test_sen1floods11_keeps_its_nan_and_its_degrees(tmp_path: Path):
  folder = GEOTIFF / "sen1floods11_sample"
  files = {
    key: folder / key.upper() / f"Spain_7370579_{key.upper()}Hand.tif" for key in ("s1", "s2")
  }
  options = ("--sensor", "s1=sentinel1_grd", "--sensor", "s2=sentinel2_l1c", "--allow-outside")
  archive = listed(outside(tmp_path, **files), *options)
  pair = read(archive, "x")
  assert str(archive.sensors["s1"].nodata) == "nan" and pair.crs == "EPSG:4326"
  assert pair.longitude == pytest.approx(-0.75889675, abs=1e-8)
  with rasterio.open(files["s1"]) as file:
    np.testing.assert_array_equal(pair.observations["s1"].values[..., 0], file.read(1))
  with rasterio.open(files["s2"]) as file:
    expected = file.read(archive.sensors["s2"].band_names.index("B10") + 1)
  np.testing.assert_array_equal(pair.observations["s2"].values[..., 10], expected)
  refused(tmp_path / "pairs.csv", "--allow-outside", "line 2", options=options[:-1])


# What a table may say


def test_all_columns_reach_the_pair(folder: Path):
  src = table(
    folder,
    "pair_id,s1,s2,split,labels,lon,lat,s1_acquired,s2_acquired\n"
    "b,s1/b.png,s2/b.png,Train,water; forest,13.5,-7.25,2017-06-13T16:50:43Z,2017-06-14\n"
    "a,s1/a.png,s2/a.png,val,,,,,\n"
    "c,,s2/c.png,dev,urban,180,-90,,\n"
    "d,s1/d.png,s2/d.png,alps_2019,urban,0,0,,\n",
  )
  archive = listed(src, *TWO, "--name", "mine")
  assert {name: [e.pair_id for e in entries] for name, entries in archive.splits.items()} == {
    "train": ["b"],
    "validation": ["a", "c"],
    "alps_2019": ["d"],
  }
  b, c = read(archive, "b"), read(archive, "c")
  assert (b.labels, b.longitude, b.latitude) == (("water", "forest"), 13.5, -7.25)
  assert b.observations["s1"].acquired == "2017-06-13T16:50:43Z"
  assert b.observations["s2"].acquired == "2017-06-14"
  assert list(c.observations) == ["s2"] and c.longitude == 180
  assert math.isnan(read(archive, "a").longitude) and archive.name == "mine"


def test_parquet_says_the_same_as_csv(folder: Path):
  rows = pa.table(
    {
      "pair_id": ["a", "b", "c"],
      "s1": ["s1/a.png", "s1/b.png", None],
      "s2": ["s2/a.png", "s2/b.png", "s2/c.png"],
      "split": ["train", "valid", "test"],
      "labels": [["water", "forest"], [], None],
      "lon": [1.5, None, math.nan],
      "lat": [2.5, None, math.nan],
      "thumbnail": [b"\xff", b"\xfe", None],
    }
  )
  pa.parquet.write_table(rows, folder / "pairs.parquet")
  src = table(
    folder,
    "pair_id,s1,s2,split,labels,lon,lat\n"
    "a,s1/a.png,s2/a.png,train,water;forest,1.5,2.5\n"
    "b,s1/b.png,s2/b.png,valid,,,\nc,,s2/c.png,test,,,\n",
  )
  one, other = listed(folder / "pairs.parquet", *TWO), listed(src, *TWO)
  assert repr(one.splits) == repr(other.splits) and one.sensors == other.sensors


def test_bands_name_what_the_files_hold(folder: Path):
  archive = listed(table(folder, ROWS), "--sensor", "s2=sentinel2_l2a", "--bands", "s2=B11,B08,B03")
  assert archive.sensors["s2"].band_names == ("B11", "B08", "B03")
  assert archive.sensors["s2"].dtype == "uint8"
  assert "s2: the files hold uint8, not uint16; values stay uint8." in archive.notes
  expected = np.asarray(Image.open(folder / "s2" / "a.png"))
  np.testing.assert_array_equal(read(archive, "a").observations["s2"].values, expected)


def test_a_sensor_of_ones_own_comes_from_json(folder: Path):
  described = sensor_to_json(preset("rgb", product="my camera", nodata=3))
  (folder / "own.json").write_text(json.dumps({"s2": described}))
  archive = listed(table(folder, ROWS), "--sensors", str(folder / "own.json"))
  assert list(archive.sensors) == ["s2"] and archive.sensors["s2"].product == "my camera"
  options = ("--sensors", str(folder / "own.json"), "--sensor", "s2=rgb")
  refused(folder / "pairs.csv", "both describe s2", options=options, error=OptionError)
  for content, error in (
    ("{", OptionError),
    ("[" * 100000, OptionError),
    ("{}", OptionError),
    ('{"s2": {"product": "x"}}', SensorError),
    ('{"s2": 3}', SensorError),
  ):
    (folder / "own.json").write_text(content)
    refused(folder / "pairs.csv", "own.json", options=options[:2], error=error)


def test_npy_of_either_shape_is_read_and_bands_first_is_refused_with_a_hint(folder: Path):
  values = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
  np.save(folder / "last.npy", values)
  np.save(folder / "first.npy", np.moveaxis(values, -1, 0))
  np.save(folder / "flat.npy", values[..., 0])
  src = table(folder, "pair_id,s1,s2\na,flat.npy,last.npy\nb,flat.npy,first.npy\n")
  archive = listed(src, *TWO)
  pair = read(archive, "a")
  np.testing.assert_array_equal(pair.observations["s2"].values, values)
  np.testing.assert_array_equal(pair.observations["s1"].values[..., 0], values[..., 0])
  with pytest.raises(ImageError, match=r"first.npy: has 5 bands, and seems .*np.moveaxis"):
    read(archive, "b")


def test_the_listing_does_not_depend_on_the_order_of_the_rows(folder: Path):
  forth = listed(table(folder, ROWS), *TWO)
  lines = ROWS.splitlines()
  back = listed(table(folder, "\n".join([lines[0], *lines[:0:-1]])), *TWO)
  assert repr(forth.splits) == repr(back.splits)


def test_without_a_split_column_a_hash_deals_80_10_10(folder: Path):
  rows = "".join(f"p{i:04d},s1/a.png,s2/a.png\n" for i in range(2000))
  src = table(folder, "pair_id,s1,s2\n" + rows)
  archive = listed(src, *TWO)
  sizes = {name: len(entries) for name, entries in archive.splits.items()}
  # Binomial: the standard deviations are 18 and 13.
  assert abs(sizes["train"] - 1600) < 72 and abs(sizes["validation"] - 200) < 54
  assert repr(listed(src, *TWO).splits) == repr(archive.splits)
  assert [e.pair_id for e in listed(src, *TWO, seed=1).splits["test"]] != [
    e.pair_id for e in archive.splits["test"]
  ]
  assert any("hash of pair_id (seed 0)" in note for note in archive.notes)


def test_pairs_are_read_in_a_spawned_worker(folder: Path):
  archive = listed(table(folder, ROWS), *TWO)
  pickle.loads(pickle.dumps(archive.read))
  with multiprocessing.get_context("spawn").Pool(1) as pool:
    pair = pool.apply(archive.read, (entry(archive, "a"),))
  expected = read(archive, "a").observations["s2"].values
  np.testing.assert_array_equal(pair.observations["s2"].values, expected)


@pytest.mark.parametrize(
  "name, expected",
  [("My Pairs-2.csv", "my_pairs_2"), ("2017.csv", "pairs_2017"), ("--.csv", "pairs")],
)
def test_a_data_set_is_named_after_its_table(folder: Path, name: str, expected: str):
  assert listed(table(folder, ROWS, name), *TWO).name == expected


def test_excel_s_mark_quotes_spaces_and_empty_lines_are_read(folder: Path):
  (folder / "pairs.csv").write_bytes(
    b'\xef\xbb\xbfpair_id, s1, s2, labels\r\n\r\na, "s1/a.png", s2/a.png, "sea, open;ice"\r\n'
  )
  archive = listed(folder / "pairs.csv", *TWO)
  assert entry(archive, "a").source.labels == ("sea, open", "ice")


# dtype and nodata


def test_nodata_that_the_file_declares_replaces_the_sensor_s(folder: Path):
  ones = np.ones((1, 4, 4), np.int16)
  tif(folder / "a.tif", ones, nodata=-9999)
  src = table(folder, "pair_id,s1\na,a.tif\n")
  archive = listed(src, "--sensor", "s1=grey")
  assert archive.sensors["s1"].nodata == -9999 and archive.sensors["s1"].dtype == "int16"
  assert "s1: the files declare nodata -9999, not None; theirs is used." in archive.notes
  told = listed(src, "--sensor", "s1=grey", "--nodata", "s1=7")
  assert told.sensors["s1"].nodata == 7
  assert "s1: the files declare nodata -9999; 7.0 is used, as told." in told.notes
  assert listed(src, "--sensor", "s1=grey", "--nodata", "s1=none").sensors["s1"].nodata is None
  refused(
    src, "no int16", options=("--sensor", "s1=grey", "--nodata", "s1=70000"), error=SensorError
  )


def test_a_sensor_s_nan_is_dropped_where_files_hold_integers(folder: Path):
  archive = listed(table(folder, ROWS), "--sensor", "s1=sentinel1_grd", "--bands", "s1=VV")
  assert archive.sensors["s1"].nodata is None
  assert "s1: the sensor's nodata nan is no uint8; there is none now." in archive.notes


def test_bands_whose_descriptions_tell_another_order_are_read_in_the_sensor_s(folder: Path):
  values = np.stack([np.full((4, 4), level, np.float32) for level in (-20, -12)])
  tif(folder / "a.tif", values, descriptions=("vh", "VV"))
  src = table(folder, "pair_id,s1\na,a.tif\n")
  options = ("--sensor", "s1=sentinel1_grd")
  assert read(listed(src, *options), "a").observations["s1"].values[0, 0].tolist() == [-12, -20]
  archive = listed(src, *options, "--bands", "s1=VH,VV")
  assert archive.sensors["s1"].band_names == ("VH", "VV")
  assert read(archive, "a").observations["s1"].values[0, 0].tolist() == [-20, -12]


def test_descriptions_that_name_other_things_say_nothing_of_the_order(folder: Path):
  values = np.stack([np.full((4, 4), level, np.uint16) for level in (500, 600, 700)])
  src = table(folder, "pair_id,s2\na,a.tif\n")
  options = ("--sensor", "s2=sentinel2_l2a", "--bands", "s2=B02,B03,B8A")
  for told in (("B2", "B3", "B8A"), ("blue", "green", "nir"), ("B2", "", "")):
    tif(folder / "a.tif", values, descriptions=told)
    pixel = read(listed(src, *options), "a").observations["s2"].values[0, 0]
    assert pixel.tolist() == [500, 600, 700]
  tif(folder / "a.tif", values, descriptions=("B8A", "B2", "B3"))
  pixel = read(listed(src, *options), "a").observations["s2"].values[0, 0]
  assert pixel.tolist() == [600, 700, 500]
  tif(folder / "a.tif", values, descriptions=("B4", "B3", "B2"))
  refused(src, "calls its band 1 B4, and", "names it B02", options=options, error=ArchiveError)


def test_files_that_differ_from_the_first_are_skipped_with_the_reason(folder: Path):
  ones = np.ones((1, 4, 4), np.float32)
  tif(folder / "a.tif", ones, nodata=0)
  tif(folder / "b.tif", ones.astype(np.float64), nodata=0)
  tif(folder / "c.tif", ones, nodata=-1)
  tif(folder / "d.tif", np.ones((2, 4, 4), np.float32))
  tif(folder / "e.tif", ones)
  rows = "".join(f"{name},{name}.tif\n" for name in "abcde")
  archive = listed(table(folder, "pair_id,s1\n" + rows), "--sensor", "s1=grey")
  with pytest.raises(ImageError, match=r"b.tif: holds float64, but the first .* float32"):
    read(archive, "b")
  observed = read(archive, "c").observations["s1"].values
  assert archive.sensors["s1"].known(observed).all()
  with pytest.raises(ImageError, match=r"d.tif: has 2 bands; expected the 1 .*\(grey\).*--bands"):
    read(archive, "d")
  assert read(archive, "e").observations["s1"].values.dtype == np.float32


def test_float64_nodata_beyond_float32_stays_unseen(folder: Path):
  values = np.ones((1, 4, 4))
  values[0, 1, 2] = -1.7976931348623157e308
  tif(folder / "a.tif", values, nodata=-1.7976931348623157e308)
  archive = listed(table(folder, "pair_id,s1\na,a.tif\n"), "--sensor", "s1=grey")
  sensor = archive.sensors["s1"]
  valid = sensor.valid(read(archive, "a").observations["s1"].values)
  assert valid.sum() == 15 and not valid[1, 2]


def test_a_file_that_shows_nothing_makes_no_pair(folder: Path):
  tif(folder / "nan.tif", np.full((2, 4, 4), np.nan, np.float32))
  tif(folder / "good.tif", np.ones((2, 4, 4), np.float32))
  Image.fromarray(np.full((4, 4), 255, np.uint8)).save(folder / "fill.png")
  Image.fromarray(np.full((4, 4), 9, np.uint8)).save(folder / "good.png")
  src = table(
    folder, "pair_id,sar,vv\na,good.tif,good.png\nb,nan.tif,good.png\nc,good.tif,fill.png\n"
  )
  sensors = ("--sensor", "sar=sentinel1_grd", "--sensor", "vv=grey", "--nodata", "vv=255")
  options = (*sensors, "--ungeoreferenced")
  archive = listed(src, *options)
  form = PairFormat(archive.sensors, {"sar": (4, 4), "vv": (4, 4)})
  form.check(read(archive, "a"))
  for pair_id, name in (("b", "nan.tif"), ("c", "fill.png")):
    with pytest.raises(ImageError, match=f"{name}: no pixel is valid"):
      read(archive, pair_id)


def test_sensors_are_aligned_and_the_first_gives_the_grid(folder: Path):
  values = np.arange(1, 65, dtype=np.uint8).reshape(1, 8, 8)
  tif(folder / "a.tif", values)
  tif(folder / "b.tif", values, transform=(10, 0, 500030, 0, -10, 4000000))
  src = table(folder, "pair_id,s1,s2\nx,a.tif,b.tif\n")
  options = ("--sensor", "s1=grey", "--sensor", "s2=grey", "--nodata", "s2=0")
  with pytest.raises(ImageError, match=r"b.tif: has a corner \+3.00 columns"):
    read(listed(src, *options), "x")
  pair = read(listed(src, *options, misaligned="warp"), "x")
  moved = pair.observations["s2"].values[..., 0]
  np.testing.assert_array_equal(moved[:, 3:], values[0, :, :5])
  assert (moved[:, :3] == 0).all() and pair.transform == UTM and pair.crs == "EPSG:32633"


# What is refused


def test_a_sensor_is_demanded_and_never_guessed(folder: Path):
  src = table(folder, "pair_id,s1,s2,note\na,s1/a.png,s2/a.png,fine\n")
  message = refused(
    src, "may be s1, s2.", "--sensor COLUMN=PRESET", "sentinel2_l2a", options=(), error=OptionError
  )
  assert "note" not in message


@pytest.mark.parametrize(
  "options, words",
  [
    (("--sensor", "s3=grey"), "no column of files 's3'; its columns are pair_id, s1, s2"),
    (("--sensor", "pair_id=grey"), "no column of files 'pair_id'"),
    (("--sensor", "s1"), "--sensor s1: expected KEY=VALUE"),
    (("--sensor", "s1=grey", "--sensor", "s1=rgb"), "names 's1' twice"),
    (("--sensor", "s1=gray"), "Did you mean 'grey'?"),
    (("--sensor", "S1=grey"), "lower-case"),
    (("--sensor", "s2=rgb", "--bands", "s2=R,G,X"), "no band 'X'"),
    (("--sensor", "s2=rgb", "--bands", "s1=R"), "no sensor 's1'"),
    (("--sensor", "s2=rgb", "--nodata", "s2=black"), "expected a number, nan or none"),
    (("--sensor", "s2=rgb", "--split-column", "fold"), "no column 'fold'"),
    (("--sensor", "s2=rgb", "--name", "My data"), "--name 'My data'"),
    (("--sensor", "s2=rgb", "--label-separator", ""), "--label-separator"),
  ],
)
def test_wrong_options_are_named(folder: Path, options: tuple[str, ...], words: str):
  refused(table(folder, ROWS), words, options=options, error=XJepaError)


def test_wrong_band_count_everywhere_names_file_count_and_bands(folder: Path):
  refused(
    table(folder, ROWS), "none of the first 4 files of sensor 's2'", "a.png: has 3 bands",
    "expected the 2", "(VV, VH)", "--bands s2=", options=("--sensor", "s2=sentinel1_grd"),
    error=ArchiveError,
  )  # fmt: skip


@pytest.mark.parametrize(
  "text, words",
  [
    ("", "no column 'pair_id'; its columns are (none)"),
    ("id,s1,s2\n", "no column 'pair_id'; its columns are id, s1, s2"),
    ("pair_id;s1;s2\n", "separated by commas"),
    ("pair_id,s1,s2\n", "has no rows"),
    ("pair_id,s1,s1,s2\n", "more than one column s1"),
    ("pair_id,s1,s2\na,s1/a.png\n", "line 2 has 2 cells, expected 3"),
    ("pair_id,s1,s2\na,s1/a.png,s2/a.png,more\n", "line 2 has 4 cells"),
    ("pair_id,s1,s2\n,s1/a.png,s2/a.png\n", "line 2: column 'pair_id' is empty"),
    ('pair_id,s1,s2\na,"s1/a.png,s2/a.png\n', "malformed"),
    ("pair_id,s1,s2\na,s1/a.png,s2/\0.png\n", "line 2 holds a zero at byte 15"),
    (f"pair_id,s1,s2\na,{'x' * 200000},y\n", "field larger than field limit"),
    (f"pair_id,s1,s2\na,{'x,' * 3000000}y\n", "line 2 is longer"),
    ("pair_id,s1,s2\ra,s1/a.png,s2/a.png\r", "malformed"),
    ("pair_id,s1,s2\na,,\n", "names no file"),
    ("pair_id,s1,s2\na,no.png,s2/a.png\n", "no pair has its files. Pair 'a'"),
  ],
)
def test_malformed_tables_are_refused_with_the_line(folder: Path, text: str, words: str):
  with open(folder / "pairs.csv", "w", newline="") as file:
    file.write(text)
  refused(folder / "pairs.csv", "pairs.csv", words)


@pytest.mark.parametrize(
  "column, value, words",
  [
    ("split", "my split", "column 'split': 'my split'"),
    ("split", "", "column 'split'"),
    ("split", "../x", "column 'split'"),
    ("labels", "water;;ice", "column 'labels'"),
    ("labels", "water;water", "column 'labels'"),
    ("s1_acquired", "yesterday", "column 's1_acquired': 'yesterday' is no ISO 8601 time"),
    ("lon", "200", "column 'lon': '200' is no number from -180 to 180"),
    ("lon", "nan", "column 'lon'"),
    ("lon", "east", "column 'lon': 'east'"),
    ("lon", "12", "only one of the columns 'lon' and 'lat'"),
  ],
)
def test_bad_cells_are_refused_with_line_and_column(
  folder: Path, column: str, value: str, words: str
):
  src = table(folder, f"pair_id,s1,s2,{column}\na,s1/a.png,s2/a.png,{value}\n")
  refused(src, "line 2", words)


def test_bytes_that_are_no_utf8_are_refused_with_their_place(folder: Path):
  (folder / "pairs.csv").write_bytes(b"pair_id,s1,s2\na,s1/\xff.png,s2/a.png\n")
  refused(folder / "pairs.csv", "line 2 is not UTF-8 at byte 6")


def test_duplicate_ids_list_ten_rows_and_the_count(folder: Path):
  rows = "a,s1/a.png,s2/a.png\n" * 15
  message = refused(table(folder, "pair_id,s1,s2\n" + rows), "14 rows cannot be used", "line 3: ")
  assert message.count("occurred before") == 10 and "line 12" in message
  assert "line 13" not in message and message.endswith("...")


def test_tables_that_are_none(folder: Path):
  refused(folder / "absent.csv", "no such file")
  refused(folder, "unknown suffix")
  refused(table(folder, ROWS, "pairs.xlsx"), "unknown suffix '.xlsx'")
  (folder / "folder.csv").mkdir()
  refused(folder / "folder.csv", "no such file")


def test_malformed_parquet_is_refused(folder: Path):
  src = folder / "pairs.parquet"
  ids = [f"p{i}" for i in range(300)]
  rows = pa.table({"pair_id": ids, "s1": ["s1/a.png"] * 300, "s2": ["s2/a.png"] * 300})
  pa.parquet.write_table(
    rows, src, write_page_checksum=True, use_dictionary=False, compression="none"
  )
  assert listed(src, *TWO)
  content = src.read_bytes()
  for length in (0, 3, len(content) // 2, len(content) - 1):
    src.write_bytes(content[:length])
    refused(src, "cannot be read as Parquet")
  at = content.index(b"p150")  # inside a page of values
  src.write_bytes(content[:at] + b"q" + content[at + 1 :])
  refused(src, "damaged after row 0")


@pytest.mark.parametrize(
  "column, value, words",
  [
    ("labels", ["a", None], "row 1: column 'labels'"),
    ("labels", [True], "row 1: column 'labels' holds a bool"),
    ("split", {"a": 1}, "row 1: column 'split' holds a dict"),
    ("lon", b"\xff", "row 1: column 'lon' holds a bytes"),
    ("s1", True, "row 1: column 's1' holds a bool"),
  ],
)
def test_parquet_cells_of_other_kinds_are_refused(folder: Path, column: str, value, words: str):
  cells = {"pair_id": ["a"], "s1": ["s1/a.png"], "s2": ["s2/a.png"], column: [value]}
  pa.parquet.write_table(pa.table(cells), folder / "pairs.parquet")
  refused(folder / "pairs.parquet", words)


# Where paths may lead


@pytest.mark.parametrize("path", ["../secret.png", "s1/../../secret.png", "/etc/hostname.png"])
def test_paths_out_of_the_folder_are_refused_unless_allowed(folder: Path, path: str):
  inner = folder / "inner"
  inner.mkdir()
  png(folder / "secret.png", 4, 6)
  png(inner / "ok.png", 4, 6)
  src = table(inner, f"pair_id,s1\na,ok.png\nb,{path}\n")
  refused(src, "line 3", path, "--allow-outside", options=("--sensor", "s1=grey"))
  archive = listed(src, "--sensor", "s1=grey", "--allow-outside")
  if path == "../secret.png":
    assert read(archive, "b").observations["s1"].values.shape == (4, 6, 1)


def test_dots_that_stay_inside_are_fine(folder: Path):
  src = table(folder, "pair_id,s1\na,s2/../s1/a.png\nb,./s1/b.png\n")
  assert read(listed(src, "--sensor", "s1=grey"), "a").observations["s1"].values.shape == (4, 6, 1)


def test_links_out_of_the_folder_are_refused_even_when_swapped_after_listing(folder: Path):
  inner = folder / "inner"
  inner.mkdir()
  png(folder / "secret.png", 4, 6)
  png(inner / "ok.png", 4, 6)
  (inner / "link.png").symlink_to(inner / "ok.png")
  src = table(inner, "pair_id,s1\na,link.png\n")
  archive = listed(src, "--sensor", "s1=grey")
  assert read(archive, "a").observations
  (inner / "link.png").unlink()
  (inner / "link.png").symlink_to(folder / "secret.png")
  with pytest.raises(ArchiveError, match="leads out of the folder"):
    read(archive, "a")
  refused(src, "leads out of the folder", options=("--sensor", "s1=grey"))
  (inner / "up").symlink_to(folder)
  refused(
    table(inner, "pair_id,s1\na,up/secret.png\n"), "leads out", options=("--sensor", "s1=grey")
  )


@pytest.mark.parametrize(
  "path",
  ["https://a.b/c.tif", "/vsicurl/https://a.b/c.tif", "/vsizip/c.zip/c.tif", "s3://a/b.png",
   "//vsimem/a.tif", "\\vsizip\\a.tif"],
)  # fmt: skip
def test_addresses_are_refused_whatever_is_allowed(folder: Path, path: str):
  src = table(folder, f"pair_id,s1\na,s1/a.png\nb,{path}\n")
  options = ("--sensor", "s1=grey", "--allow-outside")
  refused(src, "line 3", "is no file of this machine", options=options)


def test_a_folder_whose_name_begins_like_the_table_s_is_outside(folder: Path):
  for name in ("data", "data_secret"):
    png(folder / name / "a.png", 4, 6)
  src = table(folder / "data", "pair_id,s1\na,../data_secret/a.png\n")
  refused(src, "leads out of the folder", options=("--sensor", "s1=grey"))


def test_missing_files_skip_their_pairs_with_the_reason(folder: Path):
  src = table(folder, ROWS + "e,s1/e.png,s2/a.png\nf,,\n")
  archive = listed(src, *TWO)
  assert [(skip.pair_id, skip.reason) for skip in archive.skipped] == [
    ("e", "there is no file s1/e.png."),
    ("f", "its row names no file for any sensor."),
  ]
  listing = [e.pair_id for entries in archive.splits.values() for e in entries]
  assert sorted(listing) == ["a", "b", "c", "d"]


def test_a_damaged_first_file_is_not_the_one_that_describes_the_sensor(folder: Path):
  (folder / "s1" / "a.png").write_bytes(b"text")
  archive = listed(table(folder, ROWS), *TWO)
  assert archive.sensors["s1"].dtype == "uint8"
  with pytest.raises(ImageError, match="promises PNG"):
    read(archive, "a")


# Whatever comes, only our own errors

FUZZ = settings(
  max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
WIDE = (
  "pair_id,s1,s2,split,labels,lon,lat,s1_acquired\n"
  "a,s1/a.png,s2/a.png,train,x;y,1,2,2020-01-01\n"
  'b,s1/b.png,s2/b.png,"val",z,-1,-2,2020-01-01T00:00:00\n'
)


def survive(folder: Path, name: str, content: bytes) -> None:
  (folder / name).write_bytes(content)
  try:
    archive = listed(folder / name, *TWO)
    for entries in archive.splits.values():
      for one in entries:
        archive.read(one)
  except XJepaError as error:
    assert str(error)


@FUZZ
@given(content=st.binary(max_size=200))
def test_random_bytes_raise_only_our_errors(folder: Path, content: bytes):
  survive(folder, "pairs.csv", content)
  survive(folder, "pairs.csv", b"pair_id,s1,s2\n" + content)
  survive(folder, "pairs.parquet", b"PAR1" + content + b"PAR1")


@FUZZ
@given(
  edits=st.lists(
    st.tuples(st.integers(0, len(WIDE)), st.integers(0, 3), st.binary(max_size=3)), max_size=6
  )
)
def test_mutated_csv_raises_only_our_errors(folder: Path, edits):
  content = WIDE.encode()
  for at, removed, added in edits:
    content = content[:at] + added + content[at + removed :]
  survive(folder, "pairs.csv", content)


CELL = st.text(max_size=12) | st.sampled_from(["s1/a.png", "s2/a.png", "..", "/", "train", "1e999"])


@FUZZ
@given(rows=st.lists(st.lists(CELL, min_size=8, max_size=8), max_size=4))
def test_any_cells_raise_only_our_errors(folder: Path, rows: list[list[str]]):
  buffer = io.StringIO()
  csv.writer(buffer).writerows([WIDE.splitlines()[0].split(","), *rows])
  survive(folder, "pairs.csv", buffer.getvalue().encode("utf-8", "surrogatepass"))


@FUZZ
@given(data=st.data())
def test_mutated_parquet_raises_only_our_errors(folder: Path, data):
  sink = io.BytesIO()
  pa.parquet.write_table(
    pa.table({"pair_id": ["a"], "s1": ["s1/a.png"], "s2": ["s2/a.png"]}),
    sink,
    write_page_checksum=True,
  )
  content = bytearray(sink.getvalue())
  for _ in range(data.draw(st.integers(1, 3))):
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
  survive(folder, "pairs.parquet", bytes(content))
