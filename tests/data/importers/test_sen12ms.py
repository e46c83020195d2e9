"""Tests of the SEN12MS and SEN12MS-CR importer, on generated trees and on two real patches."""

from __future__ import annotations

import argparse
import pathlib
import pickle
import shutil
from collections.abc import Mapping

import numpy as np
import pytest
import rasterio

from xjepa_jax.data.archive import Archive, Entry
from xjepa_jax.data.import_plan import plan_import
from xjepa_jax.data.importers import sen12ms
from xjepa_jax.data.pairs import Pair
from xjepa_jax.errors import ArchiveError, DataError, ImageError
from xjepa_jax.sensors import Sensor

SIZE = 16  # the published 256 makes no difference to the reader
BANDS = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"]
SEASONS = ["ROIs1158_spring", "ROIs1868_summer", "ROIs1970_fall", "ROIs2017_winter"]
REAL = pathlib.Path(__file__).resolve().parents[3] / ".." / "shared" / "data/geotiff/sen12mscr"


def arguments(src: object, **changes: object) -> argparse.Namespace:
  parser = argparse.ArgumentParser()
  sen12ms.add_arguments(parser)
  args = parser.parse_args([])
  shared = {"src": str(src), "misaligned": "refuse", "resample": "nearest", "seed": 0}
  for key, value in {**shared, **changes}.items():
    setattr(args, key, value)
  return args


def write_tif(path: pathlib.Path, values: np.ndarray, left: float = 500_000.0) -> None:
  """(C, H, W) values as the archive's files are: UTM, 10 m, no nodata declared."""
  path.parent.mkdir(parents=True, exist_ok=True)
  count, height, width = values.shape
  with rasterio.open(
    path,
    "w",
    driver="GTiff",
    count=count,
    height=height,
    width=width,
    dtype=values.dtype,
    crs="EPSG:32633",
    transform=rasterio.Affine(10, 0, left, 0, -10, 5_400_000),
  ) as file:
    file.write(values)


def radar(patch: int) -> np.ndarray:
  b, r, c = np.ogrid[:2, :SIZE, :SIZE]
  return (-10.0 - 8 * b - patch / 100 - r / 64 - c / 4096).astype(np.float32)


def optical(patch: int, cloudy: bool = False) -> np.ndarray:
  b, r, c = np.ogrid[:13, :SIZE, :SIZE]
  return (1000 * b + 20 * r + c + 400 * (patch % 2) + 20_000 * cloudy).astype(np.uint16)


