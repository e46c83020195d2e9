"""Names that look the same are one, previews are no images, and a byte-order mark is no text."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.image_folders import walk_images
from xjepa_jax.data.importers import __main__ as importers
from xjepa_jax.data.importers.bigearthnet_lists import read_json
from xjepa_jax.data.unicode_names import quoted, spelled_on_disk
from xjepa_jax.errors import ArchiveError
from xjepa_jax.retrieval.embedding.archives import ArchiveOptions, collect
from xjepa_jax.retrieval.index import _settings
from xjepa_jax.scaling.topologies import topology
from xjepa_jax.sensor_presets import preset
from xjepa_jax.sensors import sensor_to_json

NFC, NFD = "D\xfcne", "Du\u0308ne"
FOLDERS = ("--sensor", "s1=grey:s1", "--sensor", "s2=grey:s2", "--ungeoreferenced")
TABLE = ("--sensor", "s1=grey", "--sensor", "s2=grey", "--ungeoreferenced")
SENSORS = {"s1": preset("grey"), "s2": preset("grey")}


def png(path: Path, level: int) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full((8, 8), level, np.uint8)).save(path)


def run(importer: str, src: Path, *options: str) -> int:
  out = str(src.parent / "out")
  return importers.main([importer, "--src", str(src), "--out", out, "--workers", "1", *options])


def imported(folder: Path) -> dict[str, tuple[int, ...]]:
  """Id -> level of each sensor's image."""
  with PairDataset(str(folder / "out"), None) as pairs:
    found = [pairs[number] for number in range(len(pairs))]
  return {
    pair.pair_id: tuple(int(each.values[0, 0, 0]) for each in pair.observations.values())
    for pair in found
  }


def test_files_named_on_two_systems_pair_in_folders(tmp_path: Path) -> None:
  src = tmp_path / "src"
  png(src / "s1" / NFC / f"{NFC}.png", 10)
  png(src / "s2" / NFD / f"{NFD}.png", 20)
  assert run("folders", src, *FOLDERS, "--pair-id", f"({NFD}/.*)") == 0
  assert imported(tmp_path) == {f"{NFC}/{NFC}": (10, 20)}


def test_a_sensors_folder_is_found_in_either_spelling(tmp_path: Path) -> None:
  src = tmp_path / "src"
  png(src / NFD / "a.png", 10)
  png(src / "s2" / "a.png", 20)
  assert run("folders", src, "--sensor", f"s1=grey:{NFC}", *FOLDERS[2:]) == 0
  assert imported(tmp_path) == {"a": (10, 20)}


@pytest.mark.parametrize(("told", "there"), [(NFC, NFD), (NFD, NFC)])
def test_a_table_finds_files_that_the_disk_spells_otherwise(
  told: str, there: str, tmp_path: Path
) -> None:
  png(tmp_path / there / f"{there}.png", 10)
  png(tmp_path / "b.png", 20)
  (tmp_path / "pairs.csv").write_text(f"pair_id,s1,s2\n{told},{told}/{told}.png,b.png\n")
  assert run("manifest", tmp_path / "pairs.csv", *TABLE) == 0
  assert imported(tmp_path) == {NFC: (10, 20)}
  found = collect(str(tmp_path / "pairs.csv"), ArchiveOptions(SENSORS, geometry=False))
  assert [each.id for each in found.items] == [NFC, NFC] and not found.left_out


def test_the_file_of_just_that_spelling_comes_first(tmp_path: Path) -> None:
  png(tmp_path / f"{NFC}.png", 10)
  png(tmp_path / f"{NFD}.png", 20)
  (tmp_path / "pairs.csv").write_text(f"pair_id,s1,s2\na,{NFC}.png,{NFD}.png\n")
  assert run("manifest", tmp_path / "pairs.csv", *TABLE) == 0
  assert imported(tmp_path) == {"a": (10, 20)}


def test_images_of_one_name_have_one_id_when_embedded(tmp_path: Path) -> None:
  png(tmp_path / "s1" / f"{NFC}.png", 10)
  png(tmp_path / "s2" / f"{NFD}.png", 20)
  patterns = {"s1": "s1/*.png", "s2": f"s2/{NFC}.png"}
  found = collect(str(tmp_path), ArchiveOptions(SENSORS, patterns, geometry=False))
  assert [(each.id, each.sensor) for each in found.items] == [(NFC, "s1"), (NFC, "s2")]


