"""Which places a part of the map shows, against a loop over all tiles."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from xjepa_jax.retrieval.indexes.base import Box
from xjepa_jax.serve.archive import Archive
from xjepa_jax.serve.ground import spread


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
  assert len(view.places) == 7 and view.count == len(archive.ground.places())


def test_a_box_across_the_antimeridian_has_its_west_east_of_its_east(archive: Archive) -> None:
  whole = archive.ground.view((-180, -90, 180, 90), 10_000).count
  assert archive.ground.view((170, -90, -170, 90), 10_000).count == 0
  assert archive.ground.view((-10, -90, -20, 90), 10_000).count == whole


@given(count=st.integers(1, 5000), most=st.integers(1, 200), turn=st.integers(0, 50))
def test_a_spread_is_rising_within_and_as_many_as_asked(count: int, most: int, turn: int) -> None:
  found = spread(count, most, turn)
  assert len(found) == min(count, most)
  assert (np.diff(found) > 0).all() and found[0] >= 0 and found[-1] < count
