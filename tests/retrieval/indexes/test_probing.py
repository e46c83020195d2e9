"""Lists are looked at until the neighbours of another sensor are found too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.retrieval.indexes import archive as archives
from xjepa_jax.retrieval.embedding.files import EmbeddingFiles, open_embeddings
from xjepa_jax.retrieval.indexes.backends import make_index
from xjepa_jax.retrieval.indexes.base import Filter
from xjepa_jax.retrieval.indexes.directory import build_index, open_index
from xjepa_jax.retrieval.indexes.probing import neighbours

COUNT, SIZE = 8000, 64


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
  # One bit a number is coarse where there are 64 numbers: more are ranked again.
  settings = {"kind": kind, "flat_below": 0, "lists": 64, "refine": 250}
  build_index(files, str(tmp_path / "index"), "faiss", settings)
  index = open_index(str(tmp_path / "index"))
  kept = index.settings()
  assert set(kept["recalls"]) == {"all", "radar->optical", "optical->radar"}
  assert kept["found"] == min(kept["recalls"].values()) >= 0.98
  assert 1 < kept["nprobe"] < 64
  rows = np.random.default_rng(8).choice(COUNT, 1000, replace=False)
  recalls = []
  for a, b in (archives.SENSORS, archives.SENSORS[::-1]):
    asked = rows[[archive.sensors[row] == a for row in rows]]
    passing = Filter(sensors=(b,))
    truth, _ = archives.answers(archive, archive.vectors[asked], 10, passing)
    found = index.search(archive.vectors[asked], 10, passing).rows
    recalls.append(np.mean([len(set(x) & set(y)) / 10 for x, y in zip(truth, found, strict=True)]))
  index.close()
  assert min(recalls) >= 0.98, recalls


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
