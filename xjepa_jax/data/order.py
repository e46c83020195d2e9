"""The order of the pairs: which pair is at which position, as a pure function.

Row r of step n's global batch is position n * B + r. Each data set is permuted anew in every epoch,
and data sets are mixed by a fixed periodic pattern. No state is kept, so resuming is arithmetic:
the batches from any step on are the same after a restart, and for any number of processes.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import numpy as np

from xjepa_jax.data.permutation import permute
from xjepa_jax.errors import DatasetError

_PERIOD = 1000  # positions after which a mixture repeats; weights are accurate to 1/1000


@dataclasses.dataclass(frozen=True)
class Order:
  """The pairs of some data sets in an endless order.

  Args:
    lengths: number of pairs in each data set.
    weights: share of the positions for each data set; None shares by length.
    seed: seed of the shuffle.
    shuffle: False keeps each data set's own order.

  Raises:
    DatasetError: a data set is empty, or a weight is not above 0.
  """

  lengths: Sequence[int]
  weights: Sequence[float] | None = None
  seed: int = 0
  shuffle: bool = True

  def __post_init__(self) -> None:
    weights = self.lengths if self.weights is None else self.weights
    if len(weights) != len(self.lengths):
      raise DatasetError(
        f"{len(weights)} weights for {len(self.lengths)} data sets; give one each."
      )
    if not all(length > 0 for length in self.lengths):
      raise DatasetError(f"data sets of {list(self.lengths)} pairs: an empty one cannot be mixed.")
    if not all(np.isfinite(weight) and weight > 0 for weight in weights):
      raise DatasetError(f"weights {list(weights)}: each must be above 0.")
    share = np.asarray(weights, float) / sum(weights)
    if share.min() * _PERIOD < 1:
      raise DatasetError(
        f"weights {list(weights)}: the smallest is below 1/{_PERIOD} of all; raise it, or leave "
        "that data set out."
      )

  def places(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The data sets and pairs at some positions.

    Args:
      positions: (n,) integers, at least 0.

    Returns:
      (n,) int64 number of the data set, and (n,) int64 number of the pair in it.
    """
    pattern, before, counts = self._mixture
    period, inside = np.divmod(np.asarray(positions, np.int64), len(pattern))
    chosen = pattern[inside]
    # How often the data set was chosen before this position, which counts through its epochs.
    rank = period * counts[chosen] + before[inside]
    epoch, number = np.divmod(rank, np.asarray(self.lengths)[chosen])
    if self.shuffle:
      for which, when in {(int(a), int(b)) for a, b in zip(chosen, epoch, strict=True)}:
        rows = (chosen == which) & (epoch == when)
        key = _key(self.seed, which, when)
        number[rows] = permute(number[rows], self.lengths[which], key)
    return chosen, number

  @functools.cached_property
  def _mixture(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One period: the data set at each place, how often it came before, and each one's count.

    Each place is given to the data set that is furthest behind its share, so every stretch of the
    order follows the weights as closely as possible.
    """
    if len(self.lengths) == 1:
      return np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones(1, np.int64)
    weights = np.asarray(self.lengths if self.weights is None else self.weights, float)
    share = weights / weights.sum()
    counts = np.zeros(len(weights), np.int64)
    pattern, before = np.zeros((2, _PERIOD), np.int64)
    for place in range(_PERIOD):
      next_one = int(np.argmax(share * (place + 1) - counts))
      pattern[place], before[place] = next_one, counts[next_one]
      counts[next_one] += 1
    return pattern, before, counts


def _key(seed: int, dataset: int, epoch: int) -> int:
  digest = hashlib.blake2b(f"{seed} {dataset} {epoch}".encode(), digest_size=8).digest()
  return int.from_bytes(digest, "little")
