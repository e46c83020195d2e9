"""An archive of files means the same to an import and to embed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.retrieval.embedding.conftest import WriteTif
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.importers import __main__ as importers
from xjepa_jax.retrieval.embedding.archives import ArchiveOptions, collect
from xjepa_jax.retrieval.embedding.items import Window
from xjepa_jax.sensor_presets import preset

SIZE = 16
RADAR = preset("sentinel1_grd")
OPTICAL = preset("sentinel2_l2a").select(["B04", "B03", "B02"])
Write = Callable[[WriteTif, int], str]  # writes the optical image of a pair; returns its cell


def radar(number: int) -> np.ndarray:
  rng = np.random.default_rng(number)
  return rng.normal((-11, -18), 2, (SIZE, SIZE, 2)).astype(np.float32)


def optical(number: int, dtype: str = "uint16") -> np.ndarray:
  rng = np.random.default_rng(number)
  return rng.integers((900, 700, 500), (1900, 1500, 1100), (SIZE, SIZE, 3)).astype(dtype)


def place(number: int) -> tuple[float, ...]:
  return 10, 0, 5e5 + 1000 * number, 0, -10, 5e6


def one_file(marker: int, dtype: str = "uint16") -> Write:
  def write(write_tif: WriteTif, number: int) -> str:
    values = optical(number, dtype)
    values[:, :4] = marker
    write_tif(f"o{number}.tif", values, transform=place(number), nodata=marker)
    return f"o{number}.tif"

  return write


def by_turns(write_tif: WriteTif, number: int) -> str:
  return one_file((0, 65535)[number % 2])(write_tif, number)


def reversed_bands(write_tif: WriteTif, number: int) -> str:
  files = []
  for band in (2, 1, 0):
    name = f"o{number}_{band}.tif"
    write_tif(
      name, optical(number)[..., [band]], transform=place(number),
      descriptions=[OPTICAL.band_names[band]],
    )  # fmt: skip
    files.append(name)
  return ";".join(files)


def south_up(write_tif: WriteTif, number: int) -> str:
  west, top = place(number)[2], place(number)[5]
  stored = optical(number)[::-1]
  write_tif(f"o{number}.tif", stored, transform=(10, 0, west, 0, 10, top - 10 * SIZE))
  return f"o{number}.tif"


def unequal_bands(write_tif: WriteTif, number: int) -> str:
  values = optical(number, "int16")
  files = []
  for band, marker in enumerate((0, -9999, 0)):
    values[:, :4, band] = marker
    name = f"o{number}_{band}.tif"
    write_tif(name, values[..., [band]], transform=place(number), nodata=marker)
    files.append(name)
  return ";".join(files)


def seen_by_import(folder: Path) -> dict[int, np.ndarray]:
  """Number of a pair -> its optical values as they were imported, NaN where nothing was seen."""
  status = importers.main(
    ["manifest", "--src", str(folder / "pairs.csv"), "--out", str(folder / "out"),
     "--workers", "1", "--sensor", "radar=sentinel1_grd", "--sensor", "optical=sentinel2_l2a",
     "--bands", "optical=B04,B03,B02"]
  )  # fmt: skip
  assert status == 0
  found = {}
  with PairDataset(str(folder / "out"), None) as pairs:
    sensor = pairs.format.sensors["optical"]
    for i in range(len(pairs)):
      values = pairs[i].observations["optical"].values
      found[int(pairs[i].pair_id[1:])] = np.where(sensor.known(values), values, np.nan)
  return found


def seen_by_embed(path: Path) -> dict[int, np.ndarray]:
  """The same by embed."""
  found = collect(str(path), ArchiveOptions({"radar": RADAR, "optical": OPTICAL}))
  reader = found.reader()
  values = {}
  for item in found.items:
    if item.sensor == "optical":
      read, _ = reader.read(item, Window(0, 0, SIZE, SIZE))
      values[int(item.id[1:])] = np.where(OPTICAL.known(read), read, np.nan)
  reader.close()
  assert not found.left_out
  return values


@pytest.mark.parametrize(
  ("write", "hidden"),
  [
    (by_turns, 4),
    (one_file(-9999, "int16"), 4),
    (unequal_bands, 4),
    (reversed_bands, 0),
    (south_up, 0),
  ],
  ids=[
    "nodata of each file",
    "int16",
    "nodata of each band's file",
    "bands by description",
    "south up",
  ],
)
def test_one_archive_means_the_same_to_both(
  write: Write, hidden: int, write_tif: WriteTif, tmp_path: Path
) -> None:
  rows = ["pair_id,radar,optical"]
  for number in range(8):
    write_tif(f"r{number}.tif", radar(number), transform=place(number))
    rows.append(f"p{number},r{number}.tif,{write(write_tif, number)}")
  (tmp_path / "pairs.csv").write_text("\n".join(rows))
  imported, embedded = seen_by_import(tmp_path), seen_by_embed(tmp_path / "pairs.csv")
  of_imported = seen_by_embed(tmp_path / "out")
  for number in range(8):
    expected = optical(number).astype(float)
    expected[:, :hidden] = np.nan
    for found in (imported[number], embedded[number], of_imported[number]):
      np.testing.assert_array_equal(found, expected)


def test_pixels_of_another_size_are_refused_by_import_too_unless_it_was_said(
  write_tif: WriteTif, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  rows = ["pair_id,radar"]
  for number in range(3):
    write_tif(f"r{number}.tif", radar(number), transform=(60, 0, 5e5 + 1e4 * number, 0, -60, 5e6))
    rows.append(f"p{number},r{number}.tif")
  (tmp_path / "pairs.csv").write_text("\n".join(rows))
  command = ["manifest", "--src", str(tmp_path / "pairs.csv"), "--out", str(tmp_path / "out"),
             "--workers", "1", "--sensor", "radar=sentinel1_grd"]  # fmt: skip
  assert importers.main(command) == 1
  said = capsys.readouterr().err
  assert "has pixels of 60 x 60 m" in said or "has pixels of 59" in said
  assert "give --any-resolution" in said
  assert importers.main([*command, "--any-resolution"]) == 0
