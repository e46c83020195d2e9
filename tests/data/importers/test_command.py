"""The command line, from a real archive to a data set on disk, by value."""

from __future__ import annotations

import csv
import filecmp
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xjepa_jax.data import inspect
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.description import describe
from xjepa_jax.data.importers import __main__ as importers

rasterio = pytest.importorskip("rasterio", reason="needs the extra geo")

OMBRIA = (
  "--sensor",
  "s1=grey",
  "--sensor",
  "s2=rgb",
  "--nodata",
  "s1=255",
  "--nodata",
  "s2=0",
  "--ungeoreferenced",
)


def test_ombria_goes_in_through_its_manifest_and_every_pixel_comes_out(
  shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  out = str(tmp_path / "ombria")
  source = shared_data / "ombria"
  argv = ["manifest", "--src", str(source / "pairs.csv"), "--out", out, *OMBRIA]
  assert importers.main([*argv, "--dry-run"]) == 0
  assert not os.path.exists(out)
  assert importers.main(argv) == 0
  assert "Wrote 694 pairs (484 train, 70 validation, 140 test)" in capsys.readouterr().out
  with open(source / "pairs.csv", encoding="utf-8", newline="") as file:
    rows = {row["pair_id"]: row for row in csv.DictReader(file)}
  for split in describe(out).splits:
    with PairDataset(out, split) as pairs:
      for number in range(len(pairs)):
        pair = pairs[number]
        row = rows.pop(pair.pair_id)
        assert row["split"] == split
        for key in ("s1", "s2"):
          with Image.open(source / row[key]) as image:
            expected = np.asarray(image)
          values = pair.observations[key].values
          np.testing.assert_array_equal(values.reshape(expected.shape), expected)
  assert not rows
  assert inspect.main([out, "--verify"]) == 0


def test_the_number_of_workers_and_an_interruption_change_no_byte(
  shared_data: Path, tmp_path: Path
) -> None:
  argv = ["manifest", "--src", str(shared_data / "ombria" / "pairs.csv"), *OMBRIA]
  assert importers.main([*argv, "--out", str(tmp_path / "one"), "--workers", "1"]) == 0
  assert importers.main([*argv, "--out", str(tmp_path / "two"), "--workers", "2", "--resume"]) == 0
  names = os.listdir(tmp_path / "one")
  same, different, odd = filecmp.cmpfiles(tmp_path / "one", tmp_path / "two", names, shallow=False)
  assert sorted(same) == sorted(names) and not different and not odd


def test_bigearthnet_keeps_decibels_bands_and_places(shared_data: Path, tmp_path: Path) -> None:
  source = shared_data / "geotiff" / "bigearthnet_v1_example"
  out = str(tmp_path / "ben")
  assert importers.main(["bigearthnet", "--src", str(source), "--out", out]) == 0
  sensors = describe(out).format.sensors
  with PairDataset(out, None) as pairs:
    assert len(pairs) == 6
    for number in range(6):
      pair = pairs[number]
      folder = next(path for path in source.rglob(f"*{pair.pair_id}*") if path.is_dir())
      name = folder.name
      s2 = folder if folder.parent.name.startswith("BigEarthNet-S2") else None
      assert s2 is not None, "a pair is named by its optical patch"
      for band in ("B8A", "B08", "B02"):
        with rasterio.open(s2 / f"{name}_{band}.tif") as file:
          expected = file.read(1)
          bounds, crs = file.bounds, file.crs
        factor = 120 // expected.shape[0]
        index = sensors["s2"].index([band])[0]
        values = pair.observations["s2"].values[..., index]
        np.testing.assert_array_equal(values, expected.repeat(factor, 0).repeat(factor, 1))
      assert pair.crs == f"EPSG:{crs.to_epsg()}"
      assert (pair.transform[2], pair.transform[5]) == (bounds.left, bounds.top)
      middle = ((bounds.left + bounds.right) / 2, (bounds.bottom + bounds.top) / 2)
      (lon,), (lat,) = rasterio.warp.transform(crs, "EPSG:4326", [middle[0]], [middle[1]])
      np.testing.assert_allclose((pair.longitude, pair.latitude), (lon, lat), atol=1e-9)
      s1 = pair.observations["s1"].values
      assert sensors["s1"].band_names == ("VV", "VH")
      twin = next((source / "BigEarthNet-S1-Example").glob(f"*{name.split('_', 3)[3]}"))
      for place, polarisation in enumerate(("VV", "VH")):
        with rasterio.open(twin / f"{twin.name}_{polarisation}.tif") as file:
          np.testing.assert_array_equal(s1[..., place], file.read(1))
      assert pair.labels and pair.observations["s2"].acquired


def write_manifest(folder: Path, offset: int) -> list[str]:
  rng = np.random.default_rng(0)
  lines = ["pair_id,s2,split"]
  for number in range(12):
    values = rng.gamma(4, 300, (8, 8, 12)).astype(np.uint16) + np.uint16(1 + offset)
    np.save(folder / f"{number}.npy", values)
    lines.append(f"p{number},{number}.npy,train")
  (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
  return ["manifest", "--src", str(folder / "pairs.csv"), "--out", str(folder / "out")]


def test_a_directory_that_is_taken_is_refused_before_anything_is_read(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  argv = [*write_manifest(tmp_path, offset=0), "--sensor", "s2=sentinel2_l2a"]
  (tmp_path / "out").mkdir()
  (tmp_path / "out" / "notes.txt").write_text("mine")
  assert importers.main([*argv, "--dry-run"]) == 1
  said = capsys.readouterr()
  assert "out is not empty" in said.err and not said.out


def test_an_offset_that_is_not_declared_stops_the_import_unless_trusted(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  argv = write_manifest(tmp_path, offset=1000)
  assert importers.main([*argv, "--sensor", "s2=sentinel2_l2a"]) == 1
  said = capsys.readouterr()
  assert "sentinel2_l2a_n0400" in said.out and "--trust-units" in said.err
  assert not (tmp_path / "out").exists()
  assert importers.main([*argv, "--sensor", "s2=sentinel2_l2a", "--trust-units"]) == 0
  later = [*argv[:-1], str(tmp_path / "later"), "--sensor", "s2=sentinel2_l2a_n0400"]
  assert importers.main(later) == 0
  assert "Warning" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--workers=0", "--shard-mb=0"])
def test_numbers_that_make_no_sense_are_refused(
  tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
  argv = write_manifest(tmp_path, offset=0)
  assert importers.main([*argv, "--sensor", "s2=sentinel2_l2a", option]) == 1
  assert "must be above 0" in capsys.readouterr().err


def test_a_file_that_appears_after_an_interruption_is_another_import(tmp_path: Path) -> None:
  argv = [*write_manifest(tmp_path, offset=0), "--sensor", "s2=sentinel2_l2a"]
  (tmp_path / "out" / ".partial").mkdir(parents=True)
  (tmp_path / "out" / ".partial" / "plan.sha256").write_text("0" * 64)
  assert importers.main([*argv, "--resume"]) == 1
