"""Folders of images become pairs by name, with a report of what fits and what does not."""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from xjepa_jax.data.archive import Archive
from xjepa_jax.data.description import describe
from xjepa_jax.data.importers import __main__ as importers
from xjepa_jax.data.importers import folders
from xjepa_jax.data.pairs import Pair
from xjepa_jax.errors import ArchiveError, ImageError, OptionError, SensorError, XJepaError
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
TWO = ("--sensor", "s1=grey:S1", "--sensor", "s2=grey:S2", "--ungeoreferenced")


def listed(src: Path, *options: str, misaligned: str = "refuse") -> Archive:
  parser = argparse.ArgumentParser()
  folders.add_arguments(parser)
  args = parser.parse_args(options)
  args.src, args.out, args.seed = str(src), "", 0
  args.misaligned, args.resample = misaligned, "nearest"
  return folders.open_archive(args)


def ids(archive: Archive) -> list[str]:
  return sorted(entry.pair_id for entries in archive.splits.values() for entry in entries)


def read(archive: Archive, pair_id: str) -> Pair:
  (entry,) = (e for entries in archive.splits.values() for e in entries if e.pair_id == pair_id)
  return archive.read(entry)


def tif(path: Path, seed: int = 0, x: float = 500000, y: float = 4000000, **options) -> np.ndarray:
  """Writes 8 x 8 pixels of 10 m, whose upper left corner is at (x, y)."""
  path.parent.mkdir(parents=True, exist_ok=True)
  size = options.pop("size", 8)
  values = np.random.default_rng(seed).integers(1, 255, (size, size)).astype(np.uint8)
  options = {"crs": "EPSG:32633", **options}
  with rasterio.open(
    path, "w", driver="GTiff", height=size, width=size, count=1, dtype="uint8",
    transform=rasterio.Affine(10, 0, x, 0, -10, y), **options,
  ) as file:  # fmt: skip
    file.write(values, 1)
  return values


@pytest.fixture
def tree(tmp_path: Path) -> Path:
  """Pairs a, b and x/c of aligned GeoTIFFs below S1 and S2."""
  for number, name in enumerate(("a", "b", "x/c")):
    tif(tmp_path / "S1" / f"{name}.tif", seed=number)
    tif(tmp_path / "S2" / f"{name}.tif", seed=number + 10)
  return tmp_path


def refused(src: Path, *words: str, options: tuple[str, ...] = TWO, error=ArchiveError) -> str:
  with pytest.raises(error) as caught:
    listed(src, *options)
  for word in words:
    assert word in str(caught.value), str(caught.value)
  return str(caught.value)


# Real data


@needs_ombria
def test_ombria_s_folders_pair_completely_and_by_value():
  options = (
    "--sensor",
    "s1=grey:s1",
    "--sensor",
    "s2=rgb:s2",
    "--nodata",
    "s1=255",
    "--ungeoreferenced",
  )
  archive = listed(OMBRIA, *options)
  assert ids(archive) == sorted(path.stem for path in (OMBRIA / "s1").iterdir())
  assert len(ids(archive)) == 694 and not archive.skipped and archive.name == "ombria"
  notes = list(archive.notes)
  assert "694 pairs have an image of every sensor" in notes
  for key, count in (("s1", 1), ("s2", 3)):
    assert f"{key}: 694 images, 694 matched, 0 unmatched" in notes
    assert f"{key}: crs none; size 128 x 128 x {count}; dtype uint8; nodata none" in notes
  contents = [path.read_bytes() for key in ("s1", "s2") for path in (OMBRIA / key).iterdir()]
  assert len(set(contents)) == len(contents) and "no two images hold the same bytes" in notes
  assert any(note.startswith("694 pairs are of one size; their shift is unknown") for note in notes)
  for pair_id in ("0001", "0350"):
    pair = read(archive, pair_id)
    for key in ("s1", "s2"):
      expected = np.asarray(Image.open(OMBRIA / key / f"{pair_id}.png")).reshape(128, 128, -1)
      np.testing.assert_array_equal(pair.observations[key].values, expected)
    assert math.isnan(pair.longitude)


