"""Archives as they are listed: folders, tables, STAC, and what of them is refused."""

from __future__ import annotations

import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.retrieval.embedding.conftest import WriteTif
from xjepa_jax.errors import ArchiveError, DataError, OptionError, TableError
from xjepa_jax.retrieval.embedding.archives import ArchiveOptions, collect
from xjepa_jax.retrieval.embedding.items import Item, Window
from xjepa_jax.retrieval.embedding.listing import list_tiles, parts_of
from xjepa_jax.retrieval.embedding.pairs import _distinct
from xjepa_jax.sensor_presets import preset

SENSORS = {
  "optical": preset("sentinel2_l2a").select(["B04", "B03", "B02"]),
  "radar": preset("sentinel1_grd"),
}


def options(**given: Any) -> ArchiveOptions:
  return ArchiveOptions(**{"sensors": SENSORS, **given})


def optical(size: int = 16) -> np.ndarray:
  return np.full((size, size, 3), 500, np.uint16)


def radar(size: int = 16) -> np.ndarray:
  return np.full((size, size, 2), -12, np.float32)


def test_a_folder_is_shared_among_sensors_by_patterns(write_tif: WriteTif, tmp_path: Path) -> None:
  write_tif("a/S2_1.tif", optical())
  write_tif("a/S1_1.tif", radar())
  write_tif("b/S2_2.tif", optical())
  found = collect(str(tmp_path), options(patterns={"optical": "**/S2_*", "radar": "*/S1_*.tif"}))
  assert [(item.id, item.sensor) for item in found.items] == [
    ("a/S1_1", "radar"), ("a/S2_1", "optical"), ("b/S2_2", "optical"),
  ]  # fmt: skip
  with pytest.raises(OptionError, match="images of which sensor"):
    collect(str(tmp_path), options())
  with pytest.raises(OptionError, match="sensor 'sar': the encoder knows optical, radar"):
    collect(str(tmp_path), options(patterns={"sar": "*"}))
  with pytest.raises(ArchiveError, match="claimed by the sensors optical and radar"):
    collect(str(tmp_path), options(patterns={"optical": "**/*", "radar": "**/*S1*"}))
  with pytest.raises(ArchiveError, match="has no image .*that matches optical=c/"):
    collect(str(tmp_path), options(patterns={"optical": "c/*"}))


@pytest.mark.parametrize(
  ("pattern", "ids"),
  [
    ("*", {"top"}),
    ("*.npy", set()),
    ("s1/*.tif", {"a"}),
    ("s1/*/*.tif", {"x/b"}),
    ("s1/**/*.tif", {"a", "x/b", "x/y/c"}),
    ("s1/**", {"a", "x/b", "x/y/c"}),
    ("**/?.tif", {"s1/a", "s1/x/b", "s1/x/y/c", "s2/a"}),
    ("**/y/*", {"s1/x/y/c"}),
    ("s[12]/a.*", {"s1/a", "s2/a"}),
    ("**/*", {"top", "s1/a", "s1/x/b", "s1/x/y/c", "s2/a"}),
  ],
)
def test_a_pattern_means_what_it_means_to_pathlib_and_what_no_pattern_matches_is_counted(
  write_tif: WriteTif, tmp_path: Path, pattern: str, ids: set[str]
) -> None:
  for name in ("top.tif", "s1/a.tif", "s1/x/b.tif", "s1/x/y/c.tif", "s2/a.tif", "s1/.hidden.tif"):
    write_tif(name, optical())
  (tmp_path / "s1" / "notes.txt").write_text("no image")
  if not ids:
    with pytest.raises(ArchiveError, match="has no image .* 5 images are there. A . stays within"):
      collect(str(tmp_path), options(patterns={"optical": pattern}))
    return
  found = collect(tmp_path, options(patterns={"optical": pattern}))
  assert {item.id for item in found.items} == ids
  left = [note for note in found.notes if "match no --sensor pattern" in note]
  said = f"{5 - len(ids)} more images match no --sensor pattern and are left alone"
  assert left == ([] if len(ids) == 5 else [said])


@pytest.mark.parametrize("pattern", ["", "/s1/*.tif", "s1/**x/*.tif"])
def test_a_pattern_that_is_none_is_refused(
  write_tif: WriteTif, tmp_path: Path, pattern: str
) -> None:
  write_tif("a.tif", optical())
  if sys.version_info >= (3, 13) and "**x" in pattern:
    pytest.skip("from Python 3.13 on ** within a name is a *")
  with pytest.raises(OptionError, match="is no pattern of paths relative to the archive") as error:
    collect(tmp_path, options(patterns={"optical": pattern}))
  assert f"--sensor optical={pattern}: " in str(error.value)


