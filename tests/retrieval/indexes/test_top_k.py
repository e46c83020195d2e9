"""The exact search on a mesh: the ranking of a full sort, ties too, however the archive is cut."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from tests.retrieval.indexes import archive as archives
from xjepa_jax.retrieval import ranking
from xjepa_jax.retrieval.embedding.files import EmbeddingFiles
from xjepa_jax.retrieval.indexes import top_k
from xjepa_jax.retrieval.indexes.exact import ExactIndex
from xjepa_jax.training.mesh import make_mesh


@pytest.mark.parametrize(
  ("rows", "queries", "k", "block"),
  [
    (5000, 9, 7, 128),  # several blocks a device, groups in a block fewer than k
    (5000, 16, 2, 256),  # groups are chosen among
    (900, 3, 5, 1 << 13),  # one block
    (5, 8, 5, 64),  # most devices hold padding only
  ],
)
def test_rows_and_ties_are_those_of_a_full_sort(
  rows: int, queries: int, k: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(top_k, "_BLOCK", {"cpu": block})
  rng = np.random.default_rng(rows)
  # Whole numbers: products are exact, and there are many ties.
  archive = rng.integers(-2, 3, (rows, 6)).astype(np.float32)
  asked = rng.integers(-2, 3, (queries, 6)).astype(np.float32)
  allowed = rng.random(rows) < 0.7
  allowed[:1] = True
  mesh = make_mesh(fsdp=4, replica=2)
  top_k.searcher.cache_clear()
  search = top_k.searcher(mesh, k, 1.0)
  placed = top_k.place(archive, mesh)
  scores, found = search(placed, top_k.place(allowed, mesh), jax.numpy.asarray(asked))

  left = np.flatnonzero(allowed)
  most = min(k, len(left))
  expected, expected_scores = ranking.top(asked, archive[left], most)
  np.testing.assert_array_equal(np.asarray(found)[:, :most], left[expected])
  np.testing.assert_array_equal(np.asarray(scores)[:, :most], expected_scores)
  assert np.all(np.asarray(scores)[:, most:] == -np.inf)


def test_every_device_holds_its_share_and_no_process_reads_more() -> None:
  mesh = make_mesh()
  placed = top_k.place(np.ones((1000, 4), np.float32), mesh)
  assert {shard.data.shape for shard in placed.addressable_shards} == {(128, 4)}
  assert float(placed.sum()) == 4000.0  # the rest is padding


def test_one_device_and_eight_answer_alike() -> None:
  rng = np.random.default_rng(0)
  archive = rng.standard_normal((700, 8), np.float32)
  answers = []
  for mesh in (make_mesh(), Mesh(np.array(jax.devices()[:1]), ("rows",))):
    placed, all_rows = top_k.place(archive, mesh), top_k.place(np.ones(700, bool), mesh)
    _, rows = top_k.searcher(mesh, 3, 1.0)(placed, all_rows, jax.numpy.asarray(archive[:2]))
    answers.append(np.asarray(rows))
  np.testing.assert_array_equal(answers[0], answers[1])


def test_programs_are_compiled_for_a_few_numbers_of_hits_only(
  archive: archives.Archive, files: EmbeddingFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
  asked, searcher = [], top_k.searcher

  def counted(mesh: Mesh, k: int, recall: float) -> Any:
    asked.append(k)
    return searcher(mesh, k, recall)

  monkeypatch.setattr(top_k, "searcher", counted)
  index = ExactIndex()
  index.build(files)
  for k in (5, 6, 7, 8, 1400, 1500, 2000):
    hits = index.search(archive.vectors[:2], k)
    rows, scores = archives.answers(archive, archive.vectors[:2], k, archives.Filter())
    np.testing.assert_array_equal(hits.rows, rows)
    np.testing.assert_allclose(hits.scores, scores, atol=1e-5)
  assert asked == [8, 8, 8, 8, 1500, 1500, 1500]
