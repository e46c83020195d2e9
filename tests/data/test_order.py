"""The order of pairs: a global shuffle, epochs, mixtures, and nothing but arithmetic."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from xjepa_jax.data.order import Order
from xjepa_jax.errors import DatasetError


def test_every_epoch_has_every_pair_once() -> None:
  order = Order([37])
  _, numbers = order.places(np.arange(5 * 37))
  for epoch in numbers.reshape(5, 37):
    assert sorted(epoch) == list(range(37))


def test_epochs_and_seeds_are_shuffled_differently() -> None:
  _, numbers = Order([1000], seed=0).places(np.arange(3000))
  _, others = Order([1000], seed=1).places(np.arange(3000))
  # Seed 1's first epoch must not be seed 0's second, as it is where seed and epoch are added.
  epochs = [*numbers.reshape(3, 1000), *others.reshape(3, 1000)]
  for i, one in enumerate(epochs):
    for other in epochs[:i]:
      assert (one == other).mean() < 0.02


def test_a_place_depends_on_its_position_alone() -> None:
  order = Order([100, 50, 7], weights=[0.5, 0.3, 0.2], seed=3)
  datasets, numbers = order.places(np.arange(2500))
  for position in (0, 1, 99, 100, 1000, 2499):
    dataset, number = order.places(np.array([position]))
    assert (dataset[0], number[0]) == (datasets[position], numbers[position])


def test_without_shuffle_the_order_is_that_of_the_data_set() -> None:
  _, numbers = Order([5], shuffle=False).places(np.arange(12))
  assert list(numbers) == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


def test_a_mixture_keeps_its_weights_in_every_stretch_and_its_epochs() -> None:
  weights = [0.7, 0.2, 0.1]
  datasets, numbers = Order([10, 4000, 30], weights).places(np.arange(5000))
  for start in range(0, 5000, 250):
    counts = Counter(datasets[start : start + 250].tolist())
    for dataset, weight in enumerate(weights):
      assert abs(counts[dataset] - 250 * weight) <= 2
  for dataset, length in enumerate([10, 4000, 30]):
    own = numbers[datasets == dataset]
    for epoch in range(len(own) // length):
      assert sorted(own[epoch * length : (epoch + 1) * length]) == list(range(length))


def test_without_weights_each_data_set_gets_its_share_by_size() -> None:
  datasets, _ = Order([300, 100]).places(np.arange(4000))
  assert Counter(datasets.tolist()) == {0: 3000, 1: 1000}


def test_ten_billion_positions_on_the_order_is_the_same_arithmetic() -> None:
  order = Order([549_488])
  _, numbers = order.places(10**10 + np.arange(1000))
  assert numbers.min() >= 0 and numbers.max() < 549_488 and len(set(numbers.tolist())) == 1000


@pytest.mark.parametrize(
  ("lengths", "weights", "complaint"),
  [
    ([3, 0], None, "an empty one"),
    ([3, 3], [1.0], "1 weights for 2"),
    ([3, 3], [1.0, 0.0], "above 0"),
    ([3, 3], [1.0, float("nan")], "above 0"),
    ([3, 3], [1.0, 0.0001], "below 1/1000"),
  ],
)
def test_a_mixture_that_makes_no_sense_is_refused(
  lengths: list[int], weights: list[float] | None, complaint: str
) -> None:
  with pytest.raises(DatasetError, match=complaint):
    Order(lengths, weights)