def land_cover(patch: int) -> np.ndarray:
  """Croplands above, water below, a row of urban land too thin to be a label, a pixel unknown."""
  classes = np.full((4, SIZE, SIZE), 200, np.uint16)
  classes[0] = 17
  classes[0, : SIZE // 2] = 12
  classes[0, 0] = 13
  classes[0, -1, -1] = 255
  return classes


def write_patch(root: pathlib.Path, season: str, scene: int, patch: int, lc: bool = True) -> None:
  kinds = {"s1": radar(patch), "s2": optical(patch)}
  if lc:
    kinds["lc"] = land_cover(patch)
  for kind, values in kinds.items():
    name = f"{season}_{kind}_{scene}_p{patch}.tif"
    write_tif(root / season / f"{kind}_{scene}" / name, values)


def write_cloudy_patch(root: pathlib.Path, season: str, scene: int, patch: int) -> None:
  kinds = {"s1": radar(patch), "s2": optical(patch), "s2_cloudy": optical(patch, cloudy=True)}
  for kind, values in kinds.items():
    name = f"{season}_{kind}_{scene}_p{patch}.tif"
    write_tif(root / f"{season}_{kind}" / f"{kind}_{scene}" / name, values)


def entries(archive: Archive) -> dict[str, Entry]:
  return {e.pair_id: e for split in archive.splits.values() for e in split}


def check_values(pair: Pair, sensors: Mapping[str, Sensor], patch: int) -> None:
  s1, s2 = (pair.observations[key].values for key in ("s1", "s2"))
  assert sensors["s2"].band_names == tuple(BANDS)
  for row, column in ((0, 0), (3, 11), (SIZE - 1, 5)):
    assert s1[row, column, 0] == np.float32(-10 - patch / 100 - row / 64 - column / 4096)
    assert s1[row, column, 1] == np.float32(-18 - patch / 100 - row / 64 - column / 4096)
    for index in range(13):
      expected = 1000 * index + 20 * row + column + 400 * (patch % 2)
      assert s2[row, column, index] == expected, BANDS[index]
  assert s1.dtype == np.float32 and s2.dtype == np.uint16


def test_sen12ms_values_labels_and_place_come_back(tmp_path) -> None:
  write_patch(tmp_path, "ROIs1158_spring", 1, 30)
  write_patch(tmp_path, "ROIs2017_winter", 22, 7)
  archive = sen12ms.open_archive(arguments(tmp_path))
  assert sorted(entries(archive)) == ["ROIs1158_spring_1_p30", "ROIs2017_winter_22_p7"]
  read = pickle.loads(pickle.dumps(archive.read))
  pair = read(entries(archive)["ROIs2017_winter_22_p7"])
  check_values(pair, archive.sensors, 7)
  assert pair.labels == ("Croplands", "Water bodies")
  assert pair.crs == "EPSG:32633"
  assert pair.transform == (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_400_000.0)
  # Half the patch east of the central meridian of zone 33, 15 degrees east.
  assert pair.longitude == pytest.approx(15 + 80 / 111_320 / np.cos(np.radians(48.74)), abs=1e-5)
  assert pair.latitude == pytest.approx(48.75, abs=0.02)


def test_a_class_needs_a_tenth_of_the_patch_to_be_a_label(tmp_path) -> None:
  write_patch(tmp_path, "ROIs1158_spring", 1, 1)
  path = tmp_path / "ROIs1158_spring" / "lc_1" / "ROIs1158_spring_lc_1_p1.tif"
  cover = np.ones((4, 10, 10), np.uint16)
  cover[0].flat[:10], cover[0].flat[10:19] = 5, 9
  write_tif(path, cover)
  archive = sen12ms.open_archive(arguments(tmp_path))
  (entry,) = entries(archive).values()
  assert archive.read(entry).labels == ("Evergreen needleleaf forests", "Mixed forests")


def test_land_cover_is_optional(tmp_path) -> None:
  write_patch(tmp_path, "ROIs1970_fall", 3, 4, lc=False)
  archive = sen12ms.open_archive(arguments(tmp_path))
  (entry,) = entries(archive).values()
  assert archive.read(entry).labels == ()


@pytest.mark.parametrize("cloudy", [False, True])
def test_sen12ms_cr_gives_the_cloudy_image_only_when_asked(tmp_path, cloudy: bool) -> None:
  write_cloudy_patch(tmp_path, "ROIs1868_summer", 5, 3)
  archive = sen12ms.open_archive(arguments(tmp_path, cloudy=cloudy))
  pair = archive.read(entries(archive)["ROIs1868_summer_5_p3"])
  check_values(pair, archive.sensors, 3)
  assert list(pair.observations) == ["s1", "s2", "s2_cloudy"][: 2 + cloudy]
  if cloudy:
    np.testing.assert_array_equal(
      pair.observations["s2_cloudy"].values, np.moveaxis(optical(3, cloudy=True), 0, -1)
    )


def test_a_scene_is_in_one_split_and_shares_are_about_80_10_10(tmp_path) -> None:
  for season in SEASONS:
    for scene in range(100):
      for patch in (1, 2):
        for kind in ("s1", "s2"):
          path = tmp_path / season / f"{kind}_{scene}" / f"{season}_{kind}_{scene}_p{patch}.tif"
          path.parent.mkdir(parents=True, exist_ok=True)
          path.touch()
  archive = sen12ms.open_archive(arguments(tmp_path))
  scenes = {
    split: {e.pair_id.rpartition("_")[0] for e in listed}
    for split, listed in archive.splits.items()
  }
  assert {split: len(names) * 2 for split, names in scenes.items()} == {
    split: len(listed) for split, listed in archive.splits.items()
  }
  assert 290 <= len(scenes["train"]) <= 350
  assert 20 <= len(scenes["validation"]) <= 60 and 20 <= len(scenes["test"]) <= 60
  other = sen12ms.open_archive(arguments(tmp_path, seed=1))
  assert [e.pair_id for e in other.splits["test"]] != [e.pair_id for e in archive.splits["test"]]
  again = sen12ms.open_archive(arguments(tmp_path))
  assert again.splits == archive.splits

  held = sen12ms.open_archive(arguments(tmp_path, split="holdout"))
  tests = {e.pair_id.rpartition("_")[0] for e in held.splits["test"]}
  published = {f"{s}_{n}" for s, numbers in sen12ms.HOLD_OUT.items() for n in numbers if n < 100}
  assert tests == published and "ROIs1158_spring_63" in tests
  assert sum(map(len, sen12ms.HOLD_OUT.values())) == 26


def test_the_patch_that_is_damaged_in_the_archive_is_always_left_out(tmp_path) -> None:
  write_patch(tmp_path, "ROIs1868_summer", 146, 202)
  write_patch(tmp_path, "ROIs1868_summer", 146, 203)
  archive = sen12ms.open_archive(arguments(tmp_path))
  assert list(entries(archive)) == ["ROIs1868_summer_146_p203"]
  (skip,) = archive.skipped
  assert skip.pair_id == "ROIs1868_summer_146_p202" and "damaged" in skip.reason


def test_a_patch_without_a_counterpart_is_left_out_with_the_reason(tmp_path) -> None:
  write_patch(tmp_path, "ROIs1158_spring", 1, 30)
  write_patch(tmp_path, "ROIs1158_spring", 1, 31)
  (tmp_path / "ROIs1158_spring/s2_1/ROIs1158_spring_s2_1_p31.tif").unlink()
  archive = sen12ms.open_archive(arguments(tmp_path))
  assert list(entries(archive)) == ["ROIs1158_spring_1_p30"]
  (skip,) = archive.skipped
  assert skip.pair_id == "ROIs1158_spring_1_p31" and "no image of s2" in skip.reason


@pytest.mark.parametrize("kind", ["s1", "s2", "lc"])
@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_damaged_image_is_an_error_of_its_pair_alone(tmp_path, kind: str, damage: str) -> None:
  write_patch(tmp_path, "ROIs1158_spring", 1, 30)
  write_patch(tmp_path, "ROIs1158_spring", 1, 31)
  path = tmp_path / "ROIs1158_spring" / f"{kind}_1" / f"ROIs1158_spring_{kind}_1_p30.tif"
  content = path.read_bytes()
  path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"no image")
  archive = sen12ms.open_archive(arguments(tmp_path))
  with pytest.raises(DataError, match=path.name):
    archive.read(entries(archive)["ROIs1158_spring_1_p30"])
  archive.read(entries(archive)["ROIs1158_spring_1_p31"])


