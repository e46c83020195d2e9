"""The same rules of what was seen and of units hold for embed, for a query and for arrays."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from tests.retrieval.embedding.conftest import WriteTif
from xjepa_jax.data.tables import read_rows
from xjepa_jax.errors import ExportError, ImageError, SearchError
from xjepa_jax.export import load_encoder
from xjepa_jax.retrieval.embed import main as embed
from xjepa_jax.retrieval.embedding.archives import ArchiveOptions, collect
from xjepa_jax.retrieval.embedding.files import open_embeddings
from xjepa_jax.retrieval.embedding.items import Window
from xjepa_jax.retrieval.searching.query_image import read_query
from xjepa_jax.sensor_presets import preset

SENSORS = {
  "radar": preset("sentinel1_grd"),
  "optical": preset("sentinel2_l2a").select(["B04", "B03", "B02"]),
}
HIDDEN = 6


def radar(number: int) -> np.ndarray:
  noise = np.random.default_rng(number).normal(0, 2, (16, 16, 2))
  return (noise + [-11, -18]).astype(np.float32)


def optical(number: int) -> np.ndarray:
  return np.random.default_rng(number).integers(200, 4000, (16, 16, 3)).astype(np.uint16)


IMAGES: dict[str, Callable[[int], np.ndarray]] = {"radar": radar, "optical": optical}


def hide(path: Path) -> None:
  """Hides the first columns by an internal mask."""
  mask = np.full((16, 16), True)
  mask[:, :HIDDEN] = False
  with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
    file.write_mask(mask)


def read(path: Path, key: str) -> tuple[np.ndarray, float]:
  found = collect(str(path), ArchiveOptions(SENSORS, patterns={key: "**/*"}))
  return found.reader().read(found.items[0], Window(0, 0, 16, 16))


@pytest.mark.parametrize("key", IMAGES)
def test_embed_and_a_query_see_what_a_mask_shows(
  key: str, write_tif: WriteTif, tile_encoder: str
) -> None:
  path = write_tif("a.tif", IMAGES[key](0))
  hide(path)
  values, seen = read(path, key)
  assert seen == 1 - HIDDEN / 16
  sensor = SENSORS[key]
  assert not sensor.valid(values)[:, :HIDDEN].any() and sensor.valid(values)[:, HIDDEN:].all()
  np.testing.assert_array_equal(values[:, HIDDEN:], IMAGES[key](0)[:, HIDDEN:])
  query = read_query(str(path), load_encoder(tile_encoder).inputs, key)
  np.testing.assert_array_equal(sensor.valid(query.values), sensor.valid(values))


@pytest.mark.parametrize("key", IMAGES)
def test_a_masked_array_is_described_as_the_file_with_that_mask(
  key: str, write_tif: WriteTif, tile_encoder: str
) -> None:
  path = write_tif("a.tif", IMAGES[key](0))
  hide(path)
  encoder = load_encoder(tile_encoder)
  mask = np.zeros((1, 16, 16, IMAGES[key](0).shape[2]), bool)
  mask[:, :, :HIDDEN] = True
  masked = np.ma.masked_array(IMAGES[key](0)[None], mask)
  expected = encoder.describe({key: read(path, key)[0][None]})
  np.testing.assert_array_equal(encoder.describe({key: masked}), expected)
  assert np.abs(encoder.describe({key: IMAGES[key](0)[None]}) - expected).max() > 1e-3


def test_too_little_seen_is_refused_or_not_a_number(tile_encoder: str) -> None:
  encoder = load_encoder(tile_encoder)
  images = np.stack([radar(0), np.full_like(radar(0), np.nan)])
  with pytest.raises(
    ExportError, match=r"1 of 2 images of 'radar' show too little.* number 1: 0.0%"
  ):
    encoder.describe({"radar": images})
  found = encoder.describe({"radar": images}, unseen="nan")
  assert np.isfinite(found[0]).all() and np.isnan(found[1]).all()
  with pytest.raises(ExportError, match="unseen is 'zero'"):
    encoder.describe({"radar": images}, unseen="zero")
  for share in (np.nan, -0.1, 1.1):
    with pytest.raises(ExportError, match="min_valid is .*from 0 to 1"):
      encoder.describe({"radar": images}, min_valid=share)


ROWS = 8  # a multiple of the devices here


def batch(image: np.ndarray) -> dict[str, np.ndarray]:
  return {"radar": np.repeat(image[None], ROWS, axis=0)}


def framed(middle: np.ndarray, around: float) -> np.ndarray:
  """(32, 32, C) of which the encoder looks at the middle."""
  found = np.full((32, 32, middle.shape[-1]), around, middle.dtype)
  found[8:24, 8:24] = middle
  return found


WAYS: dict[str, Callable[..., np.ndarray]] = {
  "describe": lambda encoder, *given, **more: encoder.describe(*given, **more),
  "start": lambda encoder, *given, **more: np.asarray(encoder.start(*given, **more)),
  "patches": lambda encoder, *given, **more: encoder.patches(*given, **more),
  "tokens": lambda encoder, *given, **more: encoder.tokens(*given, **more),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_however_it_is_asked_an_encoder_judges_what_it_looks_at(
  tile_encoder: str, way: Callable[..., np.ndarray]
) -> None:
  encoder = load_encoder(tile_encoder)
  alone = way(encoder, batch(radar(0)))
  for around in (np.nan, 0.01, -11):  # not seen, of other units, or of these
    np.testing.assert_array_equal(way(encoder, batch(framed(radar(0), around))), alone)
  unseen = batch(framed(np.full_like(radar(0), np.nan), -11))
  with pytest.raises(ExportError, match=r"number 0: 0.0% of the pixels that are looked at"):
    way(encoder, unseen)
  assert np.isnan(way(encoder, unseen, unseen="nan")).all()
  assert np.isfinite(way(encoder, unseen, unseen="take")).all()
  with pytest.raises(ExportError, match="contradicts the units.*linear power"):
    way(encoder, batch(framed(linear(0), -11)))
  assert np.isfinite(way(encoder, batch(linear(0)), trust_units=True)).all()


@pytest.mark.parametrize("key", IMAGES)
def test_a_list_of_masked_arrays_is_as_one_masked_array(key: str, tile_encoder: str) -> None:
  encoder = load_encoder(tile_encoder)
  stacked = np.ma.masked_array(np.stack([IMAGES[key](0), IMAGES[key](1)]), False)
  stacked[1, :, :HIDDEN] = np.ma.masked
  expected = encoder.describe({key: stacked})
  assert np.abs(encoder.describe({key: stacked.data}) - expected)[1].max() > 1e-3
  for given in (
    [stacked[0], stacked[1]],
    (stacked.data[0], stacked[1]),
    [list(stacked[0]), list(stacked[1])],
  ):
    np.testing.assert_array_equal(encoder.describe({key: given}), expected)
  with pytest.raises(ExportError, match="2 of 2 images .* show too little"):
    encoder.describe({key: [np.ma.masked_all_like(each) for each in stacked]})


@pytest.mark.parametrize("key", IMAGES)
def test_the_order_of_bytes_is_no_other_type(key: str, tile_encoder: str) -> None:
  encoder = load_encoder(tile_encoder)
  values = IMAGES[key](0)[None]
  swapped = values.astype(values.dtype.newbyteorder(">"))
  np.testing.assert_array_equal(encoder.describe({key: swapped}), encoder.describe({key: values}))


def linear(number: int) -> np.ndarray:
  return (10 ** (radar(number) / 10)).astype(np.float32)


def test_linear_power_is_refused_as_an_array_too_unless_trusted(tile_encoder: str) -> None:
  encoder = load_encoder(tile_encoder)
  images = np.stack([radar(0), linear(1)])
  with pytest.raises(ExportError, match="image 1 of 'radar' contradicts the units.*linear power"):
    encoder.describe({"radar": images})
  assert encoder.describe({"radar": images}, trust_units=True).shape[0] == 2


def test_odd_images_of_an_archive_stop_embed_and_are_left_out_when_asked(
  write_tif: WriteTif, tile_encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  for number in range(6):
    odd = number in (2, 4)
    place = (10, 0, 5e5 + 160 * number, 0, -10, 5e6)
    write_tif(f"scenes/{number}.tif", (linear if odd else radar)(number), transform=place)
  given = ["--encoder", tile_encoder, "--archive", str(tmp_path / "scenes")]
  given += ["--sensor", "radar", "--out", str(tmp_path / "out")]
  assert embed(given) == 1
  said = capsys.readouterr()
  assert "2 of 6 tiles contradict it, among them " in said.out and "--skip-odd" in said.err
  assert embed([*given, "--skip-odd"]) == 0
  files = open_embeddings(str(tmp_path / "out"))
  assert files.description.count == 4
  left = {
    str(row["id"]): row["reason"]
    for _, row in read_rows(
      str(tmp_path / "out" / "skipped.csv"), ["id", "sensor", "source", "reason"], {"id", "reason"}
    )
  }
  assert set(left) == {"2", "4"} and all("linear power" in reason for reason in left.values())


@pytest.mark.parametrize(("key", "marker"), [("radar", -9999.0), ("optical", 0)])
def test_import_and_embed_agree_on_what_a_declared_marker_hides(
  key: str, marker: Any, write_tif: WriteTif
) -> None:
  values = IMAGES[key](0)
  values[:4, :, 1] = marker
  values[4:6] = marker
  path = write_tif("a.tif", values, nodata=marker)
  found, seen = read(path, key)
  assert seen == 1 - 2 / 16
  known = SENSORS[key].known(found)
  assert known[:4, :, 0].all() and not known[4:6].any() and known[6:].all()
  # -9999 dB cannot be measured and hides its band; a reflectance of 0 can, and hides nothing alone.
  assert known[:4, :, 1].all() == (key == "optical")


def test_a_damaged_mask_beside_an_image_is_named_as_any_damage(write_tif: WriteTif) -> None:
  path = write_tif("a.tif", radar(0))
  Path(f"{path}.msk").write_bytes(b"garbage")
  with pytest.raises(ImageError, match="the mask of .* cannot be read, it is damaged"):
    read(path, "radar")


# Another offset, levels of 8 bits and fill, at every door


def scenes(folder: Path, values: Sequence[np.ndarray], write_tif: WriteTif) -> None:
  for number, each in enumerate(values):
    place = (10, 0, 5e5 + 160 * number, 0, -10, 5e6)
    write_tif(f"{folder.name}/{number}.tif", each, transform=place)


def command(encoder: str, folder: Path, key: str) -> list[str]:
  given = ["--encoder", encoder, "--archive", str(folder), "--sensor", key]
  return [*given, "--out", str(folder.parent / "out")]


def test_embed_names_an_offset_and_the_two_ways_that_pass(
  write_tif: WriteTif, tile_encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  scenes(tmp_path / "in", [optical(i) + np.uint16(1000) for i in range(4)], write_tif)
  given = command(tile_encoder, tmp_path / "in", "optical")
  assert embed(given) == 1
  said = capsys.readouterr().out
  (offset,) = re.findall(r"--offset \S+=-1000", said)
  (trust,) = re.findall(r"--trust-offset", said)
  for number, remedy in enumerate((offset, trust)):
    assert embed([*given[:-1], str(tmp_path / f"out{number}"), *remedy.split()]) == 0


def test_embed_notes_a_mixture_of_offsets(
  write_tif: WriteTif, tile_encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  values = [optical(i) // 2 + np.uint16(1000 * (i % 2)) for i in range(4)]
  scenes(tmp_path / "in", values, write_tif)
  assert embed(command(tile_encoder, tmp_path / "in", "optical")) == 0
  assert "nothing in 2 of 4 images is darker than about 1000" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("key", "dtype", "marker"), [("radar", "float32", -50), ("optical", "int16", -9999)]
)
def test_embed_names_undeclared_fill_with_what_to_give(
  key: str, dtype: str, marker: int, write_tif: WriteTif, tile_encoder: str, tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
  values = [IMAGES[key](i).astype(dtype) for i in range(4)]
  for each in values:
    each[:, :5] = marker
  scenes(tmp_path / "in", values, write_tif)
  given = command(tile_encoder, tmp_path / "in", key)
  assert embed(given) == 1
  said = capsys.readouterr()
  (remedy,) = set(re.findall(rf"--nodata {key}={marker}", said.out + said.err))
  assert embed([*given, *remedy.split()]) == 0


def test_a_query_names_the_offset_as_it_can_be_given_there(
  write_tif: WriteTif, tile_encoder: str
) -> None:
  path = write_tif("a.tif", optical(0) + np.uint16(1000))
  inputs = load_encoder(tile_encoder).inputs
  (note,) = read_query(str(path), inputs, "optical").notes
  (offset,) = re.findall(r"--offset (-\d+)", note)
  asked = read_query(str(path), inputs, "optical", offset=float(offset))
  assert asked.notes == ()
  np.testing.assert_array_equal(asked.values, optical(0))


def test_levels_of_8_bits_in_a_wider_type_are_noted_of_a_query_and_of_arrays(
  write_tif: WriteTif, tile_encoder: str
) -> None:
  encoder = load_encoder(tile_encoder)
  levels = optical(0) // 16
  path = write_tif("a.tif", levels)
  (note,) = read_query(str(path), encoder.inputs, "optical").notes
  assert "levels of a picture of 8 bits" in note
  with pytest.warns(UserWarning, match="levels of a picture of 8 bits"):
    encoder.describe({"optical": levels[None]})


def test_a_batch_with_another_offset_is_a_warning_and_shifted_is_none(tile_encoder: str) -> None:
  encoder = load_encoder(tile_encoder)
  batch = np.stack([optical(i) for i in range(3)])
  with pytest.warns(UserWarning, match="seem to carry the .1000.*Give them shifted by -1000"):
    encoder.describe({"optical": batch + np.uint16(1000)})
  with warnings.catch_warnings():
    warnings.simplefilter("error", UserWarning)
    encoder.describe({"optical": batch})
    encoder.describe({"optical": batch + np.uint16(1000)}, trust_units=True)


def test_undeclared_fill_of_a_query_is_refused_with_what_helps(
  write_tif: WriteTif, tile_encoder: str
) -> None:
  values = radar(0)
  values[:, :5] = -50
  path = write_tif("a.tif", values)
  inputs = load_encoder(tile_encoder).inputs
  with pytest.raises(SearchError, match="hold -50.*Say so: --nodata radar=-50"):
    read_query(str(path), inputs, "radar")
  path = write_tif("a.tif", values, nodata=-50)
  assert np.isnan(read_query(str(path), inputs, "radar").values[:, :5]).all()
