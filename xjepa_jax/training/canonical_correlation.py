"""Canonical correlation of sensors' cells, from first and second moments.

For two sensors this is canonical correlation (Hotelling 1936), and for more its form of largest
variance (MAXVAR, Kettenring 1971): it finds the directions of each sensor's gradients that
correlate most with the others'. One map serves all cells and all frequencies, but the agreement of
sensors falls with the frequency, so every ring of frequencies gets its own weight,

  scale[r, j] = rho[r, j] / deviation[r, j],

which whitens number j over the ring and trusts it as far as it correlates there.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from xjepa_jax.model import spectrum

# As a share of the mean eigenvalue of a sensor's covariance. Nine directions at unit length are
# only eight independent numbers. Image statistics number in the hundreds, with one image per
# sample; for them .03 gave one to three points more by labels than .1 on 1,600 simulated pairs,
# while .1 gave more on 880 real ones.
RIDGE, WHOLE_RIDGE = 1e-2, 1e-1
_MOST_CORRELATED = 0.995  # a higher correlation only shows that there are few samples
# The least variance of a number of a cell of length 1: what float32 rounding leaves of images
# without contrast is smaller.
_ROUNDING = 1e-10
_CONSTANT = 1e-4  # deviation, in standard units, below which a statistic counts as constant

Maps = dict[str, dict[str, np.ndarray]]  # sensor -> kernel, bias, scale of `layout.SensorMap`


@dataclasses.dataclass(frozen=True)
class Moments:
  """Sums over the images of two sensors that show the same places, or of one sensor.

  Attributes:
    pairs: () number of pairs.
    first, other: (P, F) sums of the spectra of either sensor.
    second: (R, F, F) sums of their products over the frequencies of each ring.
  """

  pairs: Any
  first: Any
  other: Any
  second: Any

  def __add__(self, more: Moments) -> Moments:
    return Moments(*(a + b for a, b in zip(self._parts(), more._parts(), strict=True)))

  def covariance(self, side: int) -> np.ndarray:
    """Return (R, F, F) float64 per frequency, about each frequency's mean; 0 without pairs."""
    ring, count = spectrum.rings(side), max(float(self.pairs), 1.0)
    means = np.zeros(self.second.shape)
    np.add.at(means, ring, self.first[:, :, None] * self.other[:, None, :] / count)
    return (self.second - means) / (count * np.bincount(ring)[:, None, None])

  def _parts(self) -> tuple[Any, ...]:
    return tuple(getattr(self, field.name) for field in dataclasses.fields(self))


jax.tree_util.register_dataclass(Moments, ["pairs", "first", "other", "second"], [])


def solve(
  moments: Mapping[tuple[str, str], Moments],
  means: Mapping[str, np.ndarray],
  side: int,
  numbers: int,
  ridge: float = RIDGE,
  standardise: bool = False,
) -> tuple[Maps, np.ndarray]:
  """Return the maps with the largest correlations.

  Args:
    moments: (a, b) -> the moments of these sensors' spectra, with a before b in the order of
      `means`, and (a, a).
    means: sensor -> (F,) the mean reading of a cell, about which spectra are taken.
    side: number of cells along a side.
    numbers: d, the numbers kept of each cell.
    ridge: added to a sensor's covariance, as a share of its mean eigenvalue.
    standardise: divide each reading by its deviation, because readings have units of their own.

  Returns:
    sensor -> kernel (F, d), bias (d,), scale (R, d), all float32; and the correlations (d,),
    averaged over groups of sensors that share pairs. A single sensor, or one whose images do not
    vary, gets its principal directions and no weights.
  """
  own = {key: moments[key, key].covariance(side) for key in means}
  unit = {key: _units(each, standardise) for key, each in own.items()}
  own = {key: _between(unit[key], each, unit[key]) for key, each in own.items()}
  cross = {
    (a, b): _between(unit[a], moments[a, b].covariance(side), unit[b])
    for a, b in itertools.combinations(means, 2)
    if moments[a, b].pairs > 1 and _varies(own[a]) and _varies(own[b])
  }
  kernels, correlations = {}, [np.ones(numbers)] if not cross else []
  for group in _connected(list(means), cross):
    if len(group) == 1:
      kernels[group[0]] = _principal(own[group[0]].sum(axis=0), numbers)
      continue
    found, shared = _correlating(group, own, cross, side, numbers, ridge)
    kernels |= found
    correlations.append(shared)
  pairs = {pair: float(moments[pair].pairs) for pair in cross}
  scales = _scales(kernels, own, cross, pairs)
  maps: Maps = {}
  for key, kernel in kernels.items():
    kernel = unit[key][:, None] * kernel
    found = {"kernel": kernel, "bias": -means[key] @ kernel, "scale": scales[key]}
    maps[key] = {name: value.astype(np.float32) for name, value in found.items()}
  return maps, np.mean(correlations, axis=0)


