"""The command: an archive becomes descriptors in GeoParquet, the same bytes however it was done."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import xjepa_jax
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.retrieval.embed import main
from xjepa_jax.retrieval.embedding.files import open_embeddings
from xjepa_jax.retrieval.embedding.progress import Progress
from xjepa_jax.retrieval.embedding.tile_images import TileImages

HAS_BEAM = importlib.util.find_spec("apache_beam") is not None

ROOT = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.usefixtures("compiled_quickly"), pytest.mark.timeout(900)]
PLAIN = ("--quantisation", "float32", "--part-rows", "16", "--batch", "4")


def digests(directory: Path) -> dict[str, str]:
  """Every file below a directory -> its SHA-256."""
  return {
    str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(directory.rglob("*"))
    if path.is_file()
  }


@pytest.fixture(scope="module")
def undisturbed(
  pair_encoder: str, simulated: str, compiled: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
  """All simulated pairs, embedded by this process on its eight devices."""
  out = tmp_path_factory.mktemp("undisturbed") / "embeddings"
  assert main(command(pair_encoder, simulated, out)) == 0
  return out


def command(encoder: str, archive: str, out: Path, *more: str) -> list[str]:
  return ["--encoder", encoder, "--archive", archive, "--out", str(out), *PLAIN, *more]


def process(compiled: str, arguments: list[str]) -> subprocess.Popen[str]:
  """The command in a process of its own, on one device."""
  return subprocess.Popen(
    [sys.executable, "-m", "xjepa_jax.retrieval.embed", *arguments],
    cwd=ROOT,
    env={
      **os.environ,
      "XLA_FLAGS": "",
      "JAX_COMPILATION_CACHE_DIR": compiled,
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
      "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def test_rows_of_pairs_are_what_the_encoder_says_of_them(
  undisturbed: Path, pair_encoder: str, simulated: str
) -> None:
  files = open_embeddings(str(undisturbed))
  encoder = xjepa_jax.load_encoder(pair_encoder)
  with PairDataset(simulated, "test") as dataset:
    pairs = [dataset[number] for number in range(len(dataset))]
  for key in encoder.inputs:
    found = encoder.describe({key: np.stack([pair.observations[key].values for pair in pairs])})
    rows = [files.find(pair.pair_id, key) for pair in pairs]
    assert all(len(row) == 1 for row in rows)
    vectors = files.vectors_of([row[0] for row in rows])
    np.testing.assert_allclose(vectors, found, atol=2e-6)
    for row, pair in zip(files.take([row[0] for row in rows]), pairs, strict=True):
      assert row["sensor"] == key and tuple(row["labels"]) == pair.labels
      if np.isfinite(pair.longitude):
        assert row["centre_lon"] == pytest.approx(pair.longitude, abs=1e-4)
        assert row["centre_lat"] == pytest.approx(pair.latitude, abs=1e-4)
    images = TileImages(files.description, {k: g.sensor for k, g in encoder.inputs.items()})
    found_values = images.read(files.take(rows[3])[0])
    np.testing.assert_array_equal(found_values, pairs[3].observations[key].values)
    images.close()
  assert len(files) == 2 * 160


def test_three_processes_write_the_bytes_of_one(
  undisturbed: Path, pair_encoder: str, simulated: str, compiled: str, tmp_path: Path
) -> None:
  out = tmp_path / "embeddings"
  started = [
    process(
      compiled,
      command(pair_encoder, simulated, out, "--process", str(number), "--processes", "3"),
    )
    for number in range(3)
  ]
  said = [each.communicate(timeout=600)[0] for each in started]
  assert [each.returncode for each in started] == [0, 0, 0], said
  assert digests(out) == digests(undisturbed)


@pytest.mark.skipif(
  not HAS_BEAM, reason="Apache Beam is not installed, see tests/data/test_beam.py"
)
def test_shares_of_a_pipeline_write_the_bytes_of_one(
  undisturbed: Path, pair_encoder: str, simulated: str, tmp_path: Path
) -> None:
  out = tmp_path / "embeddings"
  shares = ("--processes", "3", "--beam=--runner=DirectRunner --direct_num_workers=2")
  assert main(command(pair_encoder, simulated, out, *shares)) == 0
  assert digests(out) == digests(undisturbed)


def test_kill_9_and_the_same_command_end_in_the_same_bytes(
  undisturbed: Path, pair_encoder: str, simulated: str, compiled: str, tmp_path: Path
) -> None:
  out = tmp_path / "embeddings"
  rng = np.random.default_rng(0)
  for wanted in (1, 7):
    running = process(compiled, command(pair_encoder, simulated, out))
    deadline = time.monotonic() + 300
    while len(list(out.glob("parts/*.parquet"))) < wanted and running.poll() is None:
      assert time.monotonic() < deadline
      time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.02))
    running.kill()
    running.communicate()
    assert not (out / "manifest.json").exists()
  kept = {path.name: path.stat().st_mtime_ns for path in out.glob("records/part-*.json")}
  last = process(compiled, command(pair_encoder, simulated, out))
  said = last.communicate(timeout=600)[0]
  assert last.returncode == 0, said
  assert digests(out) == digests(undisturbed)
  now = {path.name: path.stat().st_mtime_ns for path in out.glob("records/part-*.json")}
  assert kept.items() <= now.items()  # finished parts were not computed again


def test_a_descriptor_does_not_depend_on_what_else_is_in_the_batch(
  pair_encoder: str, simulated: str
) -> None:
  encoder = xjepa_jax.load_encoder(pair_encoder)
  key = next(iter(encoder.inputs))
  with PairDataset(simulated, "train") as dataset:
    values = np.stack([dataset[number].observations[key].values for number in range(32)])

  def start(values: np.ndarray) -> np.ndarray:
    return np.asarray(encoder.start({key: values}, trust_units=True, unseen="take"))

  whole = start(values)
  alone = np.zeros_like(values)
  alone[[5, 31]] = values[[5, 31]]
  np.testing.assert_array_equal(start(alone)[[5, 31]], whole[[5, 31]])
  np.testing.assert_array_equal(start(values[::-1])[::-1], whole)


SYSTEMS = {
  "utm": ("EPSG:32633", (10, 0, 4e5, 0, -10, 5e6)),
  "degrees": ("EPSG:4326", (1e-4, 0, 20.5, 0, -1e-4, 45)),
  "polar": ("EPSG:3413", (40, 0, -3e5, 0, -40, -6e5)),
  "antimeridian": ("EPSG:32601", (10, 0, 312250, 0, -10, 6.2e6)),
  "pole": ("EPSG:3031", (1000, 0, -8000, 0, -1000, 8000)),
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """Optical scenes of 40 x 56 pixels in five coordinate systems, the right half of each unseen."""
  import rasterio

  folder = tmp_path_factory.mktemp("scenes")
  rng = np.random.default_rng(0)
  for name, (crs, transform) in SYSTEMS.items():
    values = rng.integers(1, 3000, (3, 40, 56)).astype(np.uint16)
    values[:, :, 37:] = 0
    with rasterio.open(
      folder / f"{name}.tif", "w", driver="GTiff", height=40, width=56, count=3, dtype="uint16",
      crs=crs, transform=rasterio.Affine(*transform), nodata=0,
    ) as file:  # fmt: skip
      file.write(values)
  return folder


def test_tiles_of_scenes_in_any_system_lie_where_they_lie(
  scenes: Path, tile_encoder: str, compiled: str, tmp_path: Path
) -> None:
  import pyproj
  import rasterio.transform
  import shapely

  out = tmp_path / "out"
  given = command(tile_encoder, str(scenes), out, "--sensor", "optical", "--any-resolution")
  assert main(given) == 0
  files = open_embeddings(str(out))
  rows = files.take(np.arange(len(files)))
  # Three rows of tiles; of four columns the two on the right show nothing, or too little.
  assert len(rows) == 5 * 3 * 2
  encoder = xjepa_jax.load_encoder(tile_encoder)
  vectors = files.vectors()
  for row in rows:
    name = row["source"].removesuffix(".tif")
    crs, transform = SYSTEMS[name]
    window = row["window"]
    middle = (window["column"] + 8, window["row"] + 8)
    x, y = rasterio.transform.xy(rasterio.Affine(*transform), *middle[::-1], offset="ul")
    back = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
    there = back.transform(row["centre_lon"], row["centre_lat"])
    pixel = abs(transform[0])
    assert np.hypot(there[0] - x, there[1] - y) < pixel, row["id"]
    point, shape = shapely.from_wkb(row["geometry"]), shapely.from_wkb(row["footprint"])
    assert (point.x, point.y) == (row["centre_lon"], row["centre_lat"])
    assert shape.is_valid and shape.intersects(point)
    assert row["id"] == f"{name}_{window['row']}_{window['column']}"
    with rasterio.open(scenes / row["source"]) as file:
      values = np.moveaxis(file.read(), 0, -1)
    cut = values[window["row"] :, window["column"] :][:16, :16]
    assert row["valid_fraction"] == pytest.approx((cut > 0).any(-1).mean())
    found = encoder.describe({"optical": cut[None]})[0]
    np.testing.assert_allclose(vectors[row["row"]], found, atol=2e-6)
  images = TileImages(files.description, {k: g.sensor for k, g in encoder.inputs.items()})
  with rasterio.open(scenes / rows[7]["source"]) as file:
    window = rows[7]["window"]
    whole = np.moveaxis(file.read(), 0, -1)
  np.testing.assert_array_equal(
    images.read(rows[7]), whole[window["row"] :, window["column"] :][:16, :16]
  )
  images.close()
  kinds = {r["source"]: shapely.from_wkb(r["footprint"]).geom_type for r in rows}
  assert kinds["utm.tif"] == kinds["pole.tif"] == "Polygon"
  crossing = [shapely.from_wkb(r["footprint"]) for r in rows if r["source"] == "antimeridian.tif"]
  assert {shape.geom_type for shape in crossing} == {"Polygon", "MultiPolygon"}
  assert len((out / "skipped.csv").read_text().splitlines()) == 1 + 5 * 3 * 2


def test_a_scene_without_a_crs_is_embedded_without_a_place_if_that_is_wanted(
  tile_encoder: str, compiled: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  (tmp_path / "in").mkdir()
  np.save(tmp_path / "in" / "a.npy", np.full((16, 16, 3), 700, np.uint16))
  arguments = command(tile_encoder, str(tmp_path / "in"), tmp_path / "out", "--sensor", "optical")
  assert main(arguments) == 1
  assert "1 of 1 images have no coordinate reference system" in capsys.readouterr().err
  assert main([*arguments, "--no-geometry"]) == 0
  files = open_embeddings(str(tmp_path / "out"))
  assert len(files) == 1 and not files.description.georeferenced


def write_scene(folder: Path, values: np.ndarray) -> None:
  import rasterio

  folder.mkdir()
  with rasterio.open(
    folder / "a.tif", "w", driver="GTiff", height=values.shape[0], width=values.shape[1],
    count=values.shape[2], dtype=values.dtype, crs="EPSG:32633",
    transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6),
  ) as file:  # fmt: skip
    file.write(np.moveaxis(values, -1, 0))


def test_parts_that_do_not_stay_as_they_were_written_are_an_error(
  tile_encoder: str, compiled: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
  monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
  write_scene(tmp_path / "in", LAND)
  arguments = command(tile_encoder, str(tmp_path / "in"), tmp_path / "out", "--sensor", "optical")
  with monkeypatch.context() as patch:
    patch.setattr(Progress, "finished", lambda self, number: None)
    assert main(arguments) == 1
  assert "the same command" in capsys.readouterr().err
  assert not (tmp_path / "out" / "manifest.json").exists()
  assert main(arguments) == 0
  settings = json.loads((tmp_path / "out" / "records" / "settings.json").read_text())
  assert settings["platform"] == "cpu"


LAND = np.random.default_rng(0).integers(100, 2500, (16, 16, 3)).astype(np.uint16)
BACKSCATTER = np.random.default_rng(0).normal([-12, -19], 3, (16, 16, 2)).astype(np.float32)


@pytest.mark.parametrize(
  ("sensor", "values", "said"),
  [
    ("optical", LAND + np.uint16(1000), "seem to carry the .1000 of processing baseline 04.00"),
    ("optical", LAND[..., :2], "has 2 bands; expected the 3 of sensor 'optical'"),
    ("optical", LAND / np.float32(1e4), "none of 1 tiles of sensor .optical.*in reflectance x 1e4"),
    ("radar", 10 ** (BACKSCATTER / 10), "linear power or scaled bytes, expected dB"),
    ("radar", BACKSCATTER[..., ::-1], "seem to be in each other's place"),
  ],
)
def test_values_in_other_units_are_refused(
  tile_encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
  sensor: str, values: np.ndarray, said: str,
) -> None:  # fmt: skip
  import re

  write_scene(tmp_path / "in", values)
  out = tmp_path / "out"
  assert main(command(tile_encoder, str(tmp_path / "in"), out, "--sensor", sensor)) == 1
  printed = capsys.readouterr()
  assert re.search(said, printed.out + printed.err, re.DOTALL)
  assert not list(out.glob("parts/*"))


def test_an_offset_that_is_told_gives_the_same_rows_as_values_without_it(
  tile_encoder: str, compiled: str, tmp_path: Path
) -> None:
  found = []
  for number, (values, more) in enumerate(
    [(LAND, ()), (LAND + np.uint16(1000), ("--offset", "optical=-1000"))]
  ):
    write_scene(tmp_path / f"in{number}", values)
    out = tmp_path / f"out{number}"
    archive = str(tmp_path / f"in{number}")
    assert main(command(tile_encoder, archive, out, "--sensor", "optical", *more)) == 0
    found.append(open_embeddings(str(out)).vectors())
  np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize(
  ("more", "said"),
  [
    (("--head", "none"), "--head none: the encoder has layout, semantic"),
    (("--process", "1"), "--process and --processes belong together"),
    (("--process", "3", "--processes", "3"), "expected 0 <= process < processes"),
    (("--beam=--runner=DirectRunner",), "--beam: give --processes"),
    (("--min-valid", "2"), "--min-valid from 0 to 1"),
    (("--offset", "optical=much"), "--offset optical=much: expected a number"),
    (("--sensor", "sar"), "sensor 'sar': the encoder knows optical, radar"),
  ],
)
def test_options_that_cannot_be_are_refused(
  tile_encoder: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
  more: tuple[str, ...], said: str,
) -> None:  # fmt: skip
  named = () if "--sensor" in more else ("--sensor", "optical")
  assert main(command(tile_encoder, str(scenes), tmp_path / "out", *named, *more)) == 1
  assert said in capsys.readouterr().err


@pytest.mark.shared
def test_real_geotiffs_of_four_archives_are_embedded(real_embeddings: dict[str, str]) -> None:
  counts = {"bigearthnet": 6, "terramesh": 6 * 4, "sen12mscr": 4 * 9, "sen1floods11": 50}
  for name, count in counts.items():
    files = open_embeddings(real_embeddings[name])
    rows = files.take(np.arange(len(files)))
    assert len(rows) == count, name
    assert all(row["geometry"] and row["valid_fraction"] > 0.5 for row in rows)
    if name == "terramesh":  # the two sensors' scenes have one grid
      place = {(row["sensor"], row["id"]): row["footprint"] for row in rows}
      assert all(place["optical", id] == place["radar", id] for _, id in place)
