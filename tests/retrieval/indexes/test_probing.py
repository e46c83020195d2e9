"""Lists are looked at until the neighbours of another sensor are found too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.retrieval.indexes import archive as archives
from xjepa_jax.retrieval.embedding.files import EmbeddingFiles, open_embeddings
from xjepa_jax.retrieval.indexes.backends import make_index
from xjepa_jax.retrieval.indexes.base import Filter, Index
from xjepa_jax.retrieval.indexes.directory import build_index, open_index
from xjepa_jax.retrieval.indexes.probing import neighbours

COUNT, SIZE = 4800, 128


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> tuple[archives.Archive, EmbeddingFiles]:
  """Scenes of ten factors, by two sensors that see them askew and lie apart (a modality gap)."""
  rng = np.random.default_rng(3)
  archive = archives.make(COUNT, SIZE)
  scenes = rng.standard_normal((COUNT // 2, 10))
  seen = rng.standard_normal((10, SIZE))
  for number in range(2):
    askew = seen + 1.0 * rng.standard_normal(seen.shape)
    vectors = scenes @ askew + 4.0 * rng.standard_normal(SIZE)
    vectors += 0.3 * rng.standard_normal(vectors.shape)
    archive.vectors[number::2] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  directory = str(tmp_path_factory.mktemp("apart") / "embeddings")
  return archive, archives.embeddings(archive, directory)


@pytest.mark.parametrize("kind", ["sq8", "rabitq"])
def test_the_nearest_of_the_other_sensor_are_found_across_a_gap(
  kind: str, apart: tuple[archives.Archive, EmbeddingFiles], tmp_path: Path
) -> None:
  pytest.importorskip("faiss")
  archive, files = apart
  settings = {"kind": kind, "flat_below": 0, "lists": 64}
  build_index(files, str(tmp_path / "index"), "faiss", settings)
  index = open_index(str(tmp_path / "index"))
  kept = index.settings()
  assert set(kept["recalls"]) == {"all", "radar->optical", "optical->radar"}
  assert kept["found"] == min(kept["recalls"].values()) >= 0.98
  assert 1 < kept["nprobe"] < 64
  assert (kept["refine"] > 1) == (kind == "rabitq") and kept["refine"] < 160
  found = across(index, archive)
  index.close()
  assert min(found) >= 0.98, found


def test_numbers_too_coarse_for_a_gap_find_what_the_index_says_they_find(
  apart: tuple[archives.Archive, EmbeddingFiles],
) -> None:
  pytest.importorskip("faiss")
  archive, files = apart
  index = make_index("faiss", {"kind": "rabitq7", "flat_below": 0, "lists": 64})
  index.build(files)
  kept, found = index.settings(), across(index, archive)
  index.close()
  assert kept["found"] == min(kept["recalls"].values()) < 0.98 < kept["recalls"]["all"]
  assert 1 < kept["nprobe"] < 64 and kept["refine"] == 1
  assert min(found) == pytest.approx(kept["found"], abs=0.01)


def across(index: Index, archive: archives.Archive) -> list[float]:
  """The recall of rows of each sensor among those of the other."""
  rows = np.random.default_rng(8).choice(COUNT, 1000, replace=False)
  recalls = []
  for a, b in (archives.SENSORS, archives.SENSORS[::-1]):
    asked = rows[[archive.sensors[row] == a for row in rows]]
    passing = Filter(sensors=(b,))
    truth, _ = archives.answers(archive, archive.vectors[asked], 10, passing)
    found = index.search(archive.vectors[asked], 10, passing).rows
    hits = [len(set(x) & set(y)) / 10 for x, y in zip(truth, found, strict=True)]
    recalls.append(float(np.mean(hits)))
  return recalls


@pytest.mark.parametrize("kind", ["rabitq7", "sq8", "rabitq"])
def test_rows_that_are_added_to_a_loaded_index_are_found_as_if_built_with_it(
  kind: str, apart: tuple[archives.Archive, EmbeddingFiles], tmp_path: Path
) -> None:
  pytest.importorskip("faiss")
  _, files = apart
  settings = {"kind": kind, "flat_below": 0, "lists": 32, "nprobe": 32, "refine": 50}
  index = make_index("faiss", settings)
  index.build(files)
  index.save(str(tmp_path))
  loaded = make_index("faiss", index.settings())
  loaded.load(str(tmp_path))
  for each in (index, loaded):
    each.add(files)
  queries = files.vectors_of(range(0, COUNT, 800))
  one, other = index.search(queries, 4), loaded.search(queries, 4)
  np.testing.assert_array_equal(one.rows, other.rows)
  assert (np.sort(one.rows[:, :2] % COUNT) == np.arange(0, COUNT, 800)[:, None]).all()
  assert (one.rows[:, :2].max(axis=1) >= COUNT).all() and len(loaded) == 2 * COUNT


def test_neighbours_of_each_sensor_are_those_of_a_plain_sort(
  archive: archives.Archive, files: EmbeddingFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr("xjepa_jax.retrieval.indexes.probing._BLOCK", 97)  # sensors end anywhere
  of = {key: np.array([each == key for each in archive.sensors]) for key in archives.SENSORS}
  of["radar"] = of["radar"] & (np.arange(1500) < 8)  # four rows
  own = np.array([0, 3, 4, 1498, 1499])
  found = neighbours(files, archive.vectors[own], own, of)
  for key, mask in of.items():
    scores, rows = found[key]
    assert scores.shape == rows.shape == (5, 10)
    for query, row in enumerate(own):
      products = archive.vectors @ archive.vectors[row]
      others = [int(at) for at in np.argsort(-products) if mask[at] and at != row][:10]
      assert rows[query].tolist() == others + [-1] * (10 - len(others))
      np.testing.assert_allclose(scores[query, : len(others)], products[others], atol=1e-6)


def test_the_search_is_measured_with_the_lists_that_a_filter_gets(
  apart: tuple[archives.Archive, EmbeddingFiles],
) -> None:
  pytest.importorskip("faiss")
  _, files = apart
  index = make_index("faiss", {"flat_below": 0, "lists": 64, "nprobe": 5})
  index.build(files)  # as asked for: nothing is measured
  assert (index.settings()["nprobe"], index.settings()["recalls"]) == (5, {})
  assert open_embeddings(files.directory).fingerprint == files.fingerprint
  index.close()
