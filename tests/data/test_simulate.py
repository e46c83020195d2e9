"""The embedded data set goes the way of any archive, and is the same wherever it is made."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from xjepa_jax.data import simulate, simulated_places
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.scenes import scene


def test_the_written_pairs_are_the_scenes(simulated: str) -> None:
  pairs = PairDataset(simulated, None)
  assert len(pairs) == 160
  for number in range(0, 160, 23):
    pair = pairs[number]
    expected = scene(0, int(pair.pair_id.rsplit("-", 1)[1]), 16)
    np.testing.assert_array_equal(pair.observations["s1"].values, expected.sar)
    np.testing.assert_array_equal(pair.observations["s2"].values, expected.optical)
    assert pair.labels == expected.labels


def test_a_pair_keeps_its_split_when_the_data_set_grows() -> None:
  small, large = simulate.simulated_archive(50), simulate.simulated_archive(500)
  for split, entries in small.splits.items():
    assert set(entries) <= set(large.splits[split])


def test_the_command_writes_and_says_what_it_wrote(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  argv = ["--out", str(tmp_path / "out"), "--pairs", "20", "--size", "16", "--workers", "1"]
  assert simulate.main([*argv, "--dry-run"]) == 0
  assert "nothing was written" in capsys.readouterr().out and not (tmp_path / "out").exists()
  assert simulate.main(argv) == 0
  assert "Wrote 20 pairs (16 train, 2 validation, 2 test)" in capsys.readouterr().out
  assert simulate.main(argv) == 1
  assert "already holds a data set" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("option", "complaint"),
  [("--pairs=3", "at least 10"), ("--size=8", "16 to 512"), ("--seed=-1", "0 or above")],
)
def test_numbers_out_of_range_are_refused(
  tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, complaint: str
) -> None:
  assert simulate.main(["--out", str(tmp_path / "out"), option]) == 1
  assert complaint in capsys.readouterr().err


def test_the_split_sets_share_no_scene() -> None:
  digests = [hashlib.sha256(scene(0, i, 16).optical.tobytes()).digest() for i in range(100)]
  assert len(set(digests)) == 100


def test_scenes_lie_side_by_side_without_touching() -> None:
  rasterio = pytest.importorskip("rasterio")
  boxes = []
  for index in range(500):
    affine = rasterio.Affine(*simulated_places.transform(index, 64))
    west, north = affine @ (0, 0) if hasattr(affine, "__matmul__") else affine * (0, 0)
    boxes.append((west, north))
    longitude, latitude = simulated_places.centre(index, 64)
    assert west < longitude < west + 64 * affine.a and north + 64 * affine.e < latitude < north
  assert len(set(boxes)) == 500
  side = 64 * 10 / 111_320
  columns = sorted({west for west, _ in boxes})
  assert min(np.diff(columns)) > side
  assert max(columns) < 25 * side * 1.25  # a square: 500 scenes are 23 x 22


def test_every_day_of_the_year_is_seen_and_radar_is_later() -> None:
  days = {simulated_places.acquired(index)[:10] for index in range(365)}
  assert len(days) == 365
  assert simulated_places.acquired(5, hours=7) > simulated_places.acquired(5)


def test_as_geotiffs_they_have_the_pixels_the_place_the_bands_and_the_time(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  rasterio = pytest.importorskip("rasterio")
  out = tmp_path / "scenes"
  argv = ["--out", str(out), "--pairs", "10", "--size", "32", "--geotiff"]
  assert simulate.main(argv) == 0
  assert "Wrote 20 GeoTIFF files" in capsys.readouterr().out
  expected = scene(0, 3, 32)
  with rasterio.open(out / "s2" / "simulated-0-0000003.tif") as file:
    np.testing.assert_array_equal(np.moveaxis(file.read(), 0, -1), expected.optical)
    assert file.descriptions[:2] == ("B01", "B02")
    assert file.nodata == 0
    assert file.tags()["TIFFTAG_DATETIME"].startswith("2025:")
    longitude, latitude = simulated_places.centre(3, 32)
    np.testing.assert_allclose(file.lnglat(), (longitude, latitude), atol=1e-9)
  assert simulate.main(argv) == 1
  assert "not empty" in capsys.readouterr().err
