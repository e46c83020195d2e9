"""What a data set says of itself is what was written, or is refused."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.description import (
  FEATURES_FILE,
  INFO_FILE,
  SENSORS_FILE,
  describe,
)
from xjepa_jax.errors import DatasetError, XJepaError


@pytest.fixture
def copy(small_dataset: str, tmp_path: Path) -> Path:
  return Path(shutil.copytree(small_dataset, tmp_path / "copy"))


def change(path: Path, edit: Any) -> None:
  content = json.loads(path.read_text())
  edit(content)
  path.write_text(json.dumps(content))


def test_a_scaling_that_changed_by_one_digit_is_refused(copy: Path) -> None:
  def edit(content: dict[str, Any]) -> None:
    content["sensors"]["s2"]["description"]["scaling"]["mean"][3] += 1e-6

  change(copy / SENSORS_FILE, edit)
  with pytest.raises(DatasetError, match=f"{SENSORS_FILE}: its content does not match"):
    describe(str(copy))


def test_any_changed_byte_is_refused_or_changes_nothing(copy: Path) -> None:
  path = copy / SENSORS_FILE
  intact, expected = path.read_bytes(), describe(str(copy))
  draw = random.Random(0)
  refused = 0
  for _ in range(300):
    damaged = bytearray(intact)
    damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    path.write_bytes(damaged)
    try:
      assert repr(describe(str(copy))) == repr(expected)  # a space, or a digit of another file's
    except XJepaError as error:
      refused += 1
      assert str(path) in str(error)
  assert refused > 100


def test_the_layout_of_the_json_does_not_matter(copy: Path) -> None:
  expected = describe(str(copy))
  change(copy / SENSORS_FILE, lambda content: None)  # written without line ends
  assert repr(describe(str(copy))) == repr(expected)


def test_without_its_checksum_a_description_may_be_changed_on_purpose(copy: Path) -> None:
  def edit(content: dict[str, Any]) -> None:
    content["sensors"]["s2"]["description"]["scaling"]["normalise"] = "percentile"
    del content["crc32c"]

  change(copy / SENSORS_FILE, edit)
  assert describe(str(copy)).format.sensors["s2"].scaling.normalise == "percentile"


def test_a_damaged_name_of_the_checksum_is_no_missing_checksum(copy: Path) -> None:
  path = copy / SENSORS_FILE
  path.write_text(path.read_text().replace('"crc32c"', '"crc32b"'))
  with pytest.raises(DatasetError, match="unknown key 'crc32b'"):
    describe(str(copy))


@pytest.mark.parametrize("name", [FEATURES_FILE, INFO_FILE])
def test_the_files_that_other_tools_read_are_checked_too(copy: Path, name: str) -> None:
  path = copy / name
  path.write_text(re.sub("numBytes|uint16", lambda found: found[0].upper(), path.read_text()))
  with pytest.raises(DatasetError, match=f"{path}: its content does not match its checksum"):
    describe(str(copy))


def test_a_data_set_from_before_there_were_checksums_is_read(copy: Path) -> None:
  expected = describe(str(copy))

  def edit(content: dict[str, Any]) -> None:
    del content["crc32c"], content["files"]

  change(copy / SENSORS_FILE, edit)
  assert repr(describe(str(copy))) == repr(expected)
  with PairDataset(str(copy), "train") as pairs:
    assert pairs[0].pair_id


def test_tfds_opens_a_directory_that_has_checksums(copy: Path) -> None:
  tfds = pytest.importorskip("tensorflow_datasets")
  info = tfds.builder_from_directory(str(copy)).info
  splits = {name: split.num_examples for name, split in info.splits.items()}
  assert splits == {name: sum(lengths) for name, lengths in describe(str(copy)).splits.items()}