def test_images_of_other_bands_or_types_are_refused(tmp_path) -> None:
  write_patch(tmp_path, "ROIs1158_spring", 1, 1)
  write_patch(tmp_path, "ROIs1158_spring", 1, 2)
  folder = tmp_path / "ROIs1158_spring" / "s2_1"
  write_tif(folder / "ROIs1158_spring_s2_1_p1.tif", optical(1)[:12])
  write_tif(folder / "ROIs1158_spring_s2_1_p2.tif", optical(2).astype(np.float32))
  archive = sen12ms.open_archive(arguments(tmp_path))
  with pytest.raises(ImageError, match="12 bands of uint16; expected 13 of uint16, B01"):
    archive.read(entries(archive)["ROIs1158_spring_1_p1"])
  with pytest.raises(ImageError, match="13 bands of float32"):
    archive.read(entries(archive)["ROIs1158_spring_1_p2"])


def test_shifted_images_are_refused_or_warped(tmp_path) -> None:
  write_patch(tmp_path, "ROIs1158_spring", 1, 1)
  path = tmp_path / "ROIs1158_spring" / "s2_1" / "ROIs1158_spring_s2_1_p1.tif"
  write_tif(path, optical(1), left=500_020.0)
  archive = sen12ms.open_archive(arguments(tmp_path))
  (entry,) = entries(archive).values()
  with pytest.raises(ImageError, match="2.00 columns"):
    archive.read(entry)
  warped = sen12ms.open_archive(arguments(tmp_path, misaligned="warp"))
  values = warped.read(entry).observations["s2"].values
  np.testing.assert_array_equal(values[:, 2:], np.moveaxis(optical(1), 0, -1)[:, :-2])
  assert not values[:, :2].any()


