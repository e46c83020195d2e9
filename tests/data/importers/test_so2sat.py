"""Tests of the So2Sat LCZ42 importer, on files of the published names, types and shapes."""

from __future__ import annotations

import argparse
import pathlib
import pickle
import sys

import h5py
import numpy as np
import pytest

from xjepa_jax.data.import_plan import plan_import
from xjepa_jax.data.importers import so2sat
from xjepa_jax.errors import ArchiveError, DataError, ImageError

COUNT = 20  # patches a file
FILES = ("training.h5", "validation.h5", "testing.h5")


def arguments(src: object) -> argparse.Namespace:
  return argparse.Namespace(src=str(src), misaligned="refuse", resample="nearest", seed=0)


def patches(bands: int, sign: float) -> np.ndarray:
  """(COUNT, 32, 32, bands) float64: patch, row, column and band each have a digit of their own."""
  n, r, c, b = np.ogrid[:COUNT, :32, :32, :bands]
  return sign * (n / 100 + b / 1e4 + r / 1e6 + c / 1e8)


def zone(row: int) -> int:
  return (7 * row + 3) % 17


def write_file(path: pathlib.Path, labels: bool = True) -> None:
  with h5py.File(path, "w") as file:
    file["sen1"] = patches(8, -1)
    file["sen2"] = patches(10, 1)
    if labels:
      file["label"] = np.eye(17)[[zone(row) for row in range(COUNT)]]


@pytest.fixture()
def archive_root(tmp_path: pathlib.Path) -> pathlib.Path:
  for name in FILES:
    write_file(tmp_path / name, labels=name != "testing.h5")
  return tmp_path


def test_splits_are_those_of_the_files(archive_root) -> None:
  archive = so2sat.open_archive(arguments(archive_root))
  assert {split: len(entries) for split, entries in archive.splits.items()} == {
    "train": COUNT,
    "validation": COUNT,
    "test": COUNT,
  }
  assert archive.splits["train"][3].pair_id == "train_000003"
  assert any("testing.h5 has no labels" in note for note in archive.notes)


def test_every_value_is_that_of_the_file_as_float32(archive_root) -> None:
  archive = so2sat.open_archive(arguments(archive_root))
  read = pickle.loads(pickle.dumps(archive.read))
  pair = read(archive.splits["validation"][13])
  for key, expected in (("s1", patches(8, -1)), ("s2", patches(10, 1))):
    values = pair.observations[key].values
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, expected[13].astype(np.float32))
  assert pair.observations["s1"].values[4, 9, 2] == np.float32(-(0.13 + 2e-4 + 4e-6 + 9e-8))


def test_bands_are_named_in_the_published_order() -> None:
  # "VH real, VH imag, VV real, VV imag, Lee VH, Lee VV, covariance real, imag" and
  # "B2, B3, B4, B5, B6, B7, B8, B8a, B11, B12" in the README of So2Sat LCZ42.
  assert so2sat.SEN1.band_names[:6] == (
    "VH_real",
    "VH_imag",
    "VV_real",
    "VV_imag",
    "VH_lee",
    "VV_lee",
  )
  assert so2sat.SEN2.band_names[6:] == ("B08", "B8A", "B11", "B12")
  assert so2sat.SEN2.bands[7].wavelength == 865
  assert so2sat.SEN2.scaling.mean == ()


def test_labels_are_the_names_of_the_zones(archive_root) -> None:
  archive = so2sat.open_archive(arguments(archive_root))
  assert len(so2sat.ZONES) == len(set(so2sat.ZONES)) == 17
  assert archive.read(archive.splits["train"][0]).labels == ("Open high-rise",)  # LCZ 4
  assert archive.read(archive.splits["train"][14]).labels == ("Water",)  # LCZ G
  assert archive.read(archive.splits["test"][2]).labels == ()


def test_an_import_can_be_planned(archive_root) -> None:
  plan = plan_import(so2sat.open_archive(arguments(archive_root)), 10**6, "bytes")
  assert plan.pairs == 3 * COUNT and not plan.unreadable and not plan.warnings


