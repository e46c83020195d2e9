"""Tests of the SSL4EO-S12 v1.1 importer, on zips as the published README shows them."""

from __future__ import annotations

import argparse
import pathlib
import pickle
import sys
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
import zarr

from xjepa_jax.data.import_plan import plan_import
from xjepa_jax.data.importers import ssl4eo_s12
from xjepa_jax.errors import ArchiveError, ImageError

SIZE = 24  # the published 264 makes no difference to the reader
S2 = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
IDS = ["0080717", "0060573"]
TIMES = np.array(
  [[f"2020-{3 * d + 1:02d}-16T02:30:0{i}" for d in range(4)] for i in range(2)], "M8[s]"
)


def arguments(src: object, **changes: object) -> argparse.Namespace:
  parser = argparse.ArgumentParser()
  ssl4eo_s12.add_arguments(parser)
  args = parser.parse_args([])
  shared = {"src": str(src), "misaligned": "refuse", "resample": "nearest", "seed": 0}
  for key, value in {**shared, **changes}.items():
    setattr(args, key, value)
  return args


def optical(sample: int, date: int, band: str, row: int, column: int) -> int:
  """Every band, sample, date, row and column has a share of its own in a value."""
  return 1000 + 1000 * S2.index(band) + 500 * sample + 100 * date + 2 * row + column % 2


def radar(sample: int, date: int, band: str, row: int, column: int) -> float:
  return {"vv": -10.0, "vh": -20.0}[band] + sample + date / 4 - row / 64 - column / 4096


def write_zip(
  path: pathlib.Path, bands: list[str], values: np.ndarray, ids: list[str], shift: float = 0.0
) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  store = zarr.storage.ZipStore(str(path), mode="w")
  group = zarr.open_group(store, mode="w", zarr_format=2)

  def add(name: str, content: np.ndarray, chunks: tuple[int, ...], **attributes: str) -> None:
    array = group.create_array(
      name, shape=content.shape, chunks=chunks, dtype=content.dtype, attributes={**attributes}
    )
    array[...] = content

  size = values.shape[-1]
  add("bands", values, (1, 1, *values.shape[2:]))
  add("band", np.array(bands), (len(bands),))
  names = np.array([[f"{name}_{date}" for date in range(4)] for name in ids])
  add("sample_id", names, names.shape)
  add("crs", np.array([32651, 32751]), (2,))
  add("center_lat", np.array([42.66, -30.64]), (2,))
  add("center_lon", np.array([125.6, 121.4]), (2,))
  seconds = (TIMES - np.datetime64("2020-01-01T00:00:00")).astype(np.int64)
  add("time_", seconds, (2, 4), units="seconds since 2020-01-01 00:00:00")
  start = np.array([[714_900.0], [228_900.0]]) + shift
  add("x_", start + 5 + 10 * np.arange(size), (2, size))
  add("y_", np.array([[4_728_000.0], [3_319_000.0]]) - 5 - 10 * np.arange(size), (2, size))
  store.close()


def write_archive(root: pathlib.Path, part: str = "train", number: int = 1) -> None:
  def grid(function: Callable[..., float], bands: list[str], dtype: str) -> np.ndarray:
    shape = (2, 4, len(bands), SIZE, SIZE)
    cells = [function(i, d, bands[b], r, c) for i, d, b, r, c in np.ndindex(*shape)]
    return np.array(cells).reshape(shape).astype(dtype)

  name = f"ssl4eos12_{part}_seasonal_data_{number:06d}.zarr.zip"
  ids = IDS if part == "train" else ["0000173", "0000174"]
  # The bands lie in another order than the sensor's, so that only their names can sort them.
  write_zip(root / part / "S1GRD" / name, ["vh", "vv"], grid(radar, ["vh", "vv"], "f2"), ids)
  turned = S2[::-1]
  write_zip(root / part / "S2L2A" / name, turned, grid(optical, turned, "i2"), ids)


