"""Inputs: one grid of tokens for all sensors, or a refusal; patches in row-major order."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.model import reference
from xjepa_jax.errors import ConfigError
from xjepa_jax.model.inputs import SensorInput, patches, sensor_inputs
from xjepa_jax.sensors import Band, Sensor

FINE = Sensor("fine", (Band("a", 10.0), Band("b", 60.0)), "uint8", "counts")
COARSE = Sensor("coarse", (Band("a", 20.0),), "uint8", "counts")


def test_an_input_knows_its_grid_and_the_ground_of_a_patch() -> None:
  given = SensorInput(FINE, height=24, width=32, patch=8)
  assert (given.bands, given.grid, given.tokens) == (2, (3, 4), 12)
  assert given.metres == 80.0  # the image is on the grid of its finest band


def test_patches_of_a_coarser_sensor_cover_the_same_ground() -> None:
  sizes = {"fine": (24, 32), "coarse": (12, 16)}
  inputs = sensor_inputs({"fine": FINE, "coarse": COARSE}, sizes, 8)
  assert {key: given.patch for key, given in inputs.items()} == {"fine": 8, "coarse": 4}
  assert inputs["fine"].grid == inputs["coarse"].grid == (3, 4)
  assert inputs["fine"].metres == inputs["coarse"].metres == 80.0


@pytest.mark.parametrize(
  ("patch", "fine", "coarse", "named"),
  [
    (5, (24, 24), (24, 24), "'fine' are 24 x 24"),  # 24 is 4 x 6, but patches of 6 were not asked
    (8, (24, 20), (24, 20), "'fine' are 24 x 20"),
    (32, (24, 24), (24, 24), "'fine' are 24 x 24"),
    (8, (24, 24), (16, 16), "'coarse' are 16 x 16"),  # 3 patches of 5.33 pixels
    (8, (24, 24), (12, 24), "'coarse' are 12 x 24"),
    (4, (24, 24), (2, 2), "'coarse' are 2 x 2"),
  ],
)
def test_a_patch_that_does_not_divide_an_image_is_refused(
  patch: int, fine: tuple[int, int], coarse: tuple[int, int], named: str
) -> None:
  sizes = {"fine": fine, "coarse": coarse}
  with pytest.raises(ConfigError, match=rf"'model\.patch' is {patch}.*{re.escape(named)}"):
    sensor_inputs({"fine": FINE, "coarse": COARSE}, sizes, patch)


def test_patches_are_cut_row_by_row() -> None:
  image = np.arange(6 * 9 * 2).reshape(6, 9, 2)
  found = patches(image[None, None], 3)  # type: ignore[arg-type]
  assert found.shape == (1, 1, 6, 9, 2)
  np.testing.assert_array_equal(found[0, 0], reference.patches(image, 3))