def _correlating(
  keys: Sequence[str],
  own: Mapping[str, np.ndarray],
  cross: Mapping[tuple[str, str], np.ndarray],
  side: int,
  numbers: int,
  ridge: float,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """Return the kernels of sensors that share pairs, and their correlations over all frequencies."""
  weights = np.bincount(spectrum.rings(side))
  power = {key: _positive(np.trace(own[key], axis1=1, axis2=2) / own[key].shape[1]) for key in keys}

  # Every ring is divided by its power, so that strong frequencies do not outweigh the others.
  def pooled(a: str, b: str, covariance: np.ndarray) -> np.ndarray:
    each = covariance / np.sqrt(power[a] * power[b])[:, None, None]
    return np.average(each, axis=0, weights=weights)

  white = {key: _whitening(pooled(key, key, own[key]), ridge) for key in keys}
  ends = np.cumsum([0, *(own[key].shape[1] for key in keys)])
  at = {key: slice(*ends[place : place + 2]) for place, key in enumerate(keys)}
  blocks = np.eye(ends[-1])
  for (a, b), covariance in cross.items():
    if a in keys:
      blocks[at[a], at[b]] = white[a] @ pooled(a, b, covariance) @ white[b]
      blocks[at[b], at[a]] = blocks[at[a], at[b]].T
  # MAXVAR: eigenvectors of the correlation matrix of all whitened sensors. An eigenvalue is 1 plus
  # (number of sensors - 1) times a correlation.
  values, vectors = np.linalg.eigh(blocks)
  parts = np.zeros((len(blocks), numbers))  # numbers beyond those available stay 0
  parts[:, : len(blocks)] = vectors[:, ::-1][:, :numbers]
  values = np.pad(values, (max(numbers - len(blocks), 0), 0), constant_values=1.0)
  kernels = {key: white[key] @ _unit(parts[at[key]]) for key in keys}
  return kernels, (values[::-1][:numbers] - 1) / (len(keys) - 1)


def _scales(
  kernels: Mapping[str, np.ndarray],
  own: Mapping[str, np.ndarray],
  cross: Mapping[tuple[str, str], np.ndarray],
  pairs: Mapping[tuple[str, str], float],
) -> dict[str, np.ndarray]:
  """Return sensor -> (R, d) weights from the correlations with all partners; 1 without any."""
  deviation = {
    key: np.sqrt(_positive(np.einsum("fd,rfg,gd->rd", kernel, own[key], kernel)))
    for key, kernel in kernels.items()
  }
  shared = {
    (a, b): np.einsum("fd,rfg,gd->rd", kernels[a], covariance, kernels[b])
    / (deviation[a] * deviation[b])
    for (a, b), covariance in cross.items()
  }
  scales = {}
  for key in kernels:
    partners = [pair for pair in cross if key in pair]
    scales[key] = np.ones_like(deviation[key])
    if partners:
      rho = np.average(
        [shared[pair] for pair in partners], axis=0, weights=[pairs[pair] for pair in partners]
      )
      scales[key] = np.clip(rho, 0, _MOST_CORRELATED) / deviation[key]
  return scales


def _connected(keys: Sequence[str], cross: Mapping[tuple[str, str], Any]) -> list[list[str]]:
  """Group the sensors so that no pair of images connects two groups, as in separate data sets."""
  groups = [[key] for key in keys]
  for a, b in cross:
    one, other = (next(group for group in groups if key in group) for key in (a, b))
    if one is not other:
      one += other
      groups.remove(other)
  return groups


def _units(own: np.ndarray, standardise: bool) -> np.ndarray:
  """Return (F,) factors of the readings from covariances (R, F, F); 0 for a constant reading."""
  if not standardise:
    return np.ones(own.shape[1])
  deviation = np.sqrt(np.maximum(np.diagonal(own.sum(axis=0)), 0))
  return np.where(deviation > _CONSTANT, 1 / np.maximum(deviation, _CONSTANT), 0.0)


def _between(one: np.ndarray, covariance: np.ndarray, other: np.ndarray) -> np.ndarray:
  return one[:, None] * covariance * other


def _whitening(covariance: np.ndarray, ridge: float) -> np.ndarray:
  """Return the inverse square root (F, F) of a covariance with a ridge; 0 for a zero covariance."""
  values, vectors = np.linalg.eigh(covariance)
  ridged = np.maximum(values, 0) + ridge * values.mean()
  if values.mean() <= 0:
    return np.zeros_like(covariance)
  return vectors @ np.diag(1 / np.sqrt(ridged)) @ vectors.T


def _principal(covariance: np.ndarray, numbers: int) -> np.ndarray:
  found = np.linalg.eigh(covariance)[1][:, ::-1][:, :numbers]
  return np.pad(found, ((0, 0), (0, numbers - found.shape[1])))  # numbers beyond those stay 0


def _unit(columns: np.ndarray) -> np.ndarray:
  return columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-12)


def _varies(covariance: np.ndarray) -> bool:
  return float(np.trace(covariance, axis1=1, axis2=2).max()) > covariance.shape[1] * _ROUNDING


def _positive(values: np.ndarray) -> np.ndarray:
  """Return variances with those that are mere rounding set to 1, so that they can be divided by."""
  least = max(1e-9 * float(values.max(initial=0)), _ROUNDING)
  return np.where(values > least, values, 1.0)
