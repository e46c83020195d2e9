"""Measures of the geometry of a descriptor space, in float64: rank, spread, gap between sensors.

A falling loss proves nothing: a bare latent loss falls while its space collapses to three
dimensions. These numbers, computed on validation pairs, show it; `collapse` interprets them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np

from xjepa_jax.errors import EvaluationError

# Rows of descriptors compared with all others at a time; this bounds the memory of `uniformity`.
_ROWS = 512


def describe_geometry(
  descriptors: Mapping[str, np.ndarray],
  present: Mapping[str, np.ndarray] | None = None,
  predictions: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None,
) -> dict[str, float]:
  """Compute all measures of this module, under names for a log.

  Args:
    descriptors: sensor -> (P, K), where row p of every sensor is scene p.
    present: sensor -> (P,) bool, whether the scene has that sensor; None means that all do.
    predictions: route -> predicted (B, M, D), target (B, M, D) and positions (B, M), the arguments
      of `positional_collapse`.

  Returns:
    Per sensor: "rankme/a", "deviation_min/a", "deviation_mean/a", "uniformity/a". Per pair of
    sensors: "gap/a-b", "gap_relative/a-b", "alignment/a-b". Per route: "positional/a->b". A measure
    is left out where the data do not allow it: it may need two scenes, scenes with both sensors, or
    a position seen in two samples.

  Raises:
    EvaluationError: the sensors' numbers of rows differ, or a present scene's descriptor is not
      finite.
  """
  if len({len(values) for values in (*descriptors.values(), *(present or {}).values())}) > 1:
    raise EvaluationError("sensors have different numbers of descriptors; expected one a scene.")
  there = {
    sensor: np.ones(len(values), bool) if present is None else np.asarray(present[sensor], bool)
    for sensor, values in descriptors.items()
  }
  for sensor, values in descriptors.items():
    if not np.isfinite(values[there[sensor]]).all():
      raise EvaluationError(
        f"descriptors of {sensor} are not finite: the run diverged. Lower the learning rate, or "
        "clip gradients."
      )
  measured: dict[str, float] = {}
  for sensor, values in descriptors.items():
    own = values[there[sensor]]
    if len(own) > 1:
      deviation = deviations(own)
      measured[f"rankme/{sensor}"] = rankme(own)
      measured[f"deviation_min/{sensor}"] = float(deviation.min())
      measured[f"deviation_mean/{sensor}"] = float(deviation.mean())
      measured[f"uniformity/{sensor}"] = uniformity(own)
  for one, other in itertools.combinations(descriptors, 2):
    if there[one].sum() > 1 and there[other].sum() > 1:
      gap, relative = modality_gap(descriptors[one][there[one]], descriptors[other][there[other]])
      measured |= {f"gap/{one}-{other}": gap, f"gap_relative/{one}-{other}": relative}
    both = there[one] & there[other]
    if both.any():
      measured[f"alignment/{one}-{other}"] = alignment(
        descriptors[one][both], descriptors[other][both]
      )
  for route, arrays in (predictions or {}).items():
    difference = positional_collapse(*arrays)
    if not math.isnan(difference):
      measured[f"positional/{route}"] = difference
  return measured


def normalised(descriptors: np.ndarray) -> np.ndarray:
  """Return vectors (..., K) in float64, scaled to unit length; a null vector stays null."""
  values = np.asarray(descriptors, np.float64)
  length = np.linalg.norm(values, axis=-1, keepdims=True)
  return values / np.where(length > 0, length, 1.0)


def rankme(descriptors: np.ndarray) -> float:
  """Return the effective rank: exp of the entropy of the normalised singular values.

  This is RankMe (Garrido et al. 2023, eq. 1) without its epsilon. As in the paper, descriptors are
  not centred: an offset that all of them share counts, and lowers the rank.

  Args:
    descriptors: (P, K), not normalised.

  Returns:
    A number from 1 to min(P, K); 0 if all descriptors are null.
  """
  values = np.linalg.svd(np.asarray(descriptors, np.float64), compute_uv=False)
  if not values.sum() > 0:
    return 0.0
  shares = values / values.sum()
  shares = shares[shares > 0]
  return float(np.exp(-np.sum(shares * np.log(shares))))


def deviations(descriptors: np.ndarray) -> np.ndarray:
  """Return the (K,) standard deviation of each dimension of descriptors (P, K), normalised here.

  The values are 1 / sqrt(K) for descriptors spread evenly over the sphere, 0 for a single point.
  """
  return normalised(descriptors).std(axis=0)


def modality_gap(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
  """Return the distance between two sensors' mean normalised descriptors (Liang et al. 2022).

  Args:
    one: (P, K).
    other: (P', K), not necessarily of the same scenes.

  Returns:
    The distance, and the distance divided by the spread. The spread is the root mean square
    distance of a descriptor from its own sensor's mean, averaged over the two sensors as squares.
    The ratio is infinite for two different points without spread.
  """
  sides = [normalised(one), normalised(other)]
  means = [side.mean(axis=0) for side in sides]
  gap = float(np.linalg.norm(means[0] - means[1]))
  squares = [side.var(axis=0).sum() for side in sides]
  spread = math.sqrt(sum(squares) / 2)
  return gap, gap / spread if spread > 0 else (math.inf if gap > 0 else 0.0)


def alignment(one: np.ndarray, other: np.ndarray) -> float:
  """Return the mean squared distance of co-located normalised descriptors (P, K).

  See Wang and Isola 2020, eq. 1. The value is 0 where both sensors agree and 2 where their
  descriptors are unrelated.
  """
  return float(np.mean(np.sum((normalised(one) - normalised(other)) ** 2, axis=1)))


def uniformity(descriptors: np.ndarray) -> float:
  """Return log mean exp(-2 d^2) over all pairs of different scenes (Wang and Isola 2020, eq. 2).

  Args:
    descriptors: (P, K), normalised here; at least two. Time grows with P squared.

  Returns:
    0 if all descriptors are one point; about -4 if they are spread evenly over a sphere of many
    dimensions.
  """
  values = normalised(descriptors)
  count, total = len(values), 0.0
  squares = np.sum(values**2, axis=1)
  for start in range(0, count, _ROWS):
    block = slice(start, start + _ROWS)
    distances = squares[block, None] + squares - 2 * values[block] @ values.T
    total += float(np.sum(np.exp(-2 * np.maximum(distances, 0))))
  # The pair of every scene with itself has distance 0 and was counted as 1.
  return math.log((total - count) / (count * (count - 1)))


def positional_collapse(predicted: np.ndarray, target: np.ndarray, positions: np.ndarray) -> float:
  """Measure how much better a prediction fits its own scene than other scenes at the same place.

  The measure is cos(prediction, own target) - mean of cos(prediction, another sample's target at
  the same position), averaged over all predictions whose position is also among another sample's
  targets. It is 0 when a prediction depends on its position but not on the image: a predictor that
  has learnt the mean target of each position has a small loss and carries no information. Since
  both cosines use the same predictions, it does not matter which positions were drawn, only that
  some were drawn in two samples. A sample may have a position twice, in two blocks that overlap;
  none of its own targets then count as another sample's.

  Args:
    predicted: (B, M, D), the predictions of one route.
    target: (B, M, D), the targets at the same places.
    positions: (B, M) int, their places in the target's token grid.

  Returns:
    A number from -2 to 2; NaN if no position was drawn in two samples.
  """
  samples, tokens, width = predicted.shape
  if not samples:
    return math.nan
  guess = normalised(predicted).reshape(-1, width)
  truth = normalised(target).reshape(-1, width)
  _, place = np.unique(positions, return_inverse=True)
  place = place.reshape(-1)
  sample = np.repeat(np.arange(samples), tokens)
  # The sum of the targets at this position, minus those of this sample at this position.
  sums, counts = _grouped(truth, place)
  own_sums, own_counts = _grouped(truth, place * samples + sample)
  others = counts - own_counts
  if not others.any():
    return math.nan
  foreign = np.sum(guess * (sums - own_sums), axis=1) / np.maximum(others, 1)
  difference = np.sum(guess * truth, axis=1) - foreign
  return float(difference[others > 0].mean())


def position_share(tokens: np.ndarray, squares: float, count: float) -> float:
  """Return the share of the tokens' variance that their place explains.

  It is mean |mean token of a place - mean of all|^2 / mean |token - mean of all|^2: 0 where all
  places have the same mean, 1 where a token depends on its place and on nothing else. The constant
  enters neither side, because descriptors are centred and lose what all tokens share. For P
  unrelated images the value is about 1 / P.

  Args:
    tokens: (N, D), the sum of tokens over images.
    squares: the sum of their squares over images, N and D.
    count: the number of images.

  Returns:
    A number from 0 to 1; NaN without images, or where all tokens are alike.
  """
  if not count:
    return math.nan
  means = np.asarray(tokens, np.float64) / count
  constant = np.square(means.mean(axis=0)).sum()
  position = np.square(means).sum(axis=1).mean() - constant
  total = squares / (count * len(means)) - constant
  return float(np.clip(position / total, 0, 1)) if total > 0 else math.nan


def _grouped(values: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Return, for every row of values (T, D), the sum (T, D) and the size (T,) of its group."""
  _, index, counts = np.unique(group, return_inverse=True, return_counts=True)
  order = np.argsort(index, kind="stable")
  starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
  sums = np.add.reduceat(values[order], starts, axis=0)
  return sums[index], counts[index]
