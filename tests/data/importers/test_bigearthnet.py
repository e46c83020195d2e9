"""Tests of the BigEarthNet importer, on generated trees of both versions and on six real pairs."""

from __future__ import annotations

import argparse
import json
import pathlib
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio

from xjepa_jax.data.archive import Archive, Entry
from xjepa_jax.data.import_plan import plan_import
from xjepa_jax.data.importers import bigearthnet, bigearthnet_labels, bigearthnet_lists
from xjepa_jax.errors import ArchiveError, DataError, ImageError, OptionError, TableError

GSD = {
  **dict.fromkeys(["B02", "B03", "B04", "B08"], 10),
  **dict.fromkeys(["B05", "B06", "B07", "B8A", "B11", "B12"], 20),
  **dict.fromkeys(["B01", "B09"], 60),
}
PRODUCT_ORDER = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
REAL = pathlib.Path(__file__).resolve().parents[3] / ".." / "shared" / "data/geotiff"
REAL = REAL / "bigearthnet_v1_example"
shared = [
  pytest.mark.shared,
  pytest.mark.skipif(not REAL.is_dir(), reason="the real pairs are not beside the repository"),
]
# Easting 405,000 of zone 33: 95,000 / 0.9996 m west of 15 degrees east, on a parallel of radius
# 6,390 km * cos(latitude); northing 5,341,800.
AUSTRIA = (15 - np.degrees(95_000 / 0.9996 / (6.39e6 * np.cos(np.radians(48.223)))), 48.223)

V1: list[tuple[str, str, str, list[str]]] = [  # S1 name, S2 name, acquisition_date of S2, labels
  (
    "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48",
    "S2A_MSIL2A_20170613T101031_87_48",
    "2017-06-13 10:10:31",
    ["Non-irrigated arable land", "Rice fields", "Airports"],
  ),
  (
    "S1B_IW_GRDH_1SDV_20170925T043256_35VPK_69_24",
    "S2B_MSIL2A_20170924T93020_69_24",
    "2017-09-24 09:30:20",
    ["Transitional woodland/shrub", "Mixed forest"],
  ),
  (
    "S1A_IW_GRDH_1SDV_20170617T064724_29UPU_4_55",
    "S2A_MSIL2A_20170617T113321_4_55",
    "2017-06-17 11:33:21",
    ["Burnt areas"],
  ),
]
V2 = [  # S1 name, patch_id, s2v1_name, labels, split, snow, cloud
  (
    "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_26_57",
    "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57",
    "S2A_MSIL2A_20170613T101031_26_57",
    ["Arable land", "Pastures"],
    "train",
    False,
    False,
  ),
  (
    "S1B_IW_GRDH_1SDV_20170925T043256_35VPK_60_61",
    "S2B_MSIL2A_20170924T093020_N9999_R136_T35VPK_60_61",
    "S2B_MSIL2A_20170924T93020_60_61",
    ["Inland waters"],
    "validation",
    False,
    False,
  ),
  (
    "S1A_IW_GRDH_1SDV_20180204T043253_35VPK_57_38",
    "S2B_MSIL2A_20180204T094156_N9999_R036_T35VPK_57_38",
    "S2B_MSIL2A_20180204T94156_57_38",
    ["Mixed forest"],
    "test",
    True,
    False,
  ),
]


def arguments(src: object, **changes: object) -> argparse.Namespace:
  parser = argparse.ArgumentParser()
  bigearthnet.add_arguments(parser)
  args = parser.parse_args([])
  given = {"src": str(src), "misaligned": "refuse", "resample": "nearest", "seed": 0}
  for key, value in {**given, **changes}.items():
    setattr(args, key, value)
  return args


def write_tif(path: pathlib.Path, values: np.ndarray, gsd: int, left: float) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  height, width = values.shape
  with rasterio.open(
    path,
    "w",
    driver="GTiff",
    count=1,
    height=height,
    width=width,
    dtype=values.dtype,
    crs="EPSG:32633",
    transform=rasterio.Affine(gsd, 0, left, 0, -gsd, 5_342_400),
  ) as file:
    file.write(values, 1)


