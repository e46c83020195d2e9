"""Real archives give the same hits from all back ends.

With the settings that they have by default, which search such archives exactly, and with settings
that make them approximate.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.retrieval.indexes.conftest import APPROXIMATE, built, make
from xjepa_jax.retrieval.embedding.files import open_embeddings
from xjepa_jax.retrieval.indexes.base import Filter


@pytest.mark.shared
@pytest.mark.parametrize("backend", ["faiss", "qdrant", "pgvector", *APPROXIMATE])
@pytest.mark.parametrize(
  "name", ["ombria", "bigearthnet", "terramesh", "sen12mscr", "sen1floods11"]
)
def test_every_back_end_finds_what_exact_search_finds_in_all_directions(
  name: str, backend: str, real_embeddings: dict[str, str], request: pytest.FixtureRequest
) -> None:
  files = open_embeddings(real_embeddings[name])
  queries = files.vectors_of(np.arange(len(files)))
  with (
    built(make("exact", request.getfixturevalue), files) as exact,
    built(make(backend, request.getfixturevalue), files) as index,
  ):
    approximate, settings = backend in APPROXIMATE, index.settings()
    if backend.startswith("faiss"):
      assert (settings["kind"] == "flat") != approximate
    # Where stored numbers are too coarse for an archive, the index says how many it finds.
    share = min(0.98, settings["found"]) if backend.startswith("faiss") and approximate else 0.98
    assert share >= 0.9
    for sensor in files.description.sensors:
      passing = Filter(sensors=(sensor,))
      truth, found = exact.search(queries, 10, passing), index.search(queries, 10, passing)
      asked = truth.rows >= 0
      np.testing.assert_array_equal(found.rows >= 0, asked)
      hits = sum(len(set(a[a >= 0]) & set(b)) for a, b in zip(truth.rows, found.rows, strict=True))
      assert hits >= (share - (0.01 if approximate else 0)) * asked.sum()
      close = 0.02 if approximate else 1e-3
      np.testing.assert_allclose(found.scores[asked], truth.scores[asked], atol=close)