@pytest.mark.parametrize("given", ["{}/s1/*.tif", "~/archive/s1/*.tif", "s1/*.tif"])
def test_a_pattern_may_be_given_from_the_root_or_home_if_it_lies_in_the_archive(
  write_tif: WriteTif, tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setenv("HOME", str(tmp_path))
  write_tif("archive/s1/a.tif", optical())
  archive = tmp_path / "archive"
  found = collect(archive, options(patterns={"optical": given.format(archive)}))
  assert [(item.id, item.source) for item in found.items] == [("a", "s1/a.tif")]
  with pytest.raises(OptionError, match=r"optical=~/\*.tif: .*leads out of .*Give one relative"):
    collect(archive, options(patterns={"optical": "~/*.tif"}))


def test_what_cannot_be_read_is_listed_and_no_usable_image_is_an_error(
  write_tif: WriteTif, tmp_path: Path
) -> None:
  write_tif("good.tif", optical())
  write_tif("wide.tif", np.ones((16, 16, 4), np.uint16))
  (tmp_path / "bad.tif").write_bytes(b"II*\0" + bytes(100))
  found = collect(str(tmp_path), options(patterns={"optical": "*"}))
  assert [item.id for item in found.items] == ["good"]
  assert [(each.id, each.sensor) for each in found.left_out] == [
    ("bad", "optical"), ("wide", "optical"),
  ]  # fmt: skip
  assert "damaged" in found.left_out[0].reason and "has 4 bands" in found.left_out[1].reason
  with pytest.raises(ArchiveError, match="none of the 1 images of sensor 'radar'.*has 4 bands"):
    collect(str(tmp_path), options(patterns={"optical": "good*", "radar": "wide*"}))


def test_an_image_and_its_pair_in_another_folder_have_one_id(
  write_tif: WriteTif, tmp_path: Path
) -> None:
  for name in ("s2/tile/a.tif", "s2/b.tif"):
    write_tif(name, optical())
  for name in ("s1/tile/a.tif", "s1/b_vv.tif"):
    write_tif(name, radar())
  patterns = {"optical": "s2/**/*.tif", "radar": "s1/**/*.tif"}
  found = collect(str(tmp_path), options(patterns=patterns)).items
  assert sorted((item.id, item.sensor) for item in found) == [
    ("b", "optical"), ("b_vv", "radar"), ("tile/a", "optical"), ("tile/a", "radar"),
  ]  # fmt: skip
  found = collect(str(tmp_path), options(patterns={"optical": "s2*/**/*"})).items
  assert sorted(item.id for item in found) == ["s2/b", "s2/tile/a"]


def test_times_are_believed_where_it_is_said_where_they_are(
  write_tif: WriteTif, tmp_path: Path
) -> None:
  import rasterio

  for name in ("S2_20210701T102030_T33.tif", "S2_undated.tif"):
    with rasterio.open(write_tif(name, optical()), "r+") as file:
      file.update_tags(TIFFTAG_DATETIME="2022:03:04 05:06:07")

  def times(**chosen: str) -> list[str]:
    found = collect(str(tmp_path), options(patterns={"optical": "*"}, **chosen))
    return [item.time for item in found.items]

  assert times() == ["", ""]
  assert times(time="tag:TIFFTAG_DATETIME") == ["2022-03-04 05:06:07"] * 2
  assert times(time=r"_(\d{8}T\d{6})_") == ["20210701T102030", ""]
  with pytest.raises(ArchiveError, match="tag:OTHER tells the time of none of 2 images"):
    times(time="tag:OTHER")
  for wrong in ("S2_.*", "("):
    with pytest.raises(OptionError, match="regular expression"):
      times(time=wrong)


def test_an_image_without_a_crs_is_refused_unless_no_place_is_wanted(
  write_tif: WriteTif, tmp_path: Path
) -> None:
  write_tif("a.tif", optical())
  write_tif("b.tif", optical(), crs=None)
  with pytest.raises(ArchiveError, match=r"1 of 2 images .*the first b\.tif.*--no-geometry"):
    collect(str(tmp_path), options(patterns={"optical": "*"}))
  found = collect(str(tmp_path), options(patterns={"optical": "*"}, geometry=False))
  assert not any(item.georeferenced for item in found.items)


def test_a_table_names_files_bands_times_and_labels(write_tif: WriteTif, tmp_path: Path) -> None:
  write_tif("s2/a.tif", optical())
  for name in ("VV", "VH"):
    write_tif(f"s1/a_{name}.tif", radar()[..., :1])
  table = tmp_path / "scenes.csv"
  table.write_text(
    "pair_id,optical,radar,split,labels,radar_acquired\n"
    "a,s2/a.tif,s1/a_VV.tif;s1/a_VH.tif,test,water; forest,2021-07-01T10:00:00+02:00\n"
    "b,s2/a.tif,,train,,\n"
  )
  found = collect(str(table), options(splits=("test",)))
  assert [(item.id, item.sensor, item.source, item.labels) for item in found.items] == [
    ("a", "optical", "s2/a.tif", ("water", "forest")),
    ("a", "radar", "s1/a_VV.tif;s1/a_VH.tif", ("water", "forest")),
  ]
  reader = found.reader()
  np.testing.assert_array_equal(reader.read(found.items[1], Window(0, 0, 16, 16))[0], radar())
  reader.close()
  assert len(collect(str(table), options(patterns={"optical": "*"})).items) == 2


@pytest.mark.parametrize(
  ("text", "error", "said"),
  [
    ("name,optical\na,x.tif\n", TableError, "has no column 'id' or 'pair_id'"),
    ("id,other\na,x.tif\n", OptionError, "has no column of paths optical, radar"),
    ("id,optical\na,../x.tif\n", TableError, "line 2: .*leads out of the folder"),
    ("id,optical\na,/vsicurl/http://h/x.tif\n", TableError, "is no file of this machine"),
    ("id,optical\na,x.tif\na,x.tif\n", TableError, "line 3: .*occurred before"),
    ("id,optical,datetime\na,x.tif,tomorrow\n", TableError, "'tomorrow' is no ISO 8601 time"),
    ("id,optical\na,x.tif\n", ArchiveError, "none of the 1 images .*there is no such file"),
  ],
)
def test_a_table_that_cannot_be_used_is_refused(
  tmp_path: Path, text: str, error: type[DataError], said: str
) -> None:
  (tmp_path / "t.csv").write_text(text)
  with pytest.raises(error, match=said):
    collect(str(tmp_path / "t.csv"), options())


# STAC


def item(name: str, assets: dict[str, Any], **properties: Any) -> dict[str, Any]:
  return {
    "type": "Feature", "stac_version": "1.1.0", "id": name, "geometry": None, "links": [],
    "properties": {"datetime": "2021-07-01T10:00:00Z", **properties}, "assets": assets,
  }  # fmt: skip


def asset(href: str, *names: str, **more: Any) -> dict[str, Any]:
  return {"href": href, **({"bands": [{"name": name} for name in names]} if names else {}), **more}


def by_band(folder: str = ".", **more: Any) -> dict[str, Any]:
  return {name: asset(f"{folder}/{name}.tif", **more) for name in ("B02", "B03", "B04", "B08")}


@pytest.fixture
def scene(write_tif: WriteTif, tmp_path: Path) -> Path:
  for number, name in enumerate(("B02", "B03", "B04", "B08"), 1):
    write_tif(f"scene/{name}.tif", np.full((16, 16, 1), 100 * number, np.uint16))
  values = np.concatenate([optical() * number for number in (1, 2)], axis=-1)[..., :4]
  write_tif("scene/all.tif", values)
  write_tif("scene/radar.tif", radar())
  return tmp_path


def write_json(path: Path, content: Any) -> str:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(content))
  return str(path)


