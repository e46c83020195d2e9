"""What falls out of an import is named beforehand and at the end, and only a small share may."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio

from xjepa_jax.data.archive import Skip
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.description import describe
from xjepa_jax.data.importers import __main__ as importers
from xjepa_jax.data.importing.skipped import check_skipped, skipped_lines
from xjepa_jax.errors import ArchiveError

SENSORS = {
  "manifest": ("--sensor", "s1=sentinel1_grd", "--sensor", "s2=sentinel2_l2a"),
  "folders": ("--sensor", "s1=sentinel1_grd:s1", "--sensor", "s2=sentinel2_l2a:s2"),
}


def tif(path: Path, values: np.ndarray, nodata: float | None = None, east: float = 0) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  height, width, count = values.shape
  with rasterio.open(
    path, "w", driver="GTiff", height=height, width=width, count=count, dtype=values.dtype,
    crs="EPSG:32633", transform=rasterio.Affine(10, 0, 5e5 + east, 0, -10, 5e6), nodata=nodata,
  ) as file:  # fmt: skip
    file.write(np.moveaxis(values, -1, 0))


def radar(number: int, size: int = 16) -> np.ndarray:
  rng = np.random.default_rng(number)
  return (rng.normal(0, 2, (size, size, 2)) + [-11, -18]).astype(np.float32)


def optical(number: int, size: int = 16) -> np.ndarray:
  return np.random.default_rng(number).integers(200, 4000, (size, size, 12)).astype(np.uint16)


def archive(folder: Path, sizes: Sequence[int]) -> None:
  """Pairs p00, p01, ... of these sizes, in two folders and in a table, in this order."""
  lines = ["pair_id,s1,s2,split"]
  for number, size in enumerate(sizes):
    name = f"p{number:02d}"
    tif(folder / "s1" / f"{name}.tif", radar(number, size))
    tif(folder / "s2" / f"{name}.tif", optical(number, size))
    lines.append(f"{name},s1/{name}.tif,s2/{name}.tif,train")
  (folder / "pairs.csv").write_text("\n".join(lines) + "\n")


def command(importer: str, folder: Path, *options: str) -> list[str]:
  src = str(folder / "pairs.csv") if importer == "manifest" else str(folder)
  out = ["--out", str(folder / "out"), "--workers", "1"]
  return [importer, "--src", src, *out, *SENSORS[importer], *options]


def named_option(text: str) -> list[str]:
  """The options that an error tells to give."""
  (found,) = re.findall(r"((?:--resume )?--max-skipped [\d.]*\d)", text)
  return shlex.split(found)


@pytest.mark.parametrize("importer", ["manifest", "folders"])
def test_the_most_frequent_size_counts_and_not_the_first(
  importer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [24, *[16] * 9])
  assert importers.main(command(importer, tmp_path, "--dry-run")) == 1
  said = capsys.readouterr()
  assert "s1: Sentinel-1" in said.out and "16 x 16 float32" in said.out
  assert "1 of 10 pairs skipped" in said.out
  assert "p00: sensor 's1' has 24 x 24 pixels, most pairs have 16 x 16." in said.out
  assert "1 of 10 pairs (10.0%) fall out, more than 5.0%" in said.err
  assert not (tmp_path / "out").exists()
  remedy = named_option(said.err)
  assert remedy == ["--max-skipped", "0.1"]
  assert importers.main(command(importer, tmp_path, *remedy, "--dry-run")) == 0
  assert importers.main(command(importer, tmp_path, *remedy)) == 0
  said = capsys.readouterr()
  assert "Wrote 9 pairs" in said.out and said.out.rindex("1 of 10 pairs skipped") > said.out.index(
    "Wrote"
  )
  form = describe(str(tmp_path / "out")).format
  assert form.shapes == {"s1": (16, 16), "s2": (16, 16)}
  with PairDataset(str(tmp_path / "out"), None) as pairs:
    found = {pairs[i].pair_id: pairs[i] for i in range(len(pairs))}
  assert sorted(found) == [f"p{number:02d}" for number in range(1, 10)]
  np.testing.assert_array_equal(found["p04"].observations["s2"].values, optical(4))


@pytest.mark.parametrize("importer", ["manifest", "folders"])
def test_a_twentieth_may_fall_out_without_being_asked_for(
  importer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [24, *[16] * 19])
  assert importers.main(command(importer, tmp_path)) == 0
  assert "1 of 20 pairs skipped" in capsys.readouterr().out
  with open(tmp_path / "out" / "skipped.csv", newline="") as file:
    assert [row["pair_id"] for row in csv.DictReader(file)] == ["p00"]
  assert importers.main(command(importer, tmp_path, "--max-skipped", "1.5")) == 1
  assert "--max-skipped 1.5: expected a share from 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize("importer", ["manifest", "folders"])
@pytest.mark.parametrize("odd", ["dtype", "bands", "damaged"])
def test_the_first_file_decides_neither_type_nor_bands(
  importer: str, odd: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [16] * 20)
  first = tmp_path / "s2" / "p00.tif"
  if odd == "dtype":
    tif(first, optical(0).astype(np.int32))
  elif odd == "bands":
    tif(first, optical(0)[..., :4])
  else:
    first.write_bytes(first.read_bytes()[:20])
  assert importers.main(command(importer, tmp_path, "--dry-run")) == 0
  assert "1 of 20 pairs skipped\n  p00: " in capsys.readouterr().out
  assert importers.main(command(importer, tmp_path)) == 0
  sensor = describe(str(tmp_path / "out")).format.sensors["s2"]
  assert (sensor.dtype, sensor.nodata, len(sensor.bands)) == ("uint16", 0, 12)


@pytest.mark.parametrize("importer", ["manifest", "folders"])
def test_the_first_file_does_not_decide_the_nodata_value_and_its_own_is_brought_over(
  importer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [16] * 20)
  values = optical(0)
  values[:4] = 65535
  tif(tmp_path / "s2" / "p00.tif", values, nodata=65535)
  assert importers.main(command(importer, tmp_path)) == 0
  assert "skipped" not in capsys.readouterr().out
  assert describe(str(tmp_path / "out")).format.sensors["s2"].nodata == 0
  with PairDataset(str(tmp_path / "out"), None) as pairs:
    (found,) = [pairs[i] for i in range(len(pairs)) if pairs[i].pair_id == "p00"]
  expected = np.where(values == 65535, 0, values)
  np.testing.assert_array_equal(found.observations["s2"].values, expected)


def test_a_dry_run_counts_each_reason_and_shows_one_of_its_pairs(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  archive(tmp_path, [16] * 40)
  for number in (3, 5, 7):
    tif(tmp_path / "s2" / f"p{number:02d}.tif", optical(number), east=50)
  tif(tmp_path / "s1" / "p09.tif", radar(9)[..., :1])
  (tmp_path / "s1" / "p11.tif").unlink()
  for importer in ("manifest", "folders"):
    argv = command(importer, tmp_path, "--max-skipped", "0.2", "--dry-run")
    assert importers.main(argv) == 0
    said = capsys.readouterr().out
    assert "5 of 40 pairs skipped" in said
    assert re.search(r"\n  3, the first p0[357]: \S*.tif: has a corner \+5.00 columns", said)
    assert re.search(r"\n  p09: \S*p09.tif: has 1 bands; expected the 2 of sensor 's1'", said)
    assert re.search(r"\n  p11: (there is no file s1/p11.tif|no image of sensor 's1')", said)
  assert importers.main([*argv, "--misaligned", "warp"]) == 0
  assert "2 of 40 pairs skipped" in capsys.readouterr().out


@pytest.mark.parametrize("importer", ["manifest", "folders"])
def test_pixels_found_damaged_at_the_end_stop_short_of_a_data_set_that_resuming_finishes(
  importer: str,
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  monkeypatch.setattr("xjepa_jax.data.import_plan._JUDGED", 0)
  archive(tmp_path, [16] * 64)
  for number in (3, 7, 11, 15):  # not among the 32 that are read beforehand
    path = tmp_path / "s2" / f"p{number:02d}.tif"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 3000])
  assert importers.main(command(importer, tmp_path)) == 1
  said = capsys.readouterr()
  assert "4 of 64 pairs (6.2%) fall out" in said.err
  assert not (tmp_path / "out" / "dataset_info.json").exists()
  remedy = named_option(said.err)
  assert remedy == ["--resume", "--max-skipped", "0.063"]
  assert importers.main(command(importer, tmp_path, *remedy)) == 0
  assert "Wrote 60 pairs" in capsys.readouterr().out


def test_sizes_of_one_sensor_are_those_beside_the_usual_ones_of_the_other(tmp_path: Path) -> None:
  """Alone, 12 x 12 is s2's most frequent size; with it, only three pairs would remain."""
  from xjepa_jax.data.import_plan import _usual_sizes

  both = [{"s1": (16, 16), "s2": (16, 16)}] * 4
  mixed = [{"s1": (16, 16), "s2": (12, 12)}] * 3
  small = [{"s1": (12, 12), "s2": (12, 12)}] * 3
  assert _usual_sizes([*small, *mixed, *both]) == {"s1": (16, 16), "s2": (16, 16)}


@pytest.mark.parametrize(
  "lost, kept, most, refused",
  [
    (7, 93, 0.07, False),
    (8, 92, 0.07, True),
    (1, 19, 0.05, False),
    (1, 18, 0.05, True),
    (0, 5, 0, False),
  ],
)
def test_the_share_asked_for_is_met_exactly(
  lost: int, kept: int, most: float, refused: bool
) -> None:
  skipped = [Skip(f"p{number}", "is damaged.") for number in range(lost)]
  if not refused:
    check_skipped(skipped, kept, most, "give --max-skipped")
    return
  with pytest.raises(ArchiveError) as caught:
    check_skipped(skipped, kept, most, "give --max-skipped")
  (_, share) = named_option(str(caught.value))
  check_skipped(skipped, kept, float(share), "give --max-skipped")


def test_a_file_of_many_pairs_counts_as_many() -> None:
  skipped = [Skip("train/x.zip", "x.zip: is damaged.", 256), Skip("p1", "holds nothing.")]
  assert skipped_lines(skipped, 743) == [
    "257 of 1,000 pairs skipped",
    "  256, the first train/x.zip: x.zip: is damaged.",
    "  p1: holds nothing.",
  ]