def band(name: str, number: int) -> np.ndarray:
  """Every band, pair, row and column has a share of its own in a value."""
  size = 1200 // GSD[name]
  r, c = np.ogrid[:size, :size]
  return (1000 * PRODUCT_ORDER.index(name) + 300 * number + 2 * r + c % 2).astype(np.uint16)


def polarisation(name: str, number: int) -> np.ndarray:
  r, c = np.ogrid[:120, :120]
  return ({"VV": -10.0, "VH": -20.0}[name] - number - r / 128 - c / 32_768).astype(np.float32)


def write_patches(s1: pathlib.Path, s2: pathlib.Path, number: int, left: float = 404_400) -> None:
  for name in PRODUCT_ORDER:
    write_tif(s2 / f"{s2.name}_{name}.tif", band(name, number), GSD[name], left)
  for name in ("VH", "VV"):
    write_tif(s1 / f"{s1.name}_{name}.tif", polarisation(name, number), 10, left)


@pytest.fixture()
def v1_root(tmp_path: pathlib.Path) -> pathlib.Path:
  root = tmp_path / "ben"
  for number, (s1_name, s2_name, date, labels) in enumerate(V1):
    s1, s2 = root / "BigEarthNet-S1-v1.0" / s1_name, root / "BigEarthNet-v1.0" / s2_name
    write_patches(s1, s2, number)
    common = {"labels": labels, "coordinates": {"ulx": 404400}, "projection": "PROJCS[...]"}
    described = {**common, "corresponding_s2_patch": s2_name, "acquisition_time": "2017"}
    (s1 / f"{s1_name}_labels_metadata.json").write_text(json.dumps(described))
    described = {**common, "tile_source": "S2A.SAFE", "acquisition_date": date}
    (s2 / f"{s2_name}_labels_metadata.json").write_text(json.dumps(described))
  return root


def metadata(rows: list[tuple]) -> pa.Table:
  columns = zip(*rows, strict=True)
  names = ("s1_name", "patch_id", "s2v1_name", "labels", "split", *bigearthnet_lists.FLAGS)
  return pa.table({name: list(column) for name, column in zip(names, columns, strict=True)})


@pytest.fixture()
def v2_root(tmp_path: pathlib.Path) -> pathlib.Path:
  root = tmp_path / "reben"
  for number, (s1_name, patch_id, *_) in enumerate(V2):
    # S1A_IW_GRDH_1SDV_20170613T165043 and S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP
    s1 = root / "BigEarthNet-S1" / s1_name[:32] / s1_name
    s2 = root / "BigEarthNet-S2" / patch_id[:44] / patch_id
    write_patches(s1, s2, number)
  # The published metadata.parquet lists no patch with snow, cloud or shadow; a second file does.
  pq.write_table(metadata([row for row in V2 if not row[5]]), root / "metadata.parquet")
  snow = "metadata_for_patches_with_snow_cloud_or_shadow.parquet"
  pq.write_table(metadata([row for row in V2 if row[5]]), root / snow)
  return root


def entries(archive: Archive) -> dict[str, Entry]:
  return {e.pair_id: e for split in archive.splits.values() for e in split}


