"""Which places a part of the map shows, against a loop over all tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from tests.serve.archives import embeddings_at
from xjepa_jax.retrieval.indexes.base import Box
from xjepa_jax.serve.archive import Archive
from xjepa_jax.serve.ground import Ground, place_numbers, spread


@pytest.mark.parametrize("box", [(0.0, -0.005, 0.006, 0.0), (-180, -90, 180, 90), (1, 1, 2, 2)])
def test_places_in_a_box_are_those_whose_outlines_touch_it(archive: Archive, box: Box) -> None:
  tiles = archive.tiles(range(len(archive.files)))
  area = shapely.box(*box)
  expected = {
    tile["id"] for tile in tiles if shapely.geometry.shape(tile["footprint"]).intersects(area)
  }
  view = archive.ground.view(box, 10_000)
  shown = [{tiles[row]["id"] for row in rows} for rows in view.places]
  assert all(len(ids) == 1 for ids in shown)
  assert set().union(*shown) == expected and view.count == len(expected)


def test_of_too_many_places_some_are_shown_and_all_counted(archive: Archive) -> None:
  view = archive.ground.view((-180, -90, 180, 90), 7)
  assert len(view.places) == 7 and view.count == len(archive.ground.places)


def test_a_box_across_the_antimeridian_has_its_west_east_of_its_east(archive: Archive) -> None:
  whole = archive.ground.view((-180, -90, 180, 90), 10_000).count
  assert archive.ground.view((170, -90, -170, 90), 10_000).count == 0
  assert archive.ground.view((-10, -90, -20, 90), 10_000).count == whole


WRANGEL = [(179.5, 71.0), (-179.9, 71.0), (-179.9, 71.3), (179.5, 71.3)]  # across it
POLE = [(0.0, 88.0), (90.0, 88.0), (180.0, 88.0), (-90.0, 88.0)]  # around it


@pytest.mark.parametrize(
  ("box", "seen"),
  [
    ((179.0, 70.0, 179.4, 72.0), []),
    ((179.0, 70.0, 179.6, 72.0), ["wrangel"]),
    ((-179.95, 70.0, -179.0, 72.0), ["wrangel"]),
    ((-179.8, 70.0, -179.0, 72.0), []),
    ((-30.0, 60.0, 30.0, 80.0), ["bergen"]),
    ((175.0, 60.0, -175.0, 80.0), ["wrangel"]),
    ((-120.0, 80.0, -110.0, 89.0), ["pole"]),
    ((-180.0, -90.0, 180.0, 90.0), ["wrangel", "bergen", "pole"]),
  ],
)
def test_a_tile_across_the_antimeridian_is_seen_at_its_ends_only(
  box: Box, seen: list[str], tmp_path: Path
) -> None:
  bergen = [(5.0, 60.2), (5.5, 60.2), (5.5, 60.6), (5.0, 60.6)]
  outlines = {"wrangel": WRANGEL, "bergen": bergen, "pole": POLE}
  files = embeddings_at(outlines, str(tmp_path / "embeddings"))
  ground = Ground(files)
  view = ground.view(box, 10)
  assert [files.take(rows)[0]["id"] for rows in view.places] == seen
  assert ground.bounds is not None and ground.bounds[::2] == (-180, 180)


def test_places_are_the_rows_of_each_id_in_the_order_of_its_first(archive: Archive) -> None:
  ids = [tile["id"] for tile in archive.tiles(range(len(archive.files)))]
  places = archive.ground.places
  expected = [[row for row, other in enumerate(ids) if other == id] for id in dict.fromkeys(ids)]
  assert [places.rows_of(np.array([number])).tolist() for number in range(len(places))] == expected
  assert places.rows_of(np.array([3, 1])).tolist() == sorted(expected[1] + expected[3])
  assert not any(isinstance(value, list) for value in vars(places).values())  # no object a place


def test_ids_may_have_more_bytes_than_a_column_of_strings_holds() -> None:
  wide = pa.array([f"{number:01048576d}" for number in range(128)])  # 128 MiB
  numbers = place_numbers([pa.chunked_array([wide])] * 17)  # 2.1 GiB
  assert len(numbers) == 17 * 128
  np.testing.assert_array_equal(numbers, np.arange(17 * 128) % 128)


@given(count=st.integers(1, 5000), most=st.integers(1, 200), turn=st.integers(0, 50))
def test_a_spread_is_rising_within_and_as_many_as_asked(count: int, most: int, turn: int) -> None:
  found = spread(count, most, turn)
  assert len(found) == min(count, most)
  assert (np.diff(found) > 0).all() and found[0] >= 0 and found[-1] < count