@needs_geotiff
def test_terramesh_pairs_are_aligned_and_in_three_zones():
  options = ("--sensor", "s1=sentinel1_rtc:S1RTC", "--sensor", "s2=sentinel2_l2a:S2L2A")
  folder = GEOTIFF / "terramesh"
  archive = listed(folder, *options)
  names = sorted(path.stem for path in (folder / "S1RTC").glob("*.tif"))
  assert ids(archive) == names and len(names) == 3
  notes = list(archive.notes)
  assert "3 pairs are aligned within 0.5 pixels, 0 are not; largest shift 0.00 pixels" in notes
  (line,) = (note for note in notes if note.startswith("s2: crs "))
  for name in names:
    with rasterio.open(folder / "S2L2A" / f"{name}.tif") as file:
      assert f"{file.crs.to_string()} (1)" in line
  assert line.endswith("size 224 x 224 x 12; dtype int16; nodata none")
  with rasterio.open(folder / "S1RTC" / f"{names[0]}.tif") as file:
    vh = file.read(2).astype(np.float32)
  np.testing.assert_array_equal(read(archive, names[0]).observations["s1"].values[..., 1], vh)


@needs_geotiff
def test_sen1floods11_s_names_need_a_pattern():
  options = ("--sensor", "s1=sentinel1_grd:S1", "--sensor", "s2=sentinel2_l1c:S2")
  folder = GEOTIFF / "sen1floods11_sample"
  refused(folder, "'Spain_7370579_S1Hand'", "'Spain_7370579_S2Hand'", "--pair-id", options=options)
  archive = listed(folder, *options, "--pair-id", "(.*)_S.Hand")
  assert ids(archive) == ["Spain_7370579"]


@needs_ombria
def test_folders_are_imported_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
  for key in ("s1", "s2"):
    (tmp_path / "few" / key).mkdir(parents=True)
    for number in range(1, 9):
      shutil.copy(OMBRIA / key / f"{number:04d}.png", tmp_path / "few" / key)
  out = tmp_path / "out"
  status = importers.main(
    ["folders", "--src", str(tmp_path / "few"), "--out", str(out), "--workers", "1"]
    + ["--sensor", "s1=grey:s1", "--sensor", "s2=rgb:s2", "--ungeoreferenced"]
  )
  said = capsys.readouterr().out
  assert status == 0, said
  assert said.index("s1: 8 images, 8 matched, 0 unmatched") < said.index("Wrote 8 pairs")
  description = describe(str(out))
  assert description.name == "few" and sum(map(sum, description.splits.values())) == 8


# How images are matched


def test_the_id_is_the_path_below_the_sensor_s_folder(tree: Path):
  archive = listed(tree, *TWO)
  assert ids(archive) == ["a", "b", "x/c"] and not archive.skipped
  assert archive.name == re.sub("[^a-z0-9]+", "_", tree.name)
  pair = read(archive, "x/c")
  np.testing.assert_array_equal(
    pair.observations["s2"].values[..., 0], tif(tree / "again.tif", seed=12)
  )
  assert pair.crs == "EPSG:32633" and pair.longitude == pytest.approx(15.0004, abs=1e-3)
  pickle.loads(pickle.dumps(archive.read))


def test_a_pattern_takes_the_id_out_of_the_path(tmp_path: Path):
  for number in range(3):
    tif(tmp_path / "S1" / "2019" / f"S1_scene{number:03d}_VV.tif", seed=number)
    tif(tmp_path / "S2" / f"S2_scene{number:03d}.tif", seed=number + 10)
  tif(tmp_path / "S1" / "overview.tif", seed=99)


def test_unmatched_images_are_skipped_with_the_reason_or_kept(tree: Path):
  tif(tree / "S1" / "only1.tif", seed=20)
  tif(tree / "S2" / "only2.tif", seed=21)
  archive = listed(tree, *TWO)
  assert ids(archive) == ["a", "b", "x/c"]
  assert [(skip.pair_id, skip.reason) for skip in archive.skipped] == [
    ("only1", "no image of sensor 's2' has the id 'only1', only S1/only1.tif."),
    ("only2", "no image of sensor 's1' has the id 'only2', only S2/only2.tif."),
  ]
  kept = listed(tree, *TWO, "--allow-missing")
  assert ids(kept) == ["a", "b", "only1", "only2", "x/c"] and not kept.skipped
  assert list(read(kept, "only2").observations) == ["s2"]
  for one in (archive, kept):
    assert "3 pairs have an image of every sensor" in one.notes
    assert "s1: 4 images, 3 matched, 1 unmatched" in one.notes


def test_two_images_with_one_id_are_refused_ten_by_name(tree: Path):
  for number in range(12):
    tif(tree / "S1" / "one" / f"p{number:02d}.tif")
    tif(tree / "S1" / "two" / f"p{number:02d}.tif")
  message = refused(
    tree, "sensor 's1': 12 ids", "'p00' (S1/one/p00.tif, S1/two/p00.tif)", "; ...",
    options=(*TWO, "--pair-id", "([^/]*)$"),
  )  # fmt: skip
  assert "'p09'" in message and "'p10'" not in message
  shutil.copy(tree / "S1" / "a.tif", tree / "S1" / "a.tiff")
  refused(tree, "'a' (S1/a.tif, S1/a.tiff)")