def test_a_patch_that_occurs_twice_is_refused(tmp_path) -> None:
  write_patch(tmp_path / "one", "ROIs1158_spring", 1, 1)
  shutil.copytree(tmp_path / "one", tmp_path / "two")
  with pytest.raises(ArchiveError, match="both the lc image"):
    sen12ms.open_archive(arguments(tmp_path))


@pytest.mark.parametrize("names", [[], ["readme.txt", "photo.tif"], ["ROIs1158_spring_1_p1.tif"]])
def test_a_foreign_folder_is_refused_with_what_was_looked_for(tmp_path, names: list[str]) -> None:
  for name in names:
    (tmp_path / name).touch()
  with pytest.raises(ArchiveError, match=r"ROIs1158_spring_s1_1_p30\.tif"):
    sen12ms.open_archive(arguments(tmp_path))


def test_a_missing_folder_or_sensor_is_named(tmp_path) -> None:
  with pytest.raises(ArchiveError, match="nowhere: cannot be listed"):
    sen12ms.open_archive(arguments(tmp_path / "nowhere"))
  write_patch(tmp_path, "ROIs1158_spring", 1, 1)
  with pytest.raises(ArchiveError, match="no image of s2_cloudy was found, only of lc, s1, s2"):
    sen12ms.open_archive(arguments(tmp_path, cloudy=True))


@pytest.mark.shared
@pytest.mark.skipif(not REAL.is_dir(), reason="the real pairs are not beside the repository")
def test_real_patches_equal_what_rasterio_reads() -> None:
  archive = sen12ms.open_archive(arguments(REAL))
  listed = entries(archive)
  assert sorted(listed) == ["ROIs1970_fall_139_p839", "ROIs2017_winter_112_p797"]
  for pair_id, entry in listed.items():
    pair = archive.read(entry)
    for key, folder in (("s1", "s1"), ("s2", "s2_cloudfree")):
      with rasterio.open(REAL / folder / f"{pair_id}.tif") as file:
        for index in range(file.count):
          np.testing.assert_array_equal(
            pair.observations[key].values[..., index], file.read(index + 1)
          )
        assert pair.crs == str(file.crs) and pair.transform == tuple(file.transform)[:6]
    assert pair.observations["s1"].values.mean() < -10
  # Sentinel-1 returns more in VV than in VH; cirrus (B10) is by far the darkest band.
  s1, s2 = pair.observations["s1"].values, pair.observations["s2"].values
  assert s1[..., 0].mean() > s1[..., 1].mean() + 3
  assert s2.mean(axis=(0, 1)).argmin() == BANDS.index("B10")
  assert plan_import(archive, 10**7, "bytes").warnings == []