def test_stac_assets_are_found_by_the_names_of_their_bands(scene: Path) -> None:
  collection = {
    "type": "FeatureCollection",
    "features": [
      item("a", by_band("scene")),
      item("b", {"stack": asset("scene/all.tif", "B02", "B8", "B3", "B4")}),
      item("c", {"sar": asset("scene/radar.tif", "VV", "VH")}),
      item("d", {"B02": asset("scene/B02.tif")}),
    ],
  }
  found = collect(write_json(scene / "items.json", collection), options())
  assert found.kind == "stac"
  assert [(each.id, each.sensor, each.source) for each in found.items] == [
    ("a", "optical", "scene/B04.tif;scene/B03.tif;scene/B02.tif"),
    ("b", "optical", "scene/all.tif#4,3,1"),
    ("c", "radar", "scene/radar.tif"),
  ]
  assert found.items[0].time == "2021-07-01T10:00:00Z"
  assert [(each.id, "hold all bands of none" in each.reason) for each in found.left_out] == [
    ("d", True)
  ]
  reader = found.reader()
  values = reader.read(found.items[0], Window(0, 0, 16, 16))[0]
  assert values[3, 4].tolist() == [300, 200, 100]
  reader.close()


def test_a_catalog_of_catalogs_is_walked_and_may_link_in_circles(scene: Path) -> None:
  link = [{"rel": "child", "href": "./below/collection.json"}, {"rel": "root", "href": "x"}]
  write_json(scene / "catalog.json", {"type": "Catalog", "id": "c", "links": link})
  below = [
    {"rel": "item", "href": "../items/a.json"},
    {"rel": "child", "href": "../catalog.json"},
  ]
  write_json(scene / "below/collection.json", {"type": "Collection", "id": "d", "links": below})
  write_json(scene / "items/a.json", item("a", by_band("../scene")))
  found = collect(str(scene), options())
  assert [each.source for each in found.items] == ["scene/B04.tif;scene/B03.tif;scene/B02.tif"]