@pytest.fixture(scope="module")
def archive_root(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  root = tmp_path_factory.mktemp("ssl4eo")
  write_archive(root)
  write_archive(root, "val")
  return root


def test_each_date_of_each_place_is_a_pair_in_the_archives_split(archive_root) -> None:
  archive = ssl4eo_s12.open_archive(arguments(archive_root))
  assert [e.pair_id for e in archive.splits["train"]] == [
    f"{name}_{date}" for name in IDS for date in range(4)
  ]
  assert len(archive.splits["validation"]) == 8
  assert list(archive.sensors) == ["s1", "s2"]
  assert archive.sensors["s2"].scaling.offset == -1000
  assert not archive.skipped


def test_every_pixel_of_every_band_comes_back_under_its_own_name(archive_root) -> None:
  archive = ssl4eo_s12.open_archive(arguments(archive_root))
  read = pickle.loads(pickle.dumps(archive.read))
  entry = next(e for e in archive.splits["train"] if e.pair_id == "0060573_2")
  pair = read(entry)
  s1, s2 = pair.observations["s1"].values, pair.observations["s2"].values
  assert s1.dtype == np.float32 and s1.shape == (SIZE, SIZE, 2)
  assert s2.dtype == np.int16 and s2.shape == (SIZE, SIZE, 12)
  for row, column in ((0, 0), (3, 17), (SIZE - 1, 5)):
    for index, band in enumerate(archive.sensors["s2"].band_names):
      assert s2[row, column, index] == optical(1, 2, band, row, column), band
    for index, band in enumerate(archive.sensors["s1"].band_names):
      assert s1[row, column, index] == np.float16(radar(1, 2, band.lower(), row, column)), band


def test_place_grid_and_time_are_those_of_the_sample(archive_root) -> None:
  archive = ssl4eo_s12.open_archive(arguments(archive_root))
  pair = archive.read(archive.splits["train"][7])
  assert (pair.longitude, pair.latitude) == (121.4, -30.64)
  assert pair.crs == "EPSG:32751"
  assert pair.transform == (10.0, 0.0, 228_900.0, 0.0, -10.0, 3_319_000.0)
  assert pair.observations["s1"].acquired == "2020-10-16T02:30:01Z"


def test_only_the_chosen_dates_and_sensors_are_listed(archive_root) -> None:
  archive = ssl4eo_s12.open_archive(arguments(archive_root, dates="3,1", sensors="S2L2A"))
  assert [e.pair_id for e in archive.splits["train"]][:2] == ["0080717_3", "0080717_1"]
  assert list(archive.read(archive.splits["train"][0]).observations) == ["s2"]


def test_an_import_can_be_planned(archive_root) -> None:
  plan = plan_import(ssl4eo_s12.open_archive(arguments(archive_root)), 10**6, "bytes")
  assert plan.pairs == 16 and not plan.unreadable and not plan.warnings


def test_zips_that_hold_other_samples_are_left_out_with_the_first_difference(tmp_path) -> None:
  write_archive(tmp_path)
  write_archive(tmp_path, number=2)
  path = tmp_path / "train/S2L2A/ssl4eos12_train_seasonal_data_000002.zarr.zip"
  path.unlink()
  write_zip(path, S2, np.full((2, 4, 12, SIZE, SIZE), 1, "i2"), ["0080717", "0099999"])
  archive = ssl4eo_s12.open_archive(arguments(tmp_path))
  assert len(archive.splits["train"]) == 8
  (skip,) = archive.skipped
  assert "sample 1" in skip.reason and "0099999" in skip.reason and "0060573" in skip.reason


def test_a_zip_without_its_counterpart_is_left_out(tmp_path) -> None:
  write_archive(tmp_path)
  write_archive(tmp_path, "val")
  (tmp_path / "val/S1GRD/ssl4eos12_val_seasonal_data_000001.zarr.zip").unlink()
  archive = ssl4eo_s12.open_archive(arguments(tmp_path))
  assert "validation" not in archive.splits
  assert "val/S1GRD" in archive.skipped[0].reason.replace("\\", "/")


def test_a_cut_zip_is_left_out_with_its_name(tmp_path) -> None:
  write_archive(tmp_path)
  write_archive(tmp_path, number=2)
  path = tmp_path / "train/S1GRD/ssl4eos12_train_seasonal_data_000002.zarr.zip"
  path.write_bytes(path.read_bytes()[:-100])
  archive = ssl4eo_s12.open_archive(arguments(tmp_path))
  assert len(archive.splits["train"]) == 8
  assert str(path) in archive.skipped[0].reason and "damaged" in archive.skipped[0].reason


def test_a_flipped_byte_in_a_chunk_is_an_error_of_that_pair_alone(tmp_path) -> None:
  write_archive(tmp_path)
  path = tmp_path / "train/S2L2A/ssl4eos12_train_seasonal_data_000001.zarr.zip"
  with zipfile.ZipFile(path) as file:
    info = file.getinfo("bands/1.2.0.0.0")
  content = bytearray(path.read_bytes())
  content[info.header_offset + 30 + len(info.filename) + info.compress_size // 2] ^= 1
  path.write_bytes(content)
  archive = ssl4eo_s12.open_archive(arguments(tmp_path))
  damaged = {}
  for entry in archive.splits["train"]:
    try:
      archive.read(entry)
    except ImageError as error:
      damaged[entry.pair_id] = str(error)
  assert list(damaged) == ["0060573_2"]
  assert str(path) in damaged["0060573_2"] and "CRC" in damaged["0060573_2"]


def rewrite(path: pathlib.Path, member: str, content: str | None) -> None:
  """The zip with one member replaced, or left out."""
  with zipfile.ZipFile(path) as file:
    members = {name: file.read(name) for name in file.namelist()}
  members.pop(member)
  if content is not None:
    members[member] = content.encode()
  with zipfile.ZipFile(path, "w") as file:
    for name, data in members.items():
      file.writestr(name, data)


@pytest.mark.parametrize(
  ("old", "new", "expected"),
  [
    ('"dtype": "<i2"', '"dtype": "|O"', "plain numbers"),
    ('"filters": null', '"filters": [{"id": "pickle"}]', "plain numbers"),
    ('"id": "blosc"', '"id": "pickle"', "plain numbers"),
    ('"shape": [', '"shape": [9999999999,', "too large"),
    ('"shape"', '"form"', "damaged"),
  ],
)
def test_a_description_that_asks_for_pickle_or_too_much_is_refused(
  tmp_path, old: str, new: str, expected: str
) -> None:
  write_archive(tmp_path)
  path = tmp_path / "train/S2L2A/ssl4eos12_train_seasonal_data_000001.zarr.zip"
  with zipfile.ZipFile(path) as file:
    description = file.read("bands/.zarray").decode()
  assert old in description
  rewrite(path, "bands/.zarray", description.replace(old, new))
  archive = ssl4eo_s12.open_archive(arguments(tmp_path))
  with pytest.raises(ImageError, match=expected):
    archive.read(archive.splits["train"][0])


@pytest.mark.parametrize("name", ["band", "crs", "time_", "center_lon"])
def test_a_missing_array_is_named(tmp_path, name: str) -> None:
  write_archive(tmp_path)
  path = tmp_path / "train/S1GRD/ssl4eos12_train_seasonal_data_000001.zarr.zip"
  rewrite(path, f"{name}/.zarray", None)
  archive = ssl4eo_s12.open_archive(arguments(tmp_path))
  with pytest.raises(ImageError, match=f"no array '{name}'"):
    archive.read(archive.splits["train"][0])


def test_sensors_a_pixel_apart_are_refused(tmp_path) -> None:
  write_archive(tmp_path)
  path = tmp_path / "train/S2L2A/ssl4eos12_train_seasonal_data_000001.zarr.zip"
  path.unlink()
  write_zip(path, S2, np.full((2, 4, 12, SIZE, SIZE), 1500, "i2"), IDS, shift=10.0)
  archive = ssl4eo_s12.open_archive(arguments(tmp_path))
  with pytest.raises(ImageError, match="1.00 columns"):
    archive.read(archive.splits["train"][0])


def test_a_foreign_folder_is_refused_with_what_was_looked_for(tmp_path) -> None:
  with pytest.raises(ArchiveError, match="seasonal_data_NNNNNN"):
    ssl4eo_s12.open_archive(arguments(tmp_path))
  with pytest.raises(ArchiveError, match="seasonal_data_NNNNNN"):
    ssl4eo_s12.open_archive(arguments(tmp_path / "nowhere"))
  (tmp_path / "val/S2L2A").mkdir(parents=True)
  (tmp_path / "val/S2L2A/ssl4eos12_shard_000001.tar").write_bytes(b"")
  with pytest.raises(ArchiveError, match="WebDataset release"):
    ssl4eo_s12.open_archive(arguments(tmp_path))


@pytest.mark.parametrize(
  "options", [{"sensors": "S1GRD,S3"}, {"sensors": ""}, {"dates": "0,4"}, {"dates": "1,1"}]
)
def test_unknown_sensors_and_dates_are_refused(archive_root, options: dict[str, str]) -> None:
  with pytest.raises(ArchiveError, match="expected some of"):
    ssl4eo_s12.open_archive(arguments(archive_root, **options))


def test_a_missing_package_is_named_with_what_to_install(archive_root, monkeypatch) -> None:
  monkeypatch.setitem(sys.modules, "zarr.storage", None)
  with pytest.raises(ArchiveError, match=r"pip install xjepa_jax\[geo\]"):
    ssl4eo_s12.open_archive(arguments(archive_root))
