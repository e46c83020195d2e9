"""Images whose values contradict their sensor are named with what to give, and every way works."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.importers.test_skipped import archive, command, optical, radar
from tests.data.importers.test_what_files_say import (
  IMPORTERS,
  SIZE,
  image,
  images,
  ran,
  stored,
  write,
)
from xjepa_jax.data.description import describe
from xjepa_jax.data.inspect import main as inspect
from xjepa_jax.sensor_presets import preset
from xjepa_jax.sensors import sensor_to_json


def linear(number: int) -> np.ndarray:
  return (10 ** (radar(number) / 10)).astype(np.float32)


@pytest.mark.parametrize("importer", IMPORTERS)
def test_odd_images_are_named_and_counted_and_left_out_only_when_asked(
  importer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 10)
  for number in (3, 7):
    write(image(tmp_path, "s1", number), linear(number))
  status, out, err = ran(capsys, *command(importer, tmp_path, "--dry-run"))
  assert status == 1 and "the values of 2 pairs contradict their sensors" in err
  assert "p03: sensor 's1': values run from" in err and "p07" in err and "linear power" in err
  assert "2 of 10 pairs skipped" in out and not (tmp_path / "out").exists()
  (remedy,) = set(re.findall(r"--skip-odd", err))
  status, out, err = ran(capsys, *command(importer, tmp_path, remedy))
  assert status == 0, err
  assert "Wrote 8 pairs" in out
  assert describe(str(tmp_path / "out")).statistics["s1"]["bands"]["VV"]["max"] < 0
  assert "p03" in (tmp_path / "out" / "skipped.csv").read_text()


def test_odd_images_beyond_the_sample_stop_the_import_at_its_end(
  tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr("xjepa_jax.data.import_plan._SAMPLE", 2)
  monkeypatch.setattr("xjepa_jax.data.import_plan._JUDGED", 0)
  archive(tmp_path, [SIZE] * 10)
  write(image(tmp_path, "s1", 7), linear(7))
  status, _, err = ran(capsys, *command("manifest", tmp_path))
  assert status == 1 and "p07" in err and "finish with --resume --skip-odd" in err
  status, out, err = ran(capsys, *command("manifest", tmp_path, "--resume", "--skip-odd"))
  assert status == 0, err
  assert "Wrote 9 pairs" in out


@pytest.mark.parametrize(
  ("key", "marker", "where"),
  [("s1", 0, np.s_[:, :5]), ("s2", 65535, np.s_[:5]), ("s1", -9999, np.s_[:1, :1])],
)
def test_fill_that_nothing_declares_is_named_with_what_to_give(
  key: str, marker: float, where: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 10)
  expected = np.full((SIZE, SIZE), True)
  expected[where] = False
  for number in range(3):
    values = images(key, number)
    values[where] = marker
    write(image(tmp_path, key, number), values)
  status, out, err = ran(capsys, *command("manifest", tmp_path))
  assert status == 1
  remedy = re.findall(rf"--nodata {key}=-?\d+", out + err)[0]
  assert remedy == f"--nodata {key}={marker}"
  status, _, err = ran(capsys, *command("manifest", tmp_path, *remedy.split()))
  assert status == 0, err
  sensor = describe(str(tmp_path / "out")).format.sensors[key]
  np.testing.assert_array_equal(sensor.valid(stored(tmp_path, key)), expected)
  assert inspect([str(tmp_path / "out"), "--verify"]) == 0


def test_inspect_names_what_was_imported_on_trust(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 4)
  write(image(tmp_path, "s1", 2), linear(2))
  status, _, err = ran(capsys, *command("manifest", tmp_path, "--trust-units"))
  assert status == 0, err
  assert inspect([str(tmp_path / "out"), "--verify"]) == 1
  said = capsys.readouterr()
  assert "the values of 1 of" in said.out + said.err and "linear power" in said.out + said.err


def test_every_second_image_of_another_processing_is_found_before_anything_is_written(
  tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr("xjepa_jax.data.import_plan._SAMPLE", 4)
  monkeypatch.setattr("xjepa_jax.data.import_plan._JUDGED", 10)
  archive(tmp_path, [SIZE] * 32)
  for number in range(1, 32, 2):
    write(image(tmp_path, "s1", number), linear(number))
  status, _, err = ran(capsys, *command("manifest", tmp_path, "--dry-run"))
  assert status == 1 and "contradict their sensors" in err and "linear power" in err


def test_a_single_odd_image_in_the_sample_does_not_speak_for_all(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 10)
  levels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 2)).astype(np.float32)
  write(image(tmp_path, "s1", 0), levels)
  status, out, err = ran(capsys, *command("manifest", tmp_path))
  assert status == 1 and "the values of 1 pairs contradict" in err and "Warning" not in out
  status, _, err = ran(capsys, *command("manifest", tmp_path, "--skip-odd"))
  assert status == 0, err


# Every way that a message names, where odd images are met only while the import is written


@pytest.fixture
def late(
  tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> str:
  """The error of an import that met two odd images beyond its sample."""
  monkeypatch.setattr("xjepa_jax.data.import_plan._SAMPLE", 2)
  monkeypatch.setattr("xjepa_jax.data.import_plan._JUDGED", 0)
  archive(tmp_path, [SIZE] * 10)
  for number in (3, 7):
    write(image(tmp_path, "s1", number), linear(number))
  status, _, err = ran(capsys, *command("manifest", tmp_path))
  assert status == 1 and "p03" in err and "p07" in err
  return err


def test_odd_images_met_late_may_be_trusted(
  late: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  (remedy,) = re.findall(r"--resume --trust-units", late)
  status, out, err = ran(capsys, *command("manifest", tmp_path, *remedy.split()))
  assert status == 0, err
  assert "Wrote 10 pairs" in out
  np.testing.assert_array_equal(stored(tmp_path, "s1", 7), linear(7))


def test_odd_images_met_late_may_be_corrected_and_are_judged_again(
  late: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  assert "Correct them and continue with --resume;" in late
  write(image(tmp_path, "s1", 3), radar(3))
  status, _, err = ran(capsys, *command("manifest", tmp_path, "--resume"))
  assert status == 1 and "p03" not in err and "p07" in err
  write(image(tmp_path, "s1", 7), radar(7))
  status, out, err = ran(capsys, *command("manifest", tmp_path, "--resume"))
  assert status == 0, err
  assert "Wrote 10 pairs" in out
  np.testing.assert_array_equal(stored(tmp_path, "s1", 7), radar(7))


def test_what_was_written_on_trust_is_judged_when_the_import_is_continued_without(
  late: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
  def stopped(*args: Any) -> None:
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr("xjepa_jax.data.writer._finish", stopped)
    ran(capsys, *command("manifest", tmp_path, "--resume", "--trust-units"))
  status, _, err = ran(capsys, *command("manifest", tmp_path, "--resume"))
  assert status == 1 and "p03" in err and "p07" in err


def test_another_nodata_value_starts_again_as_the_message_says(
  late: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  (unfinished,) = re.findall(r"delete (\S+) then", late)
  shutil.rmtree(unfinished)
  options = ("--nodata", "s1=-9999", "--skip-odd")
  status, out, err = ran(capsys, *command("manifest", tmp_path, *options))
  assert status == 0, err
  assert "Wrote 8 pairs" in out


# Sentinel-2 with and without the +1000 of processing baseline 04.00


def later(arguments: list[str]) -> list[str]:
  """The same command for the product that has the +1000."""
  return [re.sub("=sentinel2_l2a$", "=sentinel2_l2a_n0400", each) for each in arguments]


def with_offset(folder: Path, numbers: Sequence[int]) -> None:
  for number in numbers:
    write(image(folder, "s2", number), optical(number) + np.uint16(1000))


def test_single_images_without_the_offset_of_the_named_product_are_odd(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 10)
  with_offset(tmp_path, [number for number in range(10) if number != 3])
  given = later(command("manifest", tmp_path))
  status, _, err = ran(capsys, *given)
  assert status == 1 and "the values of 1 pairs contradict" in err and "p03" in err
  assert "does not carry the +1000" in err
  status, out, err = ran(capsys, *given, "--skip-odd")
  assert status == 0, err
  assert "Wrote 9 pairs" in out


def test_an_archive_of_which_most_lack_the_offset_is_the_other_product(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 10)
  with_offset(tmp_path, [3])
  status, out, err = ran(capsys, *later(command("manifest", tmp_path)))
  assert status == 1 and "Name the product without it, such as sentinel2_l2a" in out


def test_most_images_with_the_offset_are_refused_though_a_few_lack_it(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 10)
  with_offset(tmp_path, [number for number in range(10) if number != 3])
  for options in (("--dry-run",), ()):
    status, out, _ = ran(capsys, *command("manifest", tmp_path, *options))
    assert status == 1 and "9 of 10 images: " in out and "seem to carry the +1000" in out
  status, out, err = ran(capsys, *command("manifest", tmp_path, "--trust-offset"))
  assert status == 0, err
  assert "nothing in 9 of 10 images is darker than about 1000" in out


@pytest.mark.parametrize("having", [(3,), (1, 3, 5, 7, 9)])
def test_a_mixture_that_values_cannot_decide_is_a_note_in_import_and_inspect(
  having: tuple[int, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 10)
  with_offset(tmp_path, having)
  expected = f"in {len(having)} of 10 images is darker than about 1000"
  for options in (("--dry-run",), ()):
    status, out, err = ran(capsys, *command("manifest", tmp_path, *options))
    assert status == 0, err
    assert expected in out.replace("nothing ", "") and f"p{having[0]:02d}" in out
  assert inspect([str(tmp_path / "out")]) == 0
  assert expected in capsys.readouterr().out.replace("nothing ", "")


def bright(number: int, lowest: int) -> np.ndarray:
  return np.random.default_rng(number).integers(lowest, 6000, (SIZE, SIZE, 12)).astype(np.uint16)


def test_bright_ground_alone_passes_by_an_option_that_leaves_other_checks_on(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 10)
  for number in range(10):
    write(image(tmp_path, "s2", number), bright(number, 1050))
  status, out, err = ran(capsys, *command("manifest", tmp_path))
  assert status == 1 and "seem to carry the +1000" in out
  (remedy,) = re.findall(r"--trust-offset", out)
  write(image(tmp_path, "s1", 3), linear(3))
  status, _, err = ran(capsys, *command("manifest", tmp_path, remedy))
  assert status == 1 and "linear power" in err
  status, _, err = ran(capsys, *command("manifest", tmp_path, remedy, "--skip-odd"))
  assert status == 0, err


def test_brighter_ground_clouds_and_snow_are_a_note(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 10)
  for number in range(10):
    write(image(tmp_path, "s2", number), bright(number, 1600))
  status, out, err = ran(capsys, *command("manifest", tmp_path))
  assert status == 0, err
  assert "Note: sensor 's2'" in out and "bright ground, snow or cloud" in out


# Scales that are mixed


@pytest.mark.parametrize(
  ("key", "scaled"),
  [
    ("s2", lambda x: (x // 16).astype(np.uint16)),
    ("s2", lambda x: (x // 100).astype(np.uint16)),
    ("s1", lambda x: (x * 100).astype(np.float32)),
    ("s1", lambda x: (x / 100).astype(np.float32)),
  ],
  ids=["levels of 8 bits", "percent", "dB x 100", "dB / 100"],
)
@pytest.mark.parametrize("numbers", [(3,), (1, 3, 5, 7, 9)])
def test_images_on_another_scale_than_their_archive_are_odd(
  key: str,
  scaled: Callable[[np.ndarray], np.ndarray],
  numbers: tuple[int, ...],
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
) -> None:
  archive(tmp_path, [SIZE] * 10)
  for number in numbers:
    write(image(tmp_path, key, number), scaled(images(key, number)))
  status, _, err = ran(capsys, *command("manifest", tmp_path))
  assert status == 1 and f"the values of {len(numbers)} pairs contradict" in err
  status, out, err = ran(capsys, *command("manifest", tmp_path, "--skip-odd"))
  assert status == 0, err
  assert f"Wrote {10 - len(numbers)} pairs" in out


# Fill


@pytest.mark.parametrize(
  ("key", "dtype", "marker"),
  [
    ("s1", "float32", -50),
    ("s1", "float32", -60),
    ("s2", "int16", -1),
    ("s2", "int16", -999),
    ("s2", "int16", -1000),
    ("s2", "int16", 12000),
  ],
)
def test_one_value_that_stands_apart_is_fill_whatever_it_is(
  key: str, dtype: str, marker: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 4)
  for number in range(4):
    values = images(key, number).astype(dtype)
    values[:, :5] = marker
    write(image(tmp_path, key, number), values)
  status, out, err = ran(capsys, *command("manifest", tmp_path))
  assert status == 1
  (remedy,) = set(re.findall(rf"--nodata {key}=-?\d+", out + err))
  status, _, err = ran(capsys, *command("manifest", tmp_path, *remedy.split()))
  assert status == 0, err
  sensor = describe(str(tmp_path / "out")).format.sensors[key]
  assert sensor.nodata == marker
  assert sensor.valid(stored(tmp_path, key)).mean() == pytest.approx(1 - 5 / SIZE)


def test_fill_of_one_polarisation_is_named_with_its_band_and_a_way_that_works(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 4)

  def fill(number: int, marker: float) -> None:
    values = radar(number)
    values[:, :5, 1] = marker
    write(image(tmp_path, "s1", number), values)

  for number in range(4):
    fill(number, 0)
  status, out, err = ran(capsys, *command("manifest", tmp_path))
  assert status == 1 and "in VH alone, hold 0" in out
  (told,) = set(re.findall(r"write (\w+) in its place", out))
  (remedy,) = set(re.findall(r"--nodata s1=\w+", out))
  for number in range(4):
    fill(number, float(told))
  status, _, err = ran(capsys, *command("manifest", tmp_path, *remedy.split()))
  assert status == 0, err
  bands = describe(str(tmp_path / "out")).statistics["s1"]["bands"]
  assert bands["VH"]["max"] < -5


def test_markers_count_in_units_that_no_check_knows_which_is_noted(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 4)
  warm = {"product": "LST", "units": "K", "dtype": "float32", "bands": [{"name": "a", "gsd": 10}]}
  (tmp_path / "sensors.json").write_text(json.dumps({"s2": warm}))
  given = command("manifest", tmp_path)
  at = given.index("s2=sentinel2_l2a")
  given = [*given[: at - 1], *given[at + 1 :], "--sensors", str(tmp_path / "sensors.json")]
  for number in range(4):
    kelvin = np.random.default_rng(number).normal(290, 5, (SIZE, SIZE, 1)).astype(np.float32)
    kelvin[:2] = -9999
    write(image(tmp_path, "s2", number), kelvin)
  status, out, _ = ran(capsys, *given)
  assert status == 1
  (remedy,) = set(re.findall(r"--nodata s2=-9999", out))
  status, out, err = ran(capsys, *given, *remedy.split())
  assert status == 0, err
  assert "no check knows the units 'K'" in out


@pytest.mark.parametrize("spelled", ["db", "decibel", "dB ", "DECIBELS"])
def test_units_are_checked_however_they_are_spelled(
  spelled: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [SIZE] * 2)
  described = sensor_to_json(preset("sentinel1_grd")) | {"units": spelled}
  (tmp_path / "sensors.json").write_text(json.dumps({"s1": described}))
  given = command("manifest", tmp_path)
  at = given.index("s1=sentinel1_grd")
  given = [*given[: at - 1], *given[at + 1 :], "--sensors", str(tmp_path / "sensors.json")]
  for number in range(2):
    write(image(tmp_path, "s1", number), linear(number))
  status, out, _ = ran(capsys, *given)
  assert status == 1 and "linear power" in out
