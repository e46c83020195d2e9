"""The tile at a place: by its outline, at the antimeridian too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.serve.archives import embeddings_at
from xjepa_jax.errors import SearchError
from xjepa_jax.retrieval.embedding.files import EmbeddingFiles
from xjepa_jax.retrieval.searching.places import row_at


def tile(west: float, south: float, size: float = 0.2) -> list[tuple[float, float]]:
  """A square's corners; east of 180 degrees it goes on at -180."""
  east = west + size if west + size <= 180 else west + size - 360
  return [(west, south), (east, south), (east, south + size), (west, south + size)]


@pytest.fixture
def files(tmp_path: Path) -> EmbeddingFiles:
  """A tile across the antimeridian, two beside it with a common edge, and a slanted one."""
  outlines = {
    "across": tile(179.9, 10.0),
    "west of it": tile(179.7, 10.0),
    "further west": tile(179.5, 10.0),
    "slanted": [(20.0, 0.0), (20.1, -0.1), (20.2, 0.0), (20.1, 0.1)],
  }
  return embeddings_at(outlines, str(tmp_path / "embeddings"))


def found(files: EmbeddingFiles, longitude: float, latitude: float) -> str:
  rows = np.arange(len(files))
  entries = files.take(rows)
  centres = (np.array([entry[name] for entry in entries]) for name in ("centre_lon", "centre_lat"))
  row = row_at(files, longitude, latitude, rows, *centres)
  return str(entries[row]["id"])


@pytest.mark.parametrize(
  ("longitude", "name"),
  [
    (179.95, "across"),
    (-179.95, "across"),
    (180.0, "across"),
    (-180.0, "across"),
    (179.85, "west of it"),
    (179.7, "west of it"),  # a common edge; their centres are equally far but for rounding
    (179.55, "further west"),
  ],
)
def test_the_tile_at_a_place_is_the_one_whose_outline_contains_it(
  files: EmbeddingFiles, longitude: float, name: str
) -> None:
  hits = {found(files, longitude + turn, 10.1) for turn in (0.0, -1e-12, 1e-12) if
          abs(longitude + turn) <= 180}  # fmt: skip
  assert name in hits and hits <= {name, "further west"}


@pytest.mark.parametrize(("longitude", "latitude"), [(-179.8, 10.1), (0.0, 10.1), (179.4, 10.1)])
def test_a_tile_across_the_antimeridian_does_not_reach_around_the_globe(
  files: EmbeddingFiles, longitude: float, latitude: float
) -> None:
  with pytest.raises(SearchError, match="no tile contains"):
    found(files, longitude, latitude)


def test_the_corner_of_a_slanted_tile_s_box_is_not_in_it(files: EmbeddingFiles) -> None:
  assert found(files, 20.1, 0.05) == "slanted"
  with pytest.raises(SearchError, match="no tile contains"):
    found(files, 20.01, 0.09)