def test_a_label_that_is_not_one_hot_is_an_error_of_that_pair(archive_root) -> None:
  with h5py.File(archive_root / "training.h5", "r+") as file:
    file["label"][4] = 0
    file["label"][5, :2] = 1
  archive = so2sat.open_archive(arguments(archive_root))
  for row in (4, 5):
    with pytest.raises(ImageError, match=f"label {row} is"):
      archive.read(archive.splits["train"][row])
  archive.read(archive.splits["train"][6])


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_damaged_file_is_left_out_and_the_others_are_imported(archive_root, damage: str) -> None:
  path = archive_root / "validation.h5"
  content = path.read_bytes()
  new = {"cut": content[: len(content) // 2], "text": b"no HDF5" * 99, "empty": b""}[damage]
  path.write_bytes(new)
  archive = so2sat.open_archive(arguments(archive_root))
  assert set(archive.splits) == {"train", "test"}
  (skip,) = archive.skipped
  assert str(path) in skip.reason and "damaged" in skip.reason


def test_a_damaged_chunk_is_an_error_of_its_pairs_alone(tmp_path) -> None:
  path = tmp_path / "training.h5"
  with h5py.File(path, "w") as file:
    values = patches(8, -1)
    file.create_dataset("sen1", data=values, chunks=(1, 32, 32, 8), fletcher32=True)
    file["sen2"] = patches(10, 1)
    place = file["sen1"].id.get_chunk_info_by_coord((5, 0, 0, 0)).byte_offset
  content = bytearray(path.read_bytes())
  content[place + 100] ^= 1
  path.write_bytes(content)
  archive = so2sat.open_archive(arguments(tmp_path))
  failed = []
  for entry in archive.splits["train"]:
    try:
      archive.read(entry)
    except DataError as error:
      failed.append((entry.pair_id, str(path) in str(error)))
  assert failed == [("train_000005", True)]


def replace(path: pathlib.Path, name: str, content: object) -> None:
  with h5py.File(path, "r+") as file:
    del file[name]
    if content is not None:
      file[name] = content


@pytest.mark.parametrize(
  ("name", "content", "expected"),
  [
    ("sen1", None, "no data set 'sen1'"),
    ("sen2", np.zeros((COUNT, 32, 32, 13)), r"'sen2' is \(20, 32, 32, 13\)"),
    ("sen2", np.zeros((COUNT - 1, 32, 32, 10)), r"'sen2' is \(19, 32, 32, 10\)"),
    ("sen1", np.zeros((COUNT, 32, 32, 8), "i2"), "int16"),
    ("sen1", 1.0, r"'sen1' is \(\)"),
    ("label", np.zeros((COUNT, 10)), r"'label' is \(20, 10\)"),
    ("sen2", h5py.ExternalLink("testing.h5", "sen2"), "values of its own"),
    ("sen2", h5py.SoftLink("/sen1"), "values of its own"),
  ],
)
def test_a_file_of_another_kind_is_left_out_with_the_reason(
  archive_root, name: str, content: object, expected: str
) -> None:
  path = archive_root / "training.h5"
  replace(path, name, content)
  archive = so2sat.open_archive(arguments(archive_root))
  assert "train" not in archive.splits and "test" in archive.splits
  with pytest.raises(AssertionError, match=expected):
    raise AssertionError(archive.skipped[0].reason)


def test_a_file_that_declares_a_billion_patches_is_not_listed(tmp_path) -> None:
  with h5py.File(tmp_path / "training.h5", "w") as file:
    for name, bands in (("sen1", 8), ("sen2", 10)):
      file.create_dataset(name, (10**9, 32, 32, bands), "f8", chunks=(1, 32, 32, bands))
  archive = so2sat.open_archive(arguments(tmp_path))
  assert not archive.splits and "1000000000" in archive.skipped[0].reason


def test_a_foreign_folder_is_refused_with_what_was_looked_for(tmp_path) -> None:
  with pytest.raises(ArchiveError, match=r"training\.h5, validation\.h5, testing\.h5"):
    so2sat.open_archive(arguments(tmp_path))
  (tmp_path / "training.h5.gz").write_bytes(b"")
  with pytest.raises(ArchiveError, match="gunzip"):
    so2sat.open_archive(arguments(tmp_path))


def test_a_missing_package_is_named_with_what_to_install(archive_root, monkeypatch) -> None:
  monkeypatch.setitem(sys.modules, "h5py", None)
  with pytest.raises(ArchiveError, match=r"pip install xjepa_jax\[geo\]"):
    so2sat.open_archive(arguments(archive_root))