def test_other_and_hidden_files_are_no_images(tree: Path):
  (tree / "S1" / "readme.txt").write_text("text")
  (tree / "S1" / "a.tif.aux.xml").write_text("<xml/>")
  (tree / "S1" / "._a.tif").write_bytes(b"\0\5\x16\7")
  tif(tree / "S1" / ".cache" / "d.tif")
  assert "s1: 3 images, 3 matched, 0 unmatched" in listed(tree, *TWO).notes


def test_a_sensor_of_ones_own_is_in_the_folder_of_its_key_or_in_a_named_one(tree: Path):
  described = sensor_to_json(preset("grey", product="my camera"))
  (tree / "own.json").write_text(json.dumps({"s2": described}))
  options = ("--sensor", "s2=:S2", "--sensor", "s1=grey:S1", "--sensors", str(tree / "own.json"))
  archive = listed(tree, *options)
  assert list(archive.sensors) == ["s2", "s1"]  # as on the command line: the first gives the grid
  assert archive.sensors["s2"].product == "my camera"
  (tree / "S2").rename(tree / "s2")
  assert list(listed(tree, *options[2:]).sensors) == ["s1", "s2"]
  refused(tree, "names no preset", options=("--sensor", "s2=:s2"))


# What the report says


def test_shifts_are_measured_from_the_headers(tmp_path: Path):
  shifts = {"none": (0, 0), "half": (5, 0), "down": (0, -20), "far": (37, 12)}  # metres of 10 m
  for number, (name, (x, y)) in enumerate(shifts.items()):
    tif(tmp_path / "S1" / f"{name}.tif", seed=number)
    tif(tmp_path / "S2" / f"{name}.tif", number + 10, 500000 + x, 4000000 + y)
  archive = listed(tmp_path, *TWO)
  notes = list(archive.notes)
  assert (
    "2 pairs are aligned within 0.5 pixels, 2 are not; largest shift 3.70 pixels (pair 'far')"
    in notes
  )
  (first,) = (note for note in notes if note.startswith("first pair that is not aligned: "))
  assert "S2/down.tif: has a corner +0.00 columns and +2.00 rows" in first
  for name in shifts:  # the import does as the report says
    if name in ("down", "far"):
      with pytest.raises(ImageError, match="has a corner"):
        read(archive, name)
    else:
      assert read(archive, name)
  warped = listed(tmp_path, *TWO, "--nodata", "s2=0", misaligned="warp")
  assert read(warped, "far").observations["s2"].values.shape == (8, 8, 1)


def test_other_systems_and_sizes_are_counted_and_not_aligned(tree: Path):
  tif(tree / "S2" / "b.tif", seed=30, crs="EPSG:32634")
  tif(tree / "S2" / "x" / "c.tif", seed=31, size=4, nodata=0)
  notes = list(listed(tree, *TWO).notes)
  assert "1 pairs are aligned within 0.5 pixels, 2 are not; largest shift 0.00 pixels" in notes
  assert (
    "s2: crs EPSG:32633 (2), EPSG:32634 (1); size 8 x 8 x 1 (2), 4 x 4 x 1 (1); dtype uint8; "
    "nodata none (2), 0.0 (1)" in notes
  )


def test_copies_are_found_by_their_bytes(tree: Path):
  shutil.copy(tree / "S1" / "a.tif", tree / "S1" / "d.tif")
  shutil.copy(tree / "S1" / "a.tif", tree / "S2" / "d.tif")
  shutil.copy(tree / "S2" / "b.tif", tree / "S2" / "e.tif")
  archive = listed(tree, *TWO)
  assert "3 images are copies of another, byte by byte; first S1/d.tif of S1/a.tif" in archive.notes


def test_large_files_that_begin_alike_are_no_copies(tmp_path: Path):
  values = np.zeros((300, 300), np.uint8)
  for folder in ("S1", "S2"):
    (tmp_path / folder).mkdir()
    values[-1, -1] += 1
    np.save(tmp_path / folder / "a.npy", values)
  assert "no two images hold the same bytes" in listed(tmp_path, *TWO).notes
  values[-1, -1] = 1
  np.save(tmp_path / "S2" / "a.npy", values)
  assert any("S2/a.npy of S1/a.npy" in note for note in listed(tmp_path, *TWO).notes)