def test_messages_make_a_difference_visible_that_is_none_to_the_eye(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  latin, cyrillic = "K\xe4se_a", "K\xe4se_\u0430"
  assert latin != cyrillic and quoted(latin) == "'Käse_a' (K\\xe4se_a)"
  src = tmp_path / "src"
  png(src / "s1" / f"{latin}.png", 10)
  png(src / "s2" / f"{cyrillic}.png", 20)
  assert run("folders", src, *FOLDERS) == 1
  said = capsys.readouterr().err
  assert "K\\xe4se_a" in said and "K\\xe4se_\\u0430" in said
  png(src / "s1" / f"{NFC}.png", 10)
  png(src / "s1" / f"{NFD}.png", 10)
  png(src / "s2" / f"{NFC}.png", 10)
  assert run("folders", src, *FOLDERS) == 1
  said = capsys.readouterr().err
  assert "several images" in said and "D\\xfcne.png" in said and "Du\\u0308ne.png" in said
  (src / "pairs.csv").write_text(f"pair_id,s1,s2\n{NFC},a.png,b.png\n{NFD},a.png,b.png\n")
  assert run("manifest", src / "pairs.csv", *TABLE) == 1
  assert "pair_id 'Düne' (D\\xfcne) occurred before" in capsys.readouterr().err


def test_every_mixture_of_spellings_is_found_and_none_leaves_the_folder(tmp_path: Path) -> None:
  there = tmp_path / NFD / NFC / f"{NFD}.tif"
  there.parent.mkdir(parents=True)
  there.write_bytes(b"x")
  for form in ("NFC", "NFD"):
    told = unicodedata.normalize(form, str(there))
    assert spelled_on_disk(told) == str(there)
  missing = str(tmp_path / NFC / "no.tif")
  assert not os.path.exists(spelled_on_disk(missing))
  outside = tmp_path.parent / f"{tmp_path.name}-{NFD}"
  outside.mkdir()
  (tmp_path / NFC).symlink_to(outside)
  png(outside / "a.png", 10)
  (tmp_path / "pairs.csv").write_text(f"pair_id,s1\na,{NFC}/a.png\n")
  with pytest.raises(ArchiveError, match="leads out of the folder"):
    from xjepa_jax.data.safe_paths import locate

    locate(str(tmp_path.resolve()), f"{NFC}/a.png", allow_outside=False)
  shutil.rmtree(outside)


# Products of Sentinel-1 and Sentinel-2


@pytest.mark.parametrize("kept", ["as published", "renamed", "without its manifest"])
def test_previews_of_a_sentinel_1_product_are_no_images(kept: str, tmp_path: Path) -> None:
  name = "S1A_IW_GRDH.SAFE" if kept == "as published" else "scene_1"
  src = tmp_path / "all"
  product = src / "s1" / name
  for path in ("preview/quick-look.png", "preview/thumbnail.png", "preview/icons/logo.png"):
    png(product / path, 1)
  for polarisation in ("vh", "vv"):
    png(product / "measurement" / f"{polarisation}.png", 2)
  (product / "annotation").mkdir()
  if kept != "without its manifest":
    (product / "manifest.safe").write_text("<xfdu/>")
  expected = [str(product / "measurement" / f"{each}.png") for each in ("vh", "vv")]
  assert list(walk_images(str(src))) == expected
  options = ArchiveOptions({"s1": preset("grey")}, {"s1": "**/*"}, geometry=False)
  assert [each.source for each in collect(str(src), options).items] == [
    f"s1/{name}/measurement/{each}.png" for each in ("vh", "vv")
  ]
  for polarisation in ("vh", "vv"):
    png(src / "s2" / name / "measurement" / f"{polarisation}.png", 3)
  assert run("folders", src, *FOLDERS) == 0
  assert sorted(imported(tmp_path).values()) == [(2, 3), (2, 3)]


def test_of_a_sentinel_2_product_bands_are_images_and_pictures_are_not(tmp_path: Path) -> None:
  granule = tmp_path / "S2A_MSIL2A.SAFE" / "GRANULE" / "L2A_T33"
  for path in ("IMG_DATA/R10m/T33_B04_10m.png", "IMG_DATA/R10m/T33_TCI_10m.png",
               "QI_DATA/MSK_CLDPRB_20m.png", "QI_DATA/T33_PVI.png"):  # fmt: skip
    png(granule / path, 1)
  png(granule.parents[1] / "HTML" / "banner_1.png", 1)
  assert [os.path.basename(path) for path in walk_images(str(tmp_path))] == ["T33_B04_10m.png"]


def test_folders_that_are_no_products_are_read_whole(tmp_path: Path) -> None:
  for path in ("a.png", "preview/b.png", "measurement/c.png", "HTML/d_tci.png", ".hidden/e.png"):
    png(tmp_path / path, 1)
  found = [os.path.relpath(path, tmp_path) for path in walk_images(str(tmp_path))]
  assert found == ["a.png", "HTML/d_tci.png", "measurement/c.png", "preview/b.png"]


# JSON


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_descriptions_of_sensors_may_have_a_byte_order_mark(encoding: str, tmp_path: Path) -> None:
  described = {"s1": sensor_to_json(preset("grey", product="Kamera Düne"))}
  (tmp_path / "own.json").write_text(json.dumps(described, ensure_ascii=False), encoding=encoding)
  png(tmp_path / "a.png", 10)
  (tmp_path / "pairs.csv").write_text("pair_id,s1\na,a.png\n")
  assert run("manifest", tmp_path / "pairs.csv", "--sensors", str(tmp_path / "own.json")) == 0
  assert imported(tmp_path) == {"a": (10,)}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_json_of_a_user_may_have_a_byte_order_mark(encoding: str, tmp_path: Path) -> None:
  def write(path: Path, content: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding=encoding)
    return str(path)

  write(tmp_path / "patch" / "patch_labels_metadata.json", {"labels": ["Inland waters"]})
  assert read_json(str(tmp_path), "patch") == {"labels": ["Inland waters"]}
  cluster = topology(write(tmp_path / "cluster.json", {"like": "h100-16", "dcn": 1e11}))
  assert (cluster.devices, cluster.chip.dcn) == (16, 1e11)
  config = write(tmp_path / "index.json", {"preset": "sq8"})
  assert _settings(argparse.Namespace(config=config, server=None), "faiss") == {"preset": "sq8"}
