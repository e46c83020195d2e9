"""All back ends give the answers of a plain loop over the rows, whatever the filter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tests.retrieval.indexes import archive as archives
from xjepa_jax.errors import SearchError
from xjepa_jax.retrieval.embedding.files import EmbeddingFiles
from xjepa_jax.retrieval.indexes.base import Filter, Index

# Of the client without a server, which has neither indexes nor settings of a search.
pytestmark = pytest.mark.filterwarnings("ignore:.*ocal (Qdrant|mode)")
START = datetime(2020, 1, 1, tzinfo=UTC)
FILTERS = {
  "nothing": Filter(),
  "one sensor": Filter(sensors=("radar",)),
  "all sensors": Filter(sensors=("radar", "optical")),
  "a box": Filter(bbox=(-60.0, -30.0, 20.0, 45.0)),
  "a box through the centres of tiles": Filter(bbox=(12.0, 42.0, 15.0, 45.0)),
  "a box without area": Filter(bbox=(13.0, 43.0, 13.0, 43.0)),
  "the globe": Filter(bbox=(-180.0, -90.0, 180.0, 90.0)),
  "nearly the globe": Filter(bbox=(-179.5, -89.0, 179.5, 89.0)),
  "a box to a pole": Filter(bbox=(-20.0, 60.0, 40.0, 90.0)),
  "a box to the antimeridian": Filter(bbox=(170.0, -50.0, 180.0, 50.0)),
  "a box across the antimeridian": Filter(bbox=(170.0, -60.0, -170.0, 60.0)),
  "the rest of the globe": Filter(bbox=(20.0, -90.0, 10.0, 90.0)),
  "a box without rows": Filter(bbox=(100.0, 89.0, 101.0, 89.5)),
  "a time": Filter(time=(START + timedelta(days=100), START + timedelta(days=400))),
  "microseconds": Filter(
    time=(START + timedelta(microseconds=3), START + timedelta(microseconds=9))
  ),
  "from a time on": Filter(time=(START + timedelta(days=1200), None)),
  "until a time": Filter(time=(None, START + timedelta(microseconds=25))),
  "any time": Filter(time=(None, None)),
  "a time without rows": Filter(time=(START - timedelta(days=9), START)),
  "a label": Filter(labels=("water",)),
  "one of two labels": Filter(labels=("forest", archives.LABELS[3])),
  "a label of one row": Filter(labels=("rare",)),
  "a label of no row": Filter(labels=("lava",)),
  "everything": Filter(
    sensors=("optical",),
    bbox=(120.0, -80.0, -10.0, 80.0),
    time=(START + timedelta(days=50), START + timedelta(days=1400)),
    labels=("crops", "water"),
  ),
}


@pytest.fixture(scope="module")
def queries(archive: archives.Archive) -> np.ndarray:
  """Rows of the archive with noise."""
  rng = np.random.default_rng(1)
  found = archive.vectors[::300] + 0.3 * rng.standard_normal((5, 16), np.float32)
  return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("name", FILTERS)
def test_a_filtered_search_finds_what_a_loop_over_all_rows_finds(
  index: Index, archive: archives.Archive, queries: np.ndarray, name: str
) -> None:
  rows, scores = archives.answers(archive, queries, 10, FILTERS[name])
  hits = index.search(queries, 10, FILTERS[name])
  assert hits.rows.dtype == np.int64 and hits.scores.dtype == np.float32
  kind = index.settings().get("kind")
  coarse = kind in ("rabitq7", "sq8", "rabitq")  # ranks by rounded numbers
  graph = "ef" in index.settings() and not index.settings()["exact"]
  if coarse or graph:
    assert np.array_equal(hits.rows < 0, rows < 0)
    assert set(hits.rows[hits.rows >= 0]) <= set(archives.passing(archive, FILTERS[name]))
    found = sum(len(set(a) & set(b)) for a, b in zip(hits.rows, rows, strict=True))
    # Of uniform noise 7 bits a number leave .980 of the ten best, 8 bits .986 (`found`).
    least = 0.96 if kind == "rabitq7" else 0.98
    assert found >= least * sum(len(set(row)) for row in rows)
    scores = np.take_along_axis(queries @ archive.vectors.T, np.maximum(hits.rows, 0), axis=1)
    scores[hits.rows < 0] = -np.inf
  else:
    np.testing.assert_array_equal(hits.rows, rows)
  np.testing.assert_allclose(hits.scores, scores, atol=0.02 if coarse else 1e-5)


def test_the_filters_leave_all_some_fewer_than_k_and_no_rows(archive: archives.Archive) -> None:
  left = {name: len(archives.passing(archive, filter)) for name, filter in FILTERS.items()}
  assert left["nothing"] == len(archive.sensors) > left["the globe"] > left["nearly the globe"]
  assert left["the globe"] == np.isfinite(archive.longitude).sum()
  assert [name for name, rows in left.items() if rows == 0] == [
    "a box without rows",
    "a time without rows",
    "a label of no row",
  ]
  assert {left[name] for name in ("a box without area", "a label of one row")} == {1}
  assert 0 < left["microseconds"] < 10 and left["everything"] > 10


def test_k_may_be_more_than_there_are_rows(index: Index, queries: np.ndarray) -> None:
  hits = index.search(queries[:1], 1600)
  assert sorted(hits.rows[0]) == [-1] * 100 + list(range(1500))
  assert np.all(hits.scores[0, 1500:] == -np.inf) and np.all(np.diff(hits.scores[0, :1500]) <= 0)


def test_no_queries_no_hits(index: Index) -> None:
  assert index.search(np.zeros((0, 16), np.float32), 3).rows.shape == (0, 3)


def test_queries_that_cannot_be_answered_are_refused(index: Index, queries: np.ndarray) -> None:
  with pytest.raises(SearchError, match="16 numbers. Use the encoder"):
    index.search(queries[:, :8], 3)
  with pytest.raises(SearchError, match="not finite"):
    index.search(np.full((1, 16), np.nan, np.float32), 3)
  with pytest.raises(SearchError, match="k is 0"):
    index.search(queries, 0)
  with pytest.raises(SearchError, match="no row .* sensor 'thermal'; there are optical, radar"):
    index.search(queries, 3, Filter(sensors=("thermal",)))


def test_an_index_tells_its_rows_its_size_and_its_sensors(index: Index) -> None:
  assert (len(index), index.dimensions, index.sensors) == (1500, 16, ("optical", "radar"))


def test_rows_that_are_added_are_numbered_on(
  request: pytest.FixtureRequest,
  archive: archives.Archive,
  files: EmbeddingFiles,
  tmp_path_factory: pytest.TempPathFactory,
) -> None:
  more = archives.make(40, seed=5)
  added = archives.embeddings(more, str(tmp_path_factory.mktemp("more") / "embeddings"))
  from tests.retrieval.indexes.conftest import built, make

  for name in ("exact", "faiss", "qdrant", "qdrant client", "pgvector exact"):
    with built(make(name, request.getfixturevalue), added) as index:
      index.add(files)
      assert len(index) == 1540
      hits = index.search(np.stack([more.vectors[7], archive.vectors[700]]), 1)
      assert hits.rows.tolist() == [[7], [740]], name


@pytest.mark.parametrize(
  ("wrong", "match"),
  [
    ({"bbox": (0.0, 0.0, 200.0, 1.0)}, "longitudes from -180 to 180"),
    ({"bbox": (0.0, 5.0, 1.0, 4.0)}, "south <= north"),
    ({"bbox": (0.0, float("nan"), 1.0, 4.0)}, "expected west"),
    ({"time": (datetime(2020, 1, 1), None)}, "in which time zone"),
    ({"time": (START, START)}, "has to be later"),
  ],
)
def test_a_filter_that_cannot_be_meant_is_refused(wrong: dict, match: str) -> None:
  with pytest.raises(SearchError, match=match):
    Filter(**wrong)
