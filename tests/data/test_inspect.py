"""What people see of a data set, and that what is wrong with it is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xjepa_jax.data import inspect
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.description import SENSORS_FILE
from xjepa_jax.data.pairs import Observation, Pair
from xjepa_jax.data.pictures import contact_sheet, picture
from xjepa_jax.sensor_presets import PRESETS

S1, S2 = PRESETS["sentinel1_grd"], PRESETS["sentinel2_l2a"]


@pytest.fixture
def copy(simulated: str, tmp_path: Path) -> Path:
  return Path(shutil.copytree(simulated, tmp_path / "copy"))


def test_a_data_set_is_summed_up_and_verified(
  simulated: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  sheet = tmp_path / "sheet.png"
  assert inspect.main([simulated, "--verify", "--sheet", str(sheet)]) == 0
  said = capsys.readouterr().out
  assert "train: 128 pairs" in said and "test: 16 pairs" in said
  assert "Every record is intact" in said
  labels = {label for number in range(128) for label in PairDataset(simulated)[number].labels}
  assert f"{len(labels)} labels" in said
  with Image.open(sheet) as image:
    assert image.format == "PNG" and len(image.convert("RGB").getcolors(1 << 24) or []) > 100


def test_every_damaged_record_is_named_not_only_the_first(
  copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  shards = sorted(path for path in copy.glob("*train*") if path.suffix != ".index")[:2]
  for shard in shards:
    content = bytearray(shard.read_bytes())
    content[100] ^= 4
    shard.write_bytes(content)
  assert inspect.main([str(copy), "--verify"]) == 1
  errors = capsys.readouterr().err
  for shard in shards:
    assert f"{shard}: record 0" in errors
  assert "the stored" not in errors, "the statistics of the other pairs are no complaint"


def test_stored_statistics_that_are_not_those_of_the_pairs_are_named(
  copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  content = json.loads((copy / SENSORS_FILE).read_text())
  content["statistics"]["s2"]["bands"]["B08"]["mean"] += 5
  del content["crc32c"]  # says that it was changed on purpose
  (copy / SENSORS_FILE).write_text(json.dumps(content))
  assert inspect.main([str(copy), "--verify"]) == 1
  assert "sensor 's2', band B08: the stored mean are not those" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("name", "damage", "complaint"),
  [
    ("dataset_info.json", None, "dataset_info.json is missing"),
    ("sensors.json", None, "sensors.json is missing"),
    ("sensors.json", "{", "sensors.json: not JSON"),
    ("sensors.json", "[]", "holds a list"),
    ("sensors.json", '{"format": "other"}', "format 'other'"),
    ("dataset_info.json", "{}", "KeyError 'splits'"),
    (
      "dataset_info.json",
      '{"name": "x", "splits": [{"name": "train", "shardLengths": ["x"]}]}',
      "ValueError invalid literal for int",
    ),
  ],
)
def test_a_description_that_is_not_whole_is_refused_by_file(
  copy: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str | None, complaint: str
) -> None:
  if damage is None:
    (copy / name).unlink()
  else:
    sensors = json.loads((copy / SENSORS_FILE).read_text())
    del sensors["files"], sensors["crc32c"]  # as in a data set from before there were checksums
    (copy / SENSORS_FILE).write_text(json.dumps(sensors))
    (copy / name).write_text(damage)
  assert inspect.main([str(copy)]) == 1
  assert complaint in capsys.readouterr().err


def test_a_directory_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
  assert inspect.main(["nowhere"]) == 1
  assert "nowhere is no data set" in capsys.readouterr().err


def test_a_picture_shows_true_colour_and_a_ratio_of_backscatter() -> None:
  values = np.ones((1, 2, 12), np.uint16)
  values[0, 0, S2.index(["B04"])[0]] = 2500
  values[0, 1, S2.index(["B02"])[0]] = 1250
  np.testing.assert_array_equal(picture(S2, values), [[[255, 0, 0], [0, 0, 128]]])
  decibels = np.array([[[-10.0, -17.0]]], np.float32)
  # VV -10 of -20..0; VH -17 of -27..-7; VV - VH = 7 of 2..14
  np.testing.assert_array_equal(picture(S1, decibels), [[[128, 128, round(255 * 5 / 12)]]])


def test_unseen_pixels_are_not_shown_as_dark_land() -> None:
  values = np.full((1, 1, 2), np.nan, np.float32)
  assert tuple(picture(S1, values)[0, 0]) == (64, 0, 64)


def test_a_sheet_leaves_the_place_of_a_lacking_sensor_empty() -> None:
  pair = Pair("p", {"s2": Observation(np.full((4, 4, 12), 900, np.uint16))})
  sheet = np.asarray(contact_sheet([pair], {"s1": S1, "s2": S2}, columns=1, height=32))
  assert (sheet[6:34, 6:34] == 255).all()
  assert (sheet[6:34, 42:70] < 255).all()