def test_stac_geoparquet_is_read(scene: Path) -> None:
  assets = by_band("scene")
  rows = [
    {"id": "a", "assets": {**assets, "thumbnail": None}},
    {"id": "b", "assets": {"B02": assets["B02"], "thumbnail": {"href": "t.png"}}},
  ]
  table = pa.table(
    {
      "id": [row["id"] for row in rows],
      "geometry": pa.nulls(2, pa.binary()),
      "datetime": pa.array([0, 0], pa.timestamp("us", tz="UTC")),
      "assets": pa.array([row["assets"] for row in rows]),
    }
  )
  pq.write_table(table, scene / "items.parquet")
  found = collect(str(scene / "items.parquet"), options())
  assert [(each.id, each.time) for each in found.items] == [("a", "1970-01-01T00:00:00+00:00")]
  assert [each.id for each in found.left_out] == ["b"]


def test_an_offset_that_a_catalogue_declares_has_to_be_the_encoders_or_told(scene: Path) -> None:
  bands = by_band("scene", **{"raster:bands": [{"scale": 0.0001, "offset": -0.1}]})
  path = write_json(scene / "items.json", item("a", bands))
  with pytest.raises(ArchiveError, match="declare an offset of -1000 stored values, .* with 0 "):
    collect(path, options())
  found = collect(path, options(offset={"optical": -1000.0}))
  assert "shifted by -1000" in found.notes[0]
  assert not collect(path, options(offset={"optical": 0.0})).notes


@pytest.mark.parametrize(
  ("content", "said"),
  [
    ({"type": "Feature", "id": "a", "assets": {}}, "has no image that can be embedded"),
    ({"type": "Report"}, "is no STAC .type 'Report'."),
    ([], "holds a list, expected a STAC object"),
    ({"type": "Catalog", "links": [{"rel": "item", "href": "http://h/i.json"}]}, "copy the cat"),
    ({"type": "Catalog", "links": [{"rel": "item", "href": "../i.json"}]}, "leads out of the f"),
    (item("a", by_band("http://h")), "is no file of this machine"),
    (item("a", by_band("/vsis3/b")), "is no file of this machine"),
    (item("a", by_band("..")), "leads out of the folder"),
  ],
)
def test_stac_that_cannot_be_used_is_refused(tmp_path: Path, content: Any, said: str) -> None:
  with pytest.raises(ArchiveError, match=said):
    collect(write_json(tmp_path / "in" / "items.json", content), options())


def test_options_that_mean_nothing_for_an_archive_are_refused(
  write_tif: WriteTif, tmp_path: Path, simulated: str
) -> None:
  write_tif("a.tif", optical())
  with pytest.raises(OptionError, match="a folder of images, for which --split"):
    collect(str(tmp_path), options(patterns={"optical": "*"}, splits=("test",)))
  with pytest.raises(OptionError, match=r"none of optical, radar"):
    collect(simulated, options())


# Tiles


def test_the_order_of_tiles_does_not_depend_on_that_of_the_files(
  write_tif: WriteTif, tmp_path: Path
) -> None:
  for number in range(4):
    write_tif(f"{number}.tif", optical(40), transform=(10, 0, 5e5 + 2e5 * number, 0, -10, 5e6))
  write_tif("r.tif", radar(40))
  found = collect(str(tmp_path), options(patterns={"optical": "[0-9]*", "radar": "r*"}))
  sizes = dict.fromkeys(SENSORS, (16, 16))
  tiles = list_tiles(found.items, sizes, None, True)
  again = list_tiles(found.items[::-1], sizes, None, True)
  assert tiles.fingerprint() == again.fingerprint()
  assert [tiles.id(i) for i in range(len(tiles))] == [again.id(i) for i in range(len(tiles))]
  assert len(tiles) == 5 * 9 and len({tiles.id(i) for i in range(len(tiles))}) == 45
  parts = parts_of(tiles, 10)
  assert parts == [(0, 10), (10, 20), (20, 30), (30, 36), (36, 45)]
  assert {tiles.of(i)[0].sensor for i in range(36, 45)} == {"radar"}
  images = [tiles.of(i)[0].id for i in range(36)]
  assert sum(a != b for a, b in zip(images, images[1:], strict=False)) == 3  # image by image


