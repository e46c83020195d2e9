"""Of a STAC item its measurements are read, the finest, and what is malformed is told in words."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.retrieval.embedding.conftest import WriteTif
from xjepa_jax.errors import ArchiveError
from xjepa_jax.retrieval.embedding.archives import ArchiveOptions, collect
from xjepa_jax.retrieval.embedding.items import Collected, Window
from xjepa_jax.sensor_presets import preset

SENSORS = {"optical": preset("sentinel2_l2a").select(["B04", "B03", "B02"])}
BANDS = ("B04", "B03", "B02")
LEVELS = {"B04": 400, "B03": 300, "B02": 200}


def item(assets: Any, name: str = "a", **more: Any) -> dict[str, Any]:
  return {
    "type": "Feature", "stac_version": "1.0.0", "id": name, "geometry": None, "links": [],
    "properties": {"datetime": "2021-07-01T10:00:00Z"}, "assets": assets, **more,
  }  # fmt: skip


def eo(*names: str) -> list[dict[str, str]]:
  return [{"name": name} for name in names]


def collected(folder: Path, *items: Any, name: str = "items.json", encoding="utf-8") -> Collected:
  content = {"type": "FeatureCollection", "features": list(items)}
  (folder / name).write_text(json.dumps(content), encoding=encoding)
  return collect(str(folder / name), ArchiveOptions(SENSORS))


def pixel(found: Collected) -> list[int]:
  """The upper left pixel of the only image."""
  (image,) = found.items
  reader = found.reader()
  try:
    return reader.read(image, Window(0, 0, 16, 16))[0][0, 0].tolist()
  finally:
    reader.close()


@pytest.fixture
def scene(write_tif: WriteTif, tmp_path: Path) -> Path:
  """Bands of 400, 300 and 200 at 10 m and 20 m (one more each), and a picture of them."""
  for band, level in LEVELS.items():
    write_tif(f"{band}.tif", np.full((16, 16, 1), level, np.uint16))
    coarse = np.full((8, 8, 1), level + 1, np.uint16)
    write_tif(f"{band}_20m.tif", coarse, transform=(20, 0, 5e5, 0, -20, 5e6))
  write_tif("visual.tif", np.full((16, 16, 3), 90, np.uint8))
  write_tif("stack.tif", np.full((16, 16, 3), [402, 302, 202], np.uint16))
  return tmp_path


def data(**more: Any) -> dict[str, dict[str, Any]]:
  return {
    band: {"href": f"{band}.tif", "eo:bands": eo(band), "roles": ["data"], **more} for band in BANDS
  }


PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
  "by key, as Planetary Computer": ("visual", {"roles": ["data"], "title": "True color image"}),
  "by role, as Earth Search": ("rgb", {"roles": ["visual"]}),
  "an overview": ("overview", {"roles": ["overview"]}),
  "a thumbnail": ("small", {"roles": ["thumbnail"]}),
  "a preview without a role": ("preview", {}),
  "a rendered preview": ("rendered_preview", {"roles": ["overview"]}),
  "Copernicus' TCI": ("TCI_10m", {}),
  "by title alone": ("image", {"title": "True Colour Image"}),
  "by its declared type": ("image", {"raster:bands": [{"data_type": "uint8"}] * 3}),
  "by its declared type, STAC 1.1": ("image", {"data_type": "uint8"}),
}


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("first", [True, False])
def test_a_picture_is_never_taken_for_data_wherever_it_stands(
  kind: str, first: bool, scene: Path
) -> None:
  key, fields = PICTURES[kind]
  picture = {key: {"href": "visual.tif", "eo:bands": eo(*BANDS), **fields}}
  assets = {**picture, **data()} if first else {**data(), **picture}
  assert pixel(collected(scene, item(assets))) == [400, 300, 200]
  with pytest.raises(ArchiveError, match=f"{key}: pictures or of 8 bits, no measurements"):
    collected(scene, item(picture))


RESOLUTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
  "gsd": ({"gsd": 10}, {"gsd": 20}),
  "raster extension": (
    {"raster:bands": [{"spatial_resolution": 10}]},
    {"raster:bands": [{"spatial_resolution": 20}]},
  ),
  "STAC 1.1": ({"raster:spatial_resolution": 10}, {"raster:spatial_resolution": 20}),
  "transform, though gsd is of the instrument": (
    {"gsd": 10, "proj:transform": [10, 0, 5e5, 0, -10, 5e6]},
    {"gsd": 10, "proj:transform": [20, 0, 5e5, 0, -20, 5e6]},
  ),
  "the files alone": ({}, {}),
  "the files, where one declares nothing": ({}, {"gsd": 5}),
}


@pytest.mark.parametrize("told", RESOLUTIONS)
@pytest.mark.parametrize("order", [0, 1])
def test_the_finest_on_the_ground_is_read_whatever_the_order(
  told: str, order: int, scene: Path
) -> None:
  fine, coarse = RESOLUTIONS[told]
  pairs = [
    [(f"{band}_10m", {"href": f"{band}.tif", "eo:bands": eo(band), **fine}) for band in BANDS],
    [
      (f"{band}_20m", {"href": f"{band}_20m.tif", "eo:bands": eo(band), **coarse}) for band in BANDS
    ],
  ]
  assets = dict(itertools.chain(*(pairs if order == 0 else pairs[::-1])))
  assert pixel(collected(scene, item(assets))) == [400, 300, 200]


def test_the_role_data_comes_before_none_and_one_band_before_several(scene: Path) -> None:
  stack = {"href": "stack.tif", "eo:bands": eo(*BANDS), "gsd": 10}
  assert pixel(collected(scene, item({"all": stack, **data(gsd=10)}))) == [400, 300, 200]
  plain = {key: {**each, "roles": ["derived"]} for key, each in data(gsd=10).items()}
  told = {"all": {**stack, "roles": ["data"]}}
  assert pixel(collected(scene, item({**plain, **told}))) == [402, 302, 202]
  assert pixel(collected(scene, item({"all": stack}))) == [402, 302, 202]


def with_b04(**fields: Any) -> dict[str, Any]:
  return {**data(), "B04": {**data()["B04"], **fields}}


MALFORMED: dict[str, tuple[Any, str]] = {
  "numbers as bands": (with_b04(**{"eo:bands": [4]}), "asset 'B04': a band in 'eo:bands' is 4"),
  "texts as bands": (with_b04(**{"eo:bands": ["B04"]}), "'eo:bands' is 'B04', expected an object"),
  "a text for bands": (with_b04(bands="B04"), "asset 'B04': its 'bands' is 'B04', expected a list"),
  "a number as a name": (with_b04(bands=[{"name": 4}]), "has the name 4, expected text"),
  "a text as asset": ({**data(), "B04": "B04.tif"}, "asset 'B04' is 'B04.tif', expected an object"),
  "a list of assets": (list(data().values()), "'assets' is .*, expected an object"),
  "a text for assets": ("B04.tif", "'assets' is 'B04.tif', expected an object"),
  "a number as href": (with_b04(href=4), "asset 'B04': its href is 4, expected text"),
  "no href": ({**data(), "B04": {"roles": ["data"]}}, "asset 'B04': its href is None"),
  "a text for roles": (with_b04(roles="data"), "its 'roles' are 'data', expected a list of text"),
  "numbers as roles": (with_b04(roles=[1]), "'roles' are .1., expected a list of text"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_item_is_left_out_in_words_and_ends_nothing_else(
  kind: str, scene: Path
) -> None:
  assets, said = MALFORMED[kind]
  with pytest.raises(ArchiveError, match=said):
    collected(scene, item(assets))
  found = collected(scene, item(assets), item(data(), "b"))
  assert [each.id for each in found.items] == ["b"]
  assert [each.id for each in found.left_out] == ["a"]


@pytest.mark.parametrize("value", ["2021-07-01", 3, ["datetime"]])
def test_properties_that_are_no_object_are_told_in_words(value: Any, scene: Path) -> None:
  with pytest.raises(ArchiveError, match="'properties' is .*, expected an object"):
    collected(scene, item(data(), properties=value))


def test_features_and_ids_that_are_none_are_told_in_words(scene: Path) -> None:
  with pytest.raises(ArchiveError, match="'features' are not a list of STAC items"):
    collected(scene, "a")
  with pytest.raises(ArchiveError, match="has no 'id'"):
    collected(scene, item(data(), name=""))


# Links


@pytest.mark.parametrize("name", ["my band.tif", "100%25.tif", "a#1.tif", "Düne.tif", "a+b.tif"])
@pytest.mark.parametrize("form", ["plain", "encoded", "file", "query"])
def test_a_link_may_be_percent_encoded_or_plain_and_have_a_query(
  name: str, form: str, scene: Path
) -> None:
  from urllib.parse import quote

  (scene / name).write_bytes((scene / "B04.tif").read_bytes())
  href = {
    "plain": name,
    "encoded": f"./{quote(name)}",
    "file": f"file://{quote(str(scene / name))}",
    "query": f"{quote(name)}?sig=x%2Fy.png&se=1",
  }[form]
  assert pixel(collected(scene, item(with_b04(href=href)))) == [400, 300, 200]


def test_a_file_of_just_that_name_comes_before_the_decoded_one(scene: Path) -> None:
  (scene / "B04%20x.tif").write_bytes((scene / "B04.tif").read_bytes())
  (scene / "B04 x.tif").write_bytes((scene / "B03.tif").read_bytes())
  assert pixel(collected(scene, item(with_b04(href="B04%20x.tif"))))[0] == 400


def test_links_of_catalogs_are_decoded_too(scene: Path) -> None:
  (scene / "my items").mkdir()
  up = {key: {**each, "href": f"../{each['href']}"} for key, each in data().items()}
  (scene / "my items" / "a.json").write_text(json.dumps(item(up)))
  links = [{"rel": "item", "href": "./my%20items/a.json?v=2"}]
  (scene / "catalog.json").write_text(json.dumps({"type": "Catalog", "links": links}))
  assert pixel(collect(str(scene), ArchiveOptions(SENSORS))) == [400, 300, 200]


@pytest.mark.parametrize("href", ["https://h/B04.tif?sig=1", "s3://b/B04.tif", "/vsicurl/B04.tif"])
def test_what_is_no_file_of_this_machine_is_refused_as_it_is(href: str, scene: Path) -> None:
  with pytest.raises(ArchiveError, match="no file of this machine"):
    collected(scene, item(with_b04(href=href)))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_understood(encoding: str, scene: Path) -> None:
  assert pixel(collected(scene, item(data()), encoding=encoding)) == [400, 300, 200]


# stac-geoparquet


def test_assets_of_parquet_may_be_a_map(scene: Path) -> None:
  kind = pa.map_(pa.string(), pa.struct({"href": pa.string(), "roles": pa.list_(pa.string())}))
  assets = [(key, {"href": each["href"], "roles": ["data"]}) for key, each in data().items()]
  columns = {"id": ["a"], "geometry": pa.nulls(1, pa.binary()), "assets": pa.array([assets], kind)}
  pq.write_table(pa.table(columns), scene / "items.parquet")
  assert pixel(collect(str(scene / "items.parquet"), ArchiveOptions(SENSORS))) == [400, 300, 200]


def test_assets_of_parquet_may_be_json_and_damaged_json_names_its_row(scene: Path) -> None:
  def write(*texts: str) -> str:
    table = pa.table(
      {
        "id": [f"a{number}" for number in range(len(texts))],
        "geometry": pa.nulls(len(texts), pa.binary()),
        "datetime": pa.array([0] * len(texts), pa.timestamp("ns", tz="Europe/Berlin")),
        "assets": list(texts),
      }
    )
    pq.write_table(table, scene / "items.parquet")
    return str(scene / "items.parquet")

  found = collect(write(json.dumps(data())), ArchiveOptions(SENSORS))
  assert pixel(found) == [400, 300, 200] and found.items[0].time.startswith("1970-01-01T00:00")
  with pytest.raises(ArchiveError, match=r"items.parquet: row 2: its assets are no JSON"):
    collect(write(json.dumps(data()), "{"), ArchiveOptions(SENSORS))


@pytest.mark.parametrize(
  "asset",
  [
    {"href": "mask.tif", "eo:bands": [1]},
    {"href": "mask.tif", "roles": "mask"},
    {"href": None},
    {"title": "no link"},
    "mask.tif",
  ],
)
def test_an_asset_that_is_no_data_does_not_matter_to_the_others(asset: Any, scene: Path) -> None:
  plain = pixel(collected(scene, item(data())))
  found = collected(scene, item({"mask": asset, **data()}))
  assert pixel(found) == plain and not found.left_out


@pytest.mark.parametrize("field", ["raster:bands", "bands"])
@pytest.mark.parametrize(
  ("said", "fits"),
  [
    ({"scale": 1e-4}, True),
    ({"scale": 1e-4, "offset": 0}, True),
    ({"scale": 1, "offset": 0}, True),
    ({"scale": 2e-5, "offset": 0}, False),
    ({"scale": 2e-5}, False),
    ({"scale": 0.01}, False),
  ],
)
def test_a_scale_that_a_catalogue_declares_is_the_encoders(
  said: dict[str, float], fits: bool, field: str, scene: Path
) -> None:
  key = {"raster:bands": "scale", "bands": "raster:scale"}[field]
  offset = key.replace("scale", "offset")
  told = {key: said["scale"]} | ({offset: said["offset"]} if "offset" in said else {})
  fields = {field: [{"name": "B04", **told}]}
  if fits:
    collected(scene, item(with_b04(**fields)))
    return
  with pytest.raises(ArchiveError, match="asset 'B04': declares value = stored .* gain of 1 and"):
    collected(scene, item(with_b04(**fields)))
