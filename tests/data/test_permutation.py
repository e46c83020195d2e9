"""The shuffle: a bijection, evenly spread, and the same for ever."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from xjepa_jax.data.permutation import permute

FIXED = settings(max_examples=200, deadline=None, derandomize=True)
LENGTHS = [1, 2, 3, 4, 5, 6, 7, 10, 100, 300, 10_000] + [
  2**power + off for power in (3, 4, 5, 8, 12, 15) for off in (-1, 0, 1)
]
KEYS = [0, 1, 2**63, 2**64 - 1, 0x9E3779B97F4A7C15]


def whole(length: int, key: int) -> np.ndarray:
  return permute(np.arange(length), length, key)


def reference(number: int, length: int, key: int) -> int:
  """The algorithm in plain integers: six Feistel rounds of SplitMix64, walked into the range."""
  word = 2**64 - 1

  def mix(value: int) -> int:
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & word
    value = (value ^ value >> 27) * 0x94D049BB133111EB & word
    return value ^ value >> 31

  bits = len(f"{max(length - 1, 1):b}")
  half = (bits + 1) // 2
  while True:
    left, right = divmod(number, 2**half)
    for turn in range(1, 7):
      round_key = mix((key + turn * 0x9E3779B97F4A7C15) & word)
      left, right = right, left ^ mix((right + round_key) & word) % 2**half
    number = left * 2**half + right
    if number < length:
      return number


@pytest.mark.parametrize("length", LENGTHS)
def test_every_number_is_reached_once(length: int) -> None:
  for key in KEYS:
    found = whole(length, key)
    assert found.dtype == np.int64 and found.shape == (length,)
    assert sorted(found.tolist()) == list(range(length))


@FIXED
@given(data=st.data(), length=st.integers(1, 2**40), key=st.integers(0, 2**64 - 1))
def test_each_value_equals_the_algorithm_in_plain_integers(
  data: st.DataObject, length: int, key: int
) -> None:
  numbers = data.draw(st.lists(st.integers(0, length - 1), max_size=5))
  found = permute(np.array(numbers, np.int64), length, key)
  assert found.tolist() == [reference(number, length, key) for number in numbers]


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 17, 64, 65, 300])
def test_whole_permutations_equal_the_algorithm_in_plain_integers(length: int) -> None:
  for key in KEYS:
    assert whole(length, key).tolist() == [reference(n, length, key) for n in range(length)]


def test_a_value_does_not_depend_on_what_else_is_asked_for() -> None:
  found = whole(1000, 42)
  chosen = np.array([999, 3, 3, 500, 0])
  assert permute(chosen, 1000, 42).tolist() == found[chosen].tolist()
  assert permute(np.array([], np.int64), 1000, 42).shape == (0,)
  assert chosen.tolist() == [999, 3, 3, 500, 0]  # the argument is left as it was


@pytest.mark.parametrize(
  ("length", "key", "expected"),
  [
    # Pinned: a run that is resumed with another version must see the same order.
    (10, 0, [4, 6, 9, 2, 1, 8, 5, 3, 0, 7]),
    (10, 2**64 - 1, [6, 1, 7, 8, 3, 4, 0, 9, 5, 2]),
    (17, 42, [8, 3, 9, 12, 2, 13, 14, 6, 5, 0, 1, 16, 10, 4, 11, 7, 15]),
  ],
)
def test_an_order_never_changes_between_versions(
  length: int, key: int, expected: list[int]
) -> None:
  assert whole(length, key).tolist() == expected


def test_an_order_of_a_large_data_set_never_changes_between_versions() -> None:
  numbers = np.array([0, 1, 2, 274_744, 549_487])
  assert permute(numbers, 549_488, 7).tolist() == [47423, 473835, 375379, 159878, 435961]
  assert permute(np.array([0, 1, 10**12 - 1]), 10**12, 7).tolist() == [
    427787012711,
    554008358103,
    731975477024,
  ]


@pytest.mark.parametrize("length", [2, 10, 300])
@pytest.mark.parametrize("spread", ["counted", "hashed"])
def test_a_pair_comes_at_every_place_equally_often(length: int, spread: str) -> None:
  drawn = np.random.default_rng(5).integers(0, 2**64, 2000, np.uint64)
  keys = list(range(2000)) if spread == "counted" else drawn.tolist()
  ends = np.array([0, length - 1])
  places = np.array([permute(ends, length, key) for key in keys])
  for column in places.T:
    assert stats.chisquare(np.bincount(column, minlength=length)).pvalue > 1e-4


def test_two_pairs_come_in_every_arrangement_equally_often() -> None:
  counts = np.zeros((10, 10))
  for key in range(3600):
    a, b = permute(np.array([0, 1]), 10, key)
    counts[a, b] += 1
  assert (np.diag(counts) == 0).all()
  assert stats.chisquare(counts[~np.eye(10, dtype=bool)]).pvalue > 1e-4


def test_every_order_of_four_pairs_occurs_equally_often() -> None:
  orders: dict[tuple[int, ...], int] = {}
  for key in range(2400):
    order = tuple(whole(4, key).tolist())
    orders[order] = orders.get(order, 0) + 1
  assert len(orders) == 24
  assert stats.chisquare(list(orders.values())).pvalue > 1e-4


@pytest.mark.parametrize("length", [1000, 1024, 10_000])
def test_neighbours_do_not_stay_together(length: int) -> None:
  for key in KEYS:
    found = whole(length, key)
    steps = np.diff(found)
    # In a random order each of the length - 1 neighbours stays one with probability 2 / length:
    # two are expected, and twelve come less than once in 100,000 orders.
    assert (np.abs(steps) == 1).sum() < 12
    assert abs(stats.spearmanr(np.arange(length), found).statistic) < 5 / np.sqrt(length)
    # No step is a favourite, as it would be with a linear rule.
    assert np.unique(steps, return_counts=True)[1].max() < 20


def test_a_number_that_stays_where_it_is_is_rare() -> None:
  still = [(whole(1000, key) == np.arange(1000)).sum() for key in range(200)]
  # Of a random permutation, one number on average stays; the mean of 200 has deviation 0.07.
  assert abs(np.mean(still) - 1) < 0.35