def test_a_damaged_image_is_reported_and_its_pair_skipped_when_read(tree: Path):
  (tree / "S2" / "b.tif").write_bytes(b"text")
  archive = listed(tree, *TWO)
  (note,) = (note for note in archive.notes if "cannot be read" in note)
  assert note.startswith("s2: 1 images cannot be read, first ") and "promises GeoTIFF" in note
  assert (
    "2 pairs are aligned within 0.5 pixels, 0 are not; largest shift 0.00 pixels" in archive.notes
  )
  with pytest.raises(ImageError, match="promises GeoTIFF"):
    read(archive, "b")


# What is refused


def test_a_sensor_is_demanded_and_never_guessed(tree: Path):
  refused(tree, "There are S1, S2.", "--sensor KEY=PRESET:FOLDER", options=())


@pytest.mark.parametrize(
  "options, words, error",
  [
    (("--sensor", "s1"), "--sensor s1: expected KEY=VALUE", OptionError),
    (("--sensor", "s1=gray:S1"), "Did you mean 'grey'?", SensorError),
    (("--sensor", "s1=grey:S3"), "sensor 's1': there is no folder", ArchiveError),
    (("--sensor", "s1=grey:S1", "--bands", "s1=X"), "no band 'X'", SensorError),
    (("--sensor", "s1=grey:S1", "--nodata", "s2=0"), "no sensor 's2'", OptionError),
    ((*TWO, "--pair-id", "("), "is no regular expression", ArchiveError),
    ((*TWO, "--pair-id", "a"), "has 0 groups, expected one", ArchiveError),
    ((*TWO, "--pair-id", "(a)(b)"), "has 2 groups, expected one", ArchiveError),
    ((*TWO, "--pair-id", "(z)"), "no id has an image of every sensor", ArchiveError),
    ((*TWO, "--name", "My data"), "--name 'My data'", OptionError),
    (("--sensor", "s1=grey:S1", "--sensor", "s2=grey:S1"), "folder of its own", ArchiveError),
    (("--sensor", "s1=grey:S1", "--sensor", "s2=grey:S1/x"), "folder of its own", ArchiveError),
    (("--sensor", "s1=grey:.", "--sensor", "s2=grey:S2"), "folder of its own", ArchiveError),
    (("--sensor", "s1=rgb:S1"), "none of the first 3 files of sensor 's1'", ArchiveError),
  ],
)
def test_wrong_options_are_named(tree: Path, options: tuple[str, ...], words: str, error):
  refused(tree, words, options=options, error=error)


def test_folders_that_are_none_or_empty(tree: Path):
  refused(tree / "absent", "there is no such folder")
  refused(tree / "S1" / "a.tif", "there is no such folder")
  (tree / "S3").mkdir()
  options = ("--sensor", "s1=grey:S1", "--sensor", "s3=grey:S3")
  refused(
    tree, "sensor 's3': there is no .tif, .tiff, .jp2, .png, .npy file below", options=options
  )


def test_names_that_cannot_be_printed_are_refused(tree: Path):
  for name in (b"\xff.tif", b"line\nbreak.tif"):
    path = os.fsencode(tree / "S1") + b"/" + name
    Path(os.fsdecode(path)).write_bytes(b"")
    refused(tree, "S1/", "rename the file")
    os.unlink(path)


@pytest.mark.parametrize("path", ["../S1", "/", "/vsizip/a.zip", "https://a.b/c"])
def test_folders_outside_are_refused(tree: Path, path: str):
  inner = tree / "inner"
  inner.mkdir()
  refused(inner, path, options=("--sensor", f"s1=grey:{path}"), error=XJepaError)
  if path == "../S1":
    archive = listed(inner, "--sensor", f"s1=grey:{path}", "--allow-outside")
    assert ids(archive) == ["a", "b", "x/c"] and read(archive, "a")


def test_links_may_not_leave_the_archive_unless_allowed(tree: Path):
  inner = tree / "inner"
  tif(inner / "S1" / "a.tif", seed=40)
  tif(inner / "S2" / "a.tif", seed=41)
  (inner / "S1" / "b.tif").symlink_to(tree / "S1" / "b.tif")
  (inner / "S2" / "b.tif").symlink_to(inner / "S2" / "a.tif")
  refused(inner, "'S1/b.tif' leads out of the folder", "--allow-outside", error=ArchiveError)
  assert ids(listed(inner, *TWO, "--allow-outside")) == ["a", "b"]
