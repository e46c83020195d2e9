"""Stored descriptors: quantisation, a directory read back, other readers, and damage."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from xjepa_jax.errors import EmbeddingError
from xjepa_jax.retrieval.embedding import wkb
from xjepa_jax.retrieval.embedding.description import EmbeddingDescription
from xjepa_jax.retrieval.embedding.files import EmbeddingFiles, open_embeddings, table_vectors
from xjepa_jax.retrieval.embedding.manifest import digest, manifest_bytes
from xjepa_jax.retrieval.embedding.quantisation import quantise, restore
from xjepa_jax.retrieval.embedding.rows import Rows, part_table
from xjepa_jax.retrieval.embedding.writing import write_embeddings

ROWS, SIZE = 5000, 24  # more than a group of rows
NOON = datetime.datetime(2021, 7, 1, 12, tzinfo=datetime.UTC)
floats = npst.arrays(np.float32, (7, 5), elements=st.floats(-1, 1, width=32))


@given(floats)
def test_int8_is_off_by_at_most_half_a_step(vectors: np.ndarray) -> None:
  stored, scale = quantise(vectors, "int8")
  assert stored.dtype == np.int8 and scale is not None
  assert np.abs(stored).max() <= 127
  error = np.abs(stored * scale[:, None] - vectors)
  assert (error <= scale[:, None] * 0.5001).all()


@pytest.mark.parametrize("quantisation", ["float32", "float16", "int8"])
def test_restored_vectors_have_length_1_and_zeros_stay(quantisation: str) -> None:
  vectors = np.random.default_rng(0).standard_normal((9, 64)).astype(np.float32)
  vectors[4] = 0
  found = restore(*quantise(vectors, quantisation))
  assert np.linalg.norm(found, axis=1)[[0, 8]] == pytest.approx(1, abs=1e-6)
  assert not found[4].any()


def rows(number: int, count: int = ROWS, located: bool = True) -> Rows:
  rng = np.random.default_rng(number)
  vectors = rng.standard_normal((count, SIZE)).astype(np.float32)
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  longitude, latitude = rng.uniform(-179, 179, count), rng.uniform(-80, 80, count)
  low, high = np.stack([longitude, latitude], 1) - 0.01, np.stack([longitude, latitude], 1) + 0.01
  west, south, east, north = low[:, 0], low[:, 1], high[:, 0], high[:, 1]
  ring = np.stack(
    [np.stack(p, 1) for p in ((west, south), (east, south), (east, north), (west, north),
                              (west, south))], 1,
  )  # fmt: skip
  return Rows(
    ids=[f"{number}_{i}" for i in range(count)],
    sensors=["radar" if i % 2 else "optical" for i in range(count)],
    sources=[f"scene{i // 100}.tif" for i in range(count)],
    vectors=vectors,
    longitude=longitude if located else np.full(count, np.nan),
    latitude=latitude if located else np.full(count, np.nan),
    footprints=wkb.polygons(ring) if located else None,
    boxes=np.concatenate([low, high], 1) if located else None,
    windows=np.tile(np.array([16, 32, 64, 48], np.int32), (count, 1)),
    valid_fraction=np.full(count, 0.75),
    times=[NOON + datetime.timedelta(days=i) if i % 3 else None for i in range(count)],
    labels=[["water", "forest"][: i % 3] for i in range(count)],
  )


def write(directory: Path, quantisation: str = "float16", located: bool = True) -> np.ndarray:
  both = [rows(0, located=located), rows(1, located=located)]
  description = EmbeddingDescription(
    {"name": "e", "sha256": "0", "head": "layout"}, SIZE, quantisation, ("optical", "radar"),
    {"kind": "images", "path": "scenes"}, 2 * ROWS, located,
  )  # fmt: skip
  about = {"model": "e", "quantisation": quantisation}
  write_embeddings(
    str(directory), description, (part_table(each, quantisation, located, about) for each in both)
  )
  return np.concatenate([each.vectors for each in both])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
  directory = tmp_path_factory.mktemp("stored") / "embeddings"
  return directory, write(directory)


@pytest.fixture
def files(written: tuple[Path, np.ndarray]) -> EmbeddingFiles:
  return open_embeddings(str(written[0]))


@pytest.mark.parametrize(("kind", "off"), [("float32", 1e-7), ("float16", 3e-4), ("int8", 5e-3)])
def test_vectors_come_back(tmp_path: Path, kind: str, off: float) -> None:
  vectors = write(tmp_path / "out", kind)
  files = open_embeddings(str(tmp_path / "out"))
  assert len(files) == 2 * ROWS
  np.testing.assert_allclose(files.vectors(), vectors, atol=off)
  tables = list(files.tables(rows=700))
  assert max(len(table) for table in tables) <= 700
  np.testing.assert_array_equal(np.concatenate([table_vectors(t) for t in tables]), files.vectors())


def test_rows_are_taken_by_number_in_any_order(files: EmbeddingFiles) -> None:
  numbers = [2 * ROWS - 1, 0, ROWS, 4321, 0]
  found = files.take(numbers)
  assert [row["id"] for row in found] == ["1_4999", "0_0", "1_0", "0_4321", "0_0"]
  assert [row["row"] for row in found] == numbers
  assert found[3]["datetime"] == NOON + datetime.timedelta(days=4321)
  assert found[3]["timestamp"] == found[3]["datetime"] and found[1]["datetime"] is None
  assert found[3]["window"] == {"column": 16, "row": 32, "width": 64, "height": 48}
  assert found[3]["labels"] == ["water"] and "embedding" not in found[3]
  np.testing.assert_array_equal(files.vectors_of(numbers), files.vectors()[numbers])
  with pytest.raises(IndexError, match="row 10000 of 10000"):
    files.take([2 * ROWS])


def test_rows_are_found_by_id(files: EmbeddingFiles) -> None:
  assert files.find("1_7") == [ROWS + 7] == files.find("1_7", "radar")
  assert files.find("1_7", "optical") == files.find("nothing") == []


def test_geopandas_reads_both_geometries_and_filters_by_the_covering(
  written: tuple[Path, np.ndarray],
) -> None:
  geopandas = pytest.importorskip("geopandas")
  frame = geopandas.read_parquet(written[0] / "parts")
  assert len(frame) == 2 * ROWS and frame.crs == "EPSG:4326"
  assert frame.geometry.geom_type.unique().tolist() == ["Point"]
  assert frame.footprint.geom_type.unique().tolist() == ["Polygon"]
  assert frame.footprint.contains(frame.geometry).all()
  box = (0, 0, 20, 20)
  near = geopandas.read_parquet(written[0] / "parts", bbox=box)
  west, south, east, north = (frame.footprint.bounds[name] for name in
                              ("minx", "miny", "maxx", "maxy"))  # fmt: skip
  expected = (east >= 0) & (west <= 20) & (north >= 0) & (south <= 20)
  assert set(near.id) == set(frame.id[expected])


def test_what_torchgeo_asks_of_a_row_is_there(written: tuple[Path, np.ndarray]) -> None:
  # EarthIndexEmbeddings, MajorTOMEmbeddings and ClayEmbeddings of TorchGeo 0.9, which needs a
  # newer Python and PyTorch than these tests: what their __getitem__ does, spelled out.
  geopandas = pytest.importorskip("geopandas")
  pandas = pytest.importorskip("pandas")
  row = geopandas.read_parquet(written[0] / "parts").iloc[1]
  assert np.asarray(row["embedding"]).shape == (SIZE,)
  assert (row["geometry"].x, row["geometry"].y) == (row["centre_lon"], row["centre_lat"])
  assert row["geometry"].centroid.x == row["geometry"].x
  for key in ("timestamp", "datetime"):
    assert pandas.Timestamp(row[key]).timestamp() == (NOON + datetime.timedelta(1)).timestamp()


def test_duckdb_reads_vectors_structs_and_lists(written: tuple[Path, np.ndarray]) -> None:
  duckdb = pytest.importorskip("duckdb")
  rows_ = duckdb.sql(
    f"""select id, embedding, bbox.xmin, "window".width, labels, datetime, geometry::varchar
    from '{written[0]}/parts/*.parquet' where sensor = 'radar' and bbox.xmin > 0 order by id"""
  ).fetchall()
  by_id = {f"{p}_{i}": (p, i) for p in range(2) for i in range(ROWS)}
  assert rows_ and all(by_id[row[0]][1] % 2 for row in rows_)
  part, number = by_id[rows_[0][0]]
  np.testing.assert_allclose(rows_[0][1], written[1][part * ROWS + number], atol=3e-4)
  assert rows_[0][3] == 64 and rows_[0][6].startswith("POINT (")


def test_a_directory_without_places_is_the_same_without_geometry(tmp_path: Path) -> None:
  write(tmp_path / "out", located=False)
  files = open_embeddings(str(tmp_path / "out"))
  assert not files.description.georeferenced
  row = files.take([3])[0]
  assert "geometry" not in row and row["centre_lat"] is None and row["sensor"] == "radar"


def test_key_value_metadata_says_what_made_it(written: tuple[Path, np.ndarray]) -> None:
  table = next(open_embeddings(str(written[0])).tables(10))
  metadata = table.schema.metadata
  assert metadata[b"model"] == b"e" and metadata[b"quantisation"] == b"float16"
  geo = json.loads(metadata[b"geo"])
  assert geo["version"] == "1.1.0" and geo["primary_column"] == "geometry"
  assert geo["columns"]["footprint"]["geometry_types"] == ["Polygon"]


def test_a_flipped_bit_in_any_file_is_refused_by_its_name(tmp_path: Path) -> None:
  write(tmp_path / "out")
  names = [str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")]
  rng = np.random.default_rng(0)
  for name in names:
    if name == "manifest.json":
      continue
    path = tmp_path / "out" / name
    whole = path.read_bytes()
    for _ in range(8):
      bits = bytearray(whole)
      bits[rng.integers(len(bits))] ^= 1 << int(rng.integers(8))
      path.write_bytes(bits)
      with pytest.raises(EmbeddingError, match=name):
        open_embeddings(str(tmp_path / "out"))
    path.write_bytes(whole)
  open_embeddings(str(tmp_path / "out"))


def test_a_page_damaged_after_the_check_is_noticed_when_it_is_read(tmp_path: Path) -> None:
  write(tmp_path / "out", "float32")
  path = tmp_path / "out" / "parts" / "part-00001.parquet"
  whole = path.read_bytes()
  for at in range(1000, len(whole) - 5000, len(whole) // 20):
    bits = bytearray(whole)
    bits[at] ^= 4
    path.write_bytes(bits)
    with pytest.raises(EmbeddingError, match="part-00001"):
      _reopened(tmp_path / "out", path)


def _reopened(directory: Path, damaged: Path) -> Any:
  """Reads everything, with a manifest that was made after the damage."""
  named = [*directory.glob("parts/*.parquet"), directory / "description.json"]
  files = {str(p.relative_to(directory)): digest(p.read_bytes()) for p in named}
  (directory / "manifest.json").write_bytes(manifest_bytes(files))
  files_ = open_embeddings(str(directory))
  return [table.num_rows for table in files_.tables()], damaged


def test_what_is_unfinished_or_no_embeddings_is_refused(tmp_path: Path) -> None:
  with pytest.raises(EmbeddingError, match="there is no such directory"):
    open_embeddings(f"{tmp_path}/nowhere")
  with pytest.raises(EmbeddingError, match="has no manifest.json"):
    open_embeddings(str(tmp_path))
  write(tmp_path / "out")
  path = tmp_path / "out" / "description.json"
  for changed, said in (
    ({"format": "another"}, "format 'another', expected"),
    ({"count": 3}, "hold 10000 rows, description.json says 3"),
    ({"dimensions": 12}, "columns are not those"),
    ({"more": 1}, "is no description"),
  ):
    whole = path.read_text()
    path.write_text(json.dumps({**json.loads(whole), **changed}))
    with pytest.raises(EmbeddingError, match=said):
      _reopened(tmp_path / "out", path)
    path.write_text(whole)
  assert os.path.exists(path)