def check_values(archive: Archive, pair_id: str, number: int) -> None:
  """Against the arrays that were written, coarser bands brought up by np.kron."""
  pair = pickle.loads(pickle.dumps(archive.read))(entries(archive)[pair_id])
  s1, s2 = pair.observations["s1"].values, pair.observations["s2"].values
  assert archive.sensors["s1"].band_names == ("VV", "VH")
  assert archive.sensors["s2"].band_names == tuple(PRODUCT_ORDER)
  np.testing.assert_array_equal(s1[..., 0], polarisation("VV", number))
  np.testing.assert_array_equal(s1[..., 1], polarisation("VH", number))
  for index, name in enumerate(PRODUCT_ORDER):
    fine = np.kron(band(name, number), np.ones((GSD[name] // 10,) * 2, np.uint16))
    np.testing.assert_array_equal(s2[..., index], fine, err_msg=name)
  assert s2.dtype == np.uint16 and s2.shape == (120, 120, 12)
  assert s1.dtype == np.float32 and s1.shape == (120, 120, 2)
  assert pair.crs == "EPSG:32633"
  assert pair.transform == (10.0, 0.0, 404_400.0, 0.0, -10.0, 5_342_400.0)


# Version 1


def test_v1_values_labels_times_and_place_come_back(v1_root) -> None:
  archive = bigearthnet.open_archive(arguments(v1_root))
  assert archive.name == "bigearthnet_v1" and not archive.skipped
  assert sorted(entries(archive)) == sorted(row[1] for row in V1)
  for number, (_, s2_name, date, labels) in enumerate(V1):
    check_values(archive, s2_name, number)
    pair = archive.read(entries(archive)[s2_name])
    assert pair.labels == tuple(labels)
    assert pair.observations["s2"].acquired == date.replace(" ", "T") + "Z"
  assert pair.observations["s1"].acquired == "2017-06-17T06:47:24Z"
  assert (pair.longitude, pair.latitude) == pytest.approx(AUSTRIA, abs=0.002)


def test_v1_bilinear_bands_follow_a_plane(v1_root) -> None:
  s2_name = V1[0][1]
  path = v1_root / "BigEarthNet-v1.0" / s2_name / f"{s2_name}_B8A.tif"
  r, c = np.ogrid[:60, :60]
  write_tif(path, (4 * r + 8 * c + 100).astype(np.uint16), 20, 404_400)
  archive = bigearthnet.open_archive(arguments(v1_root, resample="bilinear"))
  values = archive.read(entries(archive)[s2_name]).observations["s2"].values
  # Centres of 10 m pixels lie at -1/4, 1/4, 3/4 ... of a 20 m pixel: 2 a row, 4 a column, less 3.
  rows, columns = np.ogrid[1:119, 1:119]
  np.testing.assert_array_equal(
    values[1:119, 1:119, PRODUCT_ORDER.index("B8A")], 100 + 2 * rows + 4 * columns - 3
  )


def test_v1_labels_can_be_those_of_bigearthnet_19(v1_root) -> None:
  archive = bigearthnet.open_archive(arguments(v1_root, labels="19"))
  labels = [archive.read(entries(archive)[row[1]]).labels for row in V1]
  assert labels == [("Arable land",), ("Transitional woodland, shrub", "Mixed forest"), ()]


def test_the_19_nomenclature_takes_all_43_names() -> None:
  # CORINE level 3 as BigEarthNet v1 uses it: 44 classes without "Glaciers and perpetual snow".
  names = [name for new, olds in bigearthnet_labels.BEN19.items() for name in olds or (new,)]
  assert len(names) == len(set(names)) == 32 and len(bigearthnet_labels.BEN19_DROPPED) == 11
  assert len({*names, *bigearthnet_labels.BEN19_DROPPED}) == 43
  assert len(bigearthnet_labels.BEN19) == 19
  # Sumbul et al. 2021, table 1, by number of original classes.
  merged = sorted(len(olds) for olds in bigearthnet_labels.BEN19.values() if olds)
  assert merged == [1, 2, 2, 2, 2, 2, 2, 3, 3, 4]


def test_v1_an_unknown_label_is_an_error_of_its_pair_when_converted(v1_root) -> None:
  s2_name = V1[1][1]
  path = v1_root / "BigEarthNet-v1.0" / s2_name / f"{s2_name}_labels_metadata.json"
  path.write_text(path.read_text().replace("Mixed forest", "Mixed forrest"))
  archive = bigearthnet.open_archive(arguments(v1_root, labels="19"))
  with pytest.raises(ArchiveError, match="Mixed forrest"):
    archive.read(entries(archive)[s2_name])


def test_v1_patches_of_one_tile_and_date_share_a_split(tmp_path) -> None:
  for tile in range(60):
    for patch in range(3):
      s1 = f"S1A_IW_GRDH_1SDV_20170613T165043_{tile:02d}UUP_{tile}_{patch}"
      s2 = f"S2A_MSIL2A_20170613T101031_{tile}_{patch}"
      for root, name in (("S1", s1), ("S2", s2)):
        (tmp_path / root / name).mkdir(parents=True)
        content = {"labels": [], **({"corresponding_s2_patch": s2} if root == "S1" else {})}
        (tmp_path / root / name / f"{name}_labels_metadata.json").write_text(json.dumps(content))
  archive = bigearthnet.open_archive(arguments(tmp_path))
  tiles = {
    split: [e.pair_id.split("_")[3] for e in listed] for split, listed in archive.splits.items()
  }
  assert sum(len(set(one)) for one in tiles.values()) == 60
  assert all(len(one) == 3 * len(set(one)) for one in tiles.values())
  assert 38 <= len(set(tiles["train"])) <= 56
  assert any("tile and date" in note and "seed 0" in note for note in archive.notes)
  other = bigearthnet.open_archive(arguments(tmp_path, seed=5))
  assert other.splits != archive.splits
  assert bigearthnet.open_archive(arguments(tmp_path)).splits == archive.splits


@pytest.mark.parametrize("header", ["", "name\n", "\ufeffs2_name,s1_name\n"])
def test_v1_a_subset_gives_the_splits(v1_root, tmp_path, header: str) -> None:
  train, test = tmp_path / "train.csv", tmp_path / "test.csv"
  train.write_text(f"{header}{V1[1][1]}\n", encoding="utf-8")
  test.write_text(f"{header}{V1[0][1]},{V1[0][0]}\nS2A_MSIL2A_20170613T101031_1_1\n")
  archive = bigearthnet.open_archive(
    arguments(v1_root, subset=[f"train={train}", f"test={test}"], labels="19")
  )
  listed = {split: [e.pair_id for e in each] for split, each in archive.splits.items()}
  assert listed == {"train": [V1[1][1]], "test": [V1[0][1]]}
  (skip,) = archive.skipped
  assert skip.pair_id == "S2A_MSIL2A_20170613T101031_1_1" and "--subset" in skip.reason


def test_v1_a_subset_without_splits_only_selects(v1_root, tmp_path) -> None:
  path = tmp_path / "some.csv"
  path.write_text(f"{V1[1][1]}\n{V1[2][1]}\n{V1[2][1]}\n")
  archive = bigearthnet.open_archive(arguments(v1_root, subset=[str(path)]))
  whole = bigearthnet.open_archive(arguments(v1_root))
  assert sorted(entries(archive)) == sorted([V1[1][1], V1[2][1]])
  for split, listed in archive.splits.items():
    assert {e.pair_id for e in listed} <= {e.pair_id for e in whole.splits[split]}


@pytest.mark.parametrize(
  ("options", "content", "expected"),
  [
    (["train={}", "test={}"], V1[0][1], "named for train split already"),
    (["train={}", "{}2"], V1[0][1], "give every file a split, as"),
    (["half={}"], V1[0][1], "SPLIT=CSV"),
    (["{}"], "patch\n", "names no S2 patch"),
    (["{}"], f"patch\n{V1[0][1]}\nsomething\n", "line 3"),
    (["{}"], "", "names no S2 patch"),
    (["{}3"], "", "cannot be read"),
  ],
)
def test_subsets_that_cannot_be_used_are_refused(
  v1_root, tmp_path, options: list[str], content: str, expected: str
) -> None:
  path = tmp_path / "list.csv"
  path.write_text(content)
  (tmp_path / "list.csv2").write_text(V1[1][1])
  with pytest.raises((OptionError, TableError), match=expected):
    bigearthnet.open_archive(arguments(v1_root, subset=[one.format(path) for one in options]))


def test_a_subset_of_other_bytes_is_refused(v1_root, tmp_path) -> None:
  path = tmp_path / "list.csv"
  for content in (b"\xff\xfe\x00", b"a,\0b\r\n" * 5, b'"' * 200_000):
    path.write_bytes(content)
    with pytest.raises((OptionError, TableError), match=r"list\.csv"):
      bigearthnet.open_archive(arguments(v1_root, subset=[str(path)]))


def test_v1_a_patch_without_a_counterpart_is_left_out_with_the_reason(v1_root) -> None:
  (v1_root / "BigEarthNet-v1.0" / V1[0][1]).rename(v1_root / "elsewhere")
  (v1_root / "BigEarthNet-S1-v1.0" / V1[1][0]).rename(v1_root / "elsewhere2")
  archive = bigearthnet.open_archive(arguments(v1_root))
  assert list(entries(archive)) == [V1[2][1]]
  reasons = {skip.pair_id: skip.reason for skip in archive.skipped}
  assert V1[0][0] in reasons[V1[0][1]]
  assert "no S1 patch" in reasons[V1[1][1]]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"labels": "Pastures"}', '{"labels": [1]}'])
@pytest.mark.parametrize("sensor", [0, 1])
def test_v1_a_damaged_json_costs_its_pair_alone(v1_root, sensor: int, content: str) -> None:
  name = V1[1][:2][sensor]
  (path,) = v1_root.glob(f"*/{name}/{name}_labels_metadata.json")
  path.write_text(content)
  archive = bigearthnet.open_archive(arguments(v1_root))
  if sensor == 0:
    reasons = {skip.pair_id: skip.reason for skip in archive.skipped}
    assert str(path) in reasons[name] and V1[1][1] in reasons
  else:
    with pytest.raises(ArchiveError, match=path.name):
      archive.read(entries(archive)[V1[1][1]])
  for row in (V1[0], V1[2]):
    archive.read(entries(archive)[row[1]])


@pytest.mark.parametrize("name", ["S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48_VV", "B8A", "B01"])
@pytest.mark.parametrize("damage", ["cut", "text", "missing", "size"])
def test_v1_a_damaged_band_is_an_error_of_its_pair_alone(v1_root, name: str, damage: str) -> None:
  (path,) = v1_root.glob(f"*/*87_48/*{name}.tif")
  content = path.read_bytes()
  if damage == "missing":
    path.unlink()
  elif damage == "size":
    write_tif(path, np.ones((50, 50), np.float32 if "VV" in name else np.uint16), 24, 404_400)
  else:
    path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"no image")
  archive = bigearthnet.open_archive(arguments(v1_root))
  with pytest.raises(ImageError, match=path.name):
    archive.read(entries(archive)[V1[0][1]])
  archive.read(entries(archive)[V1[1][1]])


def test_v1_shifted_patches_are_refused_or_warped(v1_root) -> None:
  s1_name, s2_name, *_ = V1[0]
  for name in ("VH", "VV"):
    path = v1_root / "BigEarthNet-S1-v1.0" / s1_name / f"{s1_name}_{name}.tif"
    write_tif(path, polarisation(name, 0), 10, 404_390)
  archive = bigearthnet.open_archive(arguments(v1_root))
  with pytest.raises(ImageError, match="columns"):
    archive.read(entries(archive)[s2_name])
  warped = bigearthnet.open_archive(arguments(v1_root, misaligned="warp"))
  s2 = warped.read(entries(warped)[s2_name]).observations["s2"].values
  np.testing.assert_array_equal(s2[:, 1:, 1], band("B02", 0)[:, :-1])


def test_v1_knows_of_no_snow(v1_root) -> None:
  with pytest.raises(ArchiveError, match="needs v2"):
    bigearthnet.open_archive(arguments(v1_root, drop_snow_and_cloud=True))


# Version 2


def test_v2_values_labels_times_and_splits_come_back(v2_root) -> None:
  archive = bigearthnet.open_archive(arguments(v2_root))
  assert archive.name == "bigearthnet_v2" and not archive.skipped
  for number, (_, patch_id, _, labels, split, *_) in enumerate(V2):
    assert [e.pair_id for e in archive.splits[split]] == [patch_id]
    check_values(archive, patch_id, number)
    assert archive.read(entries(archive)[patch_id]).labels == tuple(labels)
  pair = archive.read(entries(archive)[V2[1][1]])
  assert pair.observations["s1"].acquired == "2017-09-25T04:32:56Z"
  assert pair.observations["s2"].acquired == "2017-09-24T09:30:20Z"


def test_v2_flagged_patches_are_dropped_when_asked(v2_root) -> None:
  archive = bigearthnet.open_archive(arguments(v2_root, drop_snow_and_cloud=True))
  assert sorted(entries(archive)) == sorted(row[1] for row in V2[:2])
  assert any("snow" in note for note in archive.notes)


def test_v2_a_subset_may_use_either_name(v2_root, tmp_path) -> None:
  path = tmp_path / "some.csv"
  path.write_text(f"{V2[0][2]}\n{V2[1][1]}\n")
  archive = bigearthnet.open_archive(arguments(v2_root, subset=[str(path)]))
  assert {split: [e.pair_id for e in each] for split, each in archive.splits.items()} == {
    "train": [V2[0][1]],
    "validation": [V2[1][1]],
  }
  chosen = bigearthnet.open_archive(arguments(v2_root, subset=[f"test={path}"]))
  assert len(chosen.splits["test"]) == 2 and not chosen.skipped


def test_v2_rows_that_name_no_patch_or_split_are_left_out(v2_root) -> None:
  rows = [
    V2[0],
    (V2[1][0], "../../../secret", *V2[1][2:]),
    (*V2[1][:4], "holdout", False, False),
  ]
  pq.write_table(metadata(rows), v2_root / "metadata.parquet")
  archive = bigearthnet.open_archive(arguments(v2_root))
  assert sorted(entries(archive)) == sorted([V2[0][1], V2[2][1]])
  reasons = {skip.pair_id: skip.reason for skip in archive.skipped}
  assert "no names" in reasons["../../../secret"] and "'holdout'" in reasons[V2[1][1]]


def test_v2_a_missing_patch_is_an_error_of_its_pair_alone(v2_root) -> None:
  (folder,) = v2_root.glob(f"BigEarthNet-S1/*/{V2[0][0]}")
  folder.rename(v2_root / "elsewhere")
  archive = bigearthnet.open_archive(arguments(v2_root))
  with pytest.raises(ImageError, match="no such file"):
    archive.read(entries(archive)[V2[0][1]])
  archive.read(entries(archive)[V2[1][1]])


def test_v2_metadata_that_cannot_be_used_is_refused(v2_root) -> None:
  with pytest.raises(ArchiveError, match="--labels 43 needs v1"):
    bigearthnet.open_archive(arguments(v2_root, labels="43"))
  path = v2_root / "metadata.parquet"
  whole = path.read_bytes()
  for content in (b"", b"PAR1", whole[:-50], whole[:40] + b"\0" * 200 + whole[240:]):
    path.write_bytes(content)
    with pytest.raises(TableError, match=r"metadata\.parquet"):
      bigearthnet.open_archive(arguments(v2_root))
  pq.write_table(metadata(V2).drop_columns(["split"]), path)
  with pytest.raises(TableError, match="expected at least patch_id, labels, split, s1_name"):
    bigearthnet.open_archive(arguments(v2_root))
  path.write_bytes(whole)
  (v2_root / "BigEarthNet-S1").rename(v2_root / "S1")
  with pytest.raises(ArchiveError, match="no folder BigEarthNet-S1"):
    bigearthnet.open_archive(arguments(v2_root))


# Both


@pytest.mark.parametrize(
  "names", [[], ["a/b/c.tif"], ["readme.txt"], ["x/p/p_labels_metadata.json"]]
)
def test_a_foreign_folder_is_refused_with_what_was_looked_for(tmp_path, names: list[str]) -> None:
  for name in names:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text('{"labels": []}')
  with pytest.raises(ArchiveError, match=r"_labels_metadata\.json.*metadata\.parquet"):
    bigearthnet.open_archive(arguments(tmp_path))
  with pytest.raises(ArchiveError, match="nowhere: cannot be listed"):
    bigearthnet.open_archive(arguments(tmp_path / "nowhere"))


def test_imports_of_both_versions_can_be_planned(v1_root, v2_root) -> None:
  for root in (v1_root, v2_root):
    plan = plan_import(bigearthnet.open_archive(arguments(root)), 10**6, "bytes")
    assert plan.pairs == 3 and not plan.unreadable and not plan.warnings
    assert plan.format.shapes == {"s1": (120, 120), "s2": (120, 120)}


class TestRealPairs:
  pytestmark = shared

  def test_equal_what_rasterio_reads(self) -> None:
    archive = bigearthnet.open_archive(arguments(REAL))
    listed = entries(archive)
    assert len(listed) == 6 and not archive.skipped
    for patch, entry in listed.items():
      pair = archive.read(entry)
      folder = REAL / "BigEarthNet-S2-Example" / patch
      for index, name in enumerate(PRODUCT_ORDER):
        with rasterio.open(folder / f"{patch}_{name}.tif") as file:
          fine = np.kron(file.read(1), np.ones((120 // file.height,) * 2, np.uint16))
          assert pair.crs == str(file.crs)
          assert pair.transform[2::3] == (file.transform.c, file.transform.f)
        np.testing.assert_array_equal(pair.observations["s2"].values[..., index], fine)
      described = json.loads((folder / f"{patch}_labels_metadata.json").read_text())
      assert pair.labels == tuple(described["labels"])
      assert pair.observations["s2"].acquired[:10] == described["acquisition_date"][:10]
      (vv,) = REAL.glob(f"BigEarthNet-S1-Example/*_{patch.split('_', 3)[3]}/*_VV.tif")
      for index, path in enumerate((vv, vv.with_name(vv.name.replace("_VV", "_VH")))):
        with rasterio.open(path) as file:
          np.testing.assert_array_equal(pair.observations["s1"].values[..., index], file.read(1))

  def test_lie_where_their_countries_are(self) -> None:
    archive = bigearthnet.open_archive(arguments(REAL))
    pair = archive.read(entries(archive)["S2A_MSIL2A_20170613T101031_87_48"])
    assert (pair.longitude, pair.latitude) == pytest.approx(AUSTRIA, abs=0.002)
    assert pair.observations["s1"].acquired == "2017-06-13T16:50:43Z"
    assert pair.observations["s2"].acquired == "2017-06-13T10:10:31Z"
    assert bigearthnet_labels.to_19("", pair.labels)[0] == "Arable land"

  def test_are_in_the_units_that_the_sensors_claim(self) -> None:
    plan = plan_import(bigearthnet.open_archive(arguments(REAL)), 10**7, "bytes")
    assert plan.pairs == 6 and not plan.warnings and not plan.unreadable

  def test_a_damaged_file_is_reported_as_ours(self) -> None:
    archive = bigearthnet.open_archive(arguments(REAL))
    entry = next(iter(entries(archive).values()))
    wrong = Entry(entry.pair_id, ("nowhere/S1_IW_x_y_z", *entry.source[1:]))
    with pytest.raises(DataError):
      archive.read(wrong)