def test_an_image_smaller_than_a_tile_is_left_out(write_tif: WriteTif, tmp_path: Path) -> None:
  write_tif("a.tif", optical(15))
  found = collect(str(tmp_path), options(patterns={"optical": "*"}))
  tiles = list_tiles(found.items, {"optical": (16, 16)}, None, True)
  assert not len(tiles) and "is 15 x 15 pixels, smaller than the encoder's 16 x 16" in (
    tiles.left_out[0].reason
  )


def test_tiles_that_are_not_square_leave_nothing_out_between_them() -> None:
  for size in ((64, 32), (32, 64)):
    tiles = list_tiles([Item("a", "optical", "a.tif", 128, 192)], {"optical": size}, None, False)
    covered = np.zeros((128, 192), int)
    for column, row, width, height in tiles.windows:
      covered[row : row + height, column : column + width] += 1
    assert (covered == 1).all()


def test_two_tiles_of_one_id_are_refused_with_both_files() -> None:
  whole = Item("a", "optical", "a.tif", 64, 128)
  sizes = {"optical": (64, 64), "radar": (64, 64)}
  for cut in (
    Item("a_0_64", "optical", "a_0_64.tif", 64, 64),
    Item("a", "optical", "a.png", 64, 64),
  ):
    with pytest.raises(ArchiveError) as caught:
      list_tiles([cut, whole], sizes, None, False)
    for said in ("a.tif", cut.source, f"'{cut.id}'", "rename", "--sensor optical=PATTERN"):
      assert said in str(caught.value)
  others = [
    Item("a_0_64", "radar", "a_0_64.tif", 64, 64),  # of another sensor
    Item("a_0_32", "optical", "a_0_32.tif", 64, 64),  # no tile begins there
    Item("a_00_64", "optical", "a_00_64.tif", 64, 64),
    Item("a_0_64", "optical", "long.tif", 64, 640),  # its tiles are a_0_64_0_0 and so on
    Item("b_0_64", "optical", "b_0_64.tif", 64, 64),
    Item("b", "optical", "b.tif", 64, 64),
  ]
  tiles = list_tiles([whole, *others], sizes, None, False)
  names = [(tiles.of(number)[0].sensor, tiles.id(number)) for number in range(len(tiles))]
  assert len(set(names)) == len(names) == 2 + 5 + 10


def test_pairs_of_one_id_are_told_apart_in_all_sensors_alike() -> None:
  def pair(name: str, source: str, *sensors: str) -> list[Item]:
    return [Item(name, sensor, source, 8, 8) for sensor in sensors]

  items = [
    *pair("p", "train/0", "radar"),
    *pair("p", "test/3", "radar", "optical"),
    *pair("p_test_3", "train/1", "radar"),
    *pair("q", "train/2", "radar", "optical"),
    *pair("r", "a_b/1", "radar"),
    *pair("r", "c/1", "radar"),
    *pair("r_a", "b/1", "radar"),
    *pair("r_a", "c/2", "radar"),
  ]
  found = _distinct(items)
  ids: dict[str, set[str]] = {}
  for item in found:
    ids.setdefault(item.source, set()).add(item.id)
  assert all(len(each) == 1 for each in ids.values())  # a pair's images share theirs
  assert len({name for each in ids.values() for name in each}) == len(ids)
  assert ids["train/0"] == {"p_train_0"} and ids["train/1"] == {"p_test_3"}
  assert ids["train/2"] == {"q"}


def test_listing_takes_little_memory_a_tile_whatever_the_systems_name() -> None:
  import rasterio

  crs = rasterio.CRS.from_epsg(32633).to_wkt()
  assert len(crs) > 500
  grid = (10, 0, 5e5, 0, -10, 5e6)
  short, long = (
    [Item(str(n), "optical", f"{n}.tif", 600, 600, crs=crs, transform=grid) for n in range(2)]
    for crs in ("EPSG:32633", crs)
  )
  expected = list_tiles(short, {"optical": (16, 16)}, 4, True)
  tracemalloc.start()
  try:
    tiles = list_tiles(long, {"optical": (16, 16)}, 4, True)
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert len(tiles) > 40_000 and peak < 1000 * len(tiles)
  np.testing.assert_array_equal(tiles.windows, expected.windows)
  np.testing.assert_allclose(tiles.longitude, expected.longitude, atol=1e-9)
