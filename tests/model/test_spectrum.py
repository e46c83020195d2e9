"""The spectrum of cells against SciPy's transform, and the order in which it is kept."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import fft

from xjepa_jax.model import spectrum

SIDES = (1, 2, 5, 16)


def numbers(side: int) -> jax.Array:
  return jnp.asarray(np.random.default_rng(side).normal(size=(3, side**2, 4)), jnp.float32)


@pytest.mark.parametrize("side", SIDES)
def test_the_transform_is_scipys_and_its_inverse_gives_the_cells_back(side: int) -> None:
  cells = numbers(side)
  expected = fft.dctn(np.asarray(cells).reshape(3, side, side, 4), norm="ortho", axes=(1, 2))
  found = spectrum.transform(cells)
  np.testing.assert_allclose(found, expected.reshape(cells.shape), atol=1e-5)
  np.testing.assert_allclose(spectrum.inverse(found), cells, atol=1e-5)
  np.testing.assert_allclose(found[:, 0], side * cells.mean(axis=1), atol=1e-5)


@pytest.mark.parametrize("side", SIDES)
def test_scalar_products_are_those_of_the_cells(side: int) -> None:
  cells = numbers(side).reshape(3, -1)
  found = np.asarray(spectrum.transform(numbers(side))).reshape(3, -1)
  np.testing.assert_allclose(found @ found.T, cells @ cells.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", SIDES)
def test_every_ring_has_a_frequency_and_rings_rise_with_it(side: int) -> None:
  rings = spectrum.rings(side)
  assert rings.shape == (side**2,) and rings[0] == 0
  assert set(rings.tolist()) == set(range(spectrum.count_rings(side)))
  assert np.sum(rings == 0) == 1  # the constant is alone
  lengths = [row**2 + column**2 for row in range(side) for column in range(side)]
  assert (np.diff(rings[np.argsort(lengths, kind="stable")]) >= 0).all()
  np.testing.assert_array_equal(rings.reshape(side, side), rings.reshape(side, side).T)


def test_rings_of_four_by_four_cells_are_these() -> None:
  # 2.5 log2(1 + length), cut to whole numbers: 0; 2 of length 1; 3 of 1.41 and 2; 4 of 2.24 and
  # 2.83; 5 of 3 and more.
  assert spectrum.rings(4).reshape(4, 4).tolist() == [
    [0, 1, 2, 4],
    [1, 2, 3, 4],
    [2, 3, 3, 4],
    [4, 4, 4, 4],
  ]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("count", [1, 4])
def test_the_order_has_every_number_once_and_slow_ones_first(side: int, count: int) -> None:
  order = spectrum.order(side, count)
  assert sorted(order.tolist()) == list(range(side**2 * count))
  assert order[0] == 0  # the mean of every cell's first number
  place = np.argsort(order).reshape(side, side, count)
  assert (np.diff(place, axis=0) > 0).all() and (np.diff(place, axis=1) > 0).all()
  assert (np.diff(place, axis=2) > 0).all()


def test_the_first_of_the_order_are_these() -> None:
  # 1 + length of the frequency, times 1, 2.5, ... for a cell's first, second, ... number: the
  # constant's first is 1; (0, 1) and (1, 0) are 2; (1, 1) is 2.41; the constant's second is 2.5.
  places = [np.unravel_index(place, (4, 4, 2)) for place in spectrum.order(4, 2)[:5]]
  assert [tuple(map(int, place)) for place in places] == [
    (0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0), (0, 0, 1)
  ]  # fmt: skip
