"""The closed form of a canonical layout: what sensors share of their cells, from sums over pairs.

Canonical correlation (Hotelling 1936) of two sensors' cells, and for more than two its form of
largest variance (MAXVAR, Kettenring 1971): directions of each sensor's gradients that correlate
most with the others'. One map serves all cells and all frequencies; how far sensors agree, though,
falls with the frequency, so every ring of frequencies gets its own weight,

  scale[r, j] = rho[r, j] / deviation[r, j],

which whitens number j over the ring and trusts it as far as it correlates there. All of it follows
from first and second moments, so it takes one look at the pairs, in batches, on any mesh: sums of a
batch are float32 on the devices, sums of batches and everything after are float64 on the host.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xjepa_jax.config import HeadConfig
from xjepa_jax.model import spectrum
from xjepa_jax.model.gradients import DIRECTIONS, oriented_gradients
from xjepa_jax.model.placing import on_mesh
from xjepa_jax.processes import watchdog
from xjepa_jax.training.experiment import Experiment
from xjepa_jax.training.mesh import batch_sharding, replicated
from xjepa_jax.training.splits import shares
from xjepa_jax.training.state import TrainState
from xjepa_jax.training.step import plain_images
from xjepa_jax.training.target import TargetState

# Of the mean eigenvalue of a sensor's covariance: at unit length nine directions are eight numbers.
RIDGE = 1e-2
_MOST_CORRELATED = 0.995  # more is few samples
_MEAN_PAIRS = 512  # that the mean gradient of a sensor's cells is taken from

Maps = dict[str, dict[str, np.ndarray]]  # sensor -> kernel, bias, scale of `layout.SensorMap`


@dataclasses.dataclass(frozen=True)
class Moments:
  """Sums over the images of two sensors that show the same places, or of one.

  Attributes:
    pairs: () how many.
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
    """(R, F, F) float64 a frequency, about the mean of each frequency; 0 without pairs."""
    ring, count = spectrum.rings(side), max(float(self.pairs), 1.0)
    means = np.zeros(self.second.shape)
    np.add.at(means, ring, self.first[:, :, None] * self.other[:, None, :] / count)
    return (self.second - means) / (count * np.bincount(ring)[:, None, None])

  def _parts(self) -> tuple[Any, ...]:
    return tuple(getattr(self, field.name) for field in dataclasses.fields(self))


jax.tree_util.register_dataclass(Moments, ["pairs", "first", "other", "second"], [])


@dataclasses.dataclass(frozen=True)
class Fit:
  """A closed form, and what it was made of.

  Attributes:
    maps: of each sensor.
    correlations: (d,) of the numbers of cells, over all frequencies; 1 for a sensor alone.
    pairs: that were looked at.
    seconds: that it took.
  """

  maps: Maps
  correlations: np.ndarray
  pairs: int
  seconds: float

  def __str__(self) -> str:
    shared = " ".join(f"{each:.2f}" for each in self.correlations)
    return (
      f"fitted in closed form on {self.pairs:,} training pairs in {self.seconds:.1f} s; a cell's "
      f"numbers correlate by {shared}"
    )


def fit(experiment: Experiment, head: HeadConfig, most: int) -> Fit:
  """Fits a canonical layout on the training split. Every process has to call it.

  Args:
    experiment: the run.
    head: of the pooling "canonical".
    most: training pairs that are looked at, in random order.
  """
  started = time.monotonic()
  means = _means(experiment, head.cells, min(most, _MEAN_PAIRS))
  moments, pairs = _moments(experiment, head.cells, means, most)
  maps, correlations = solve(moments, means, head.cells, head.numbers)
  return Fit(maps, correlations, pairs, time.monotonic() - started)


def solve(
  moments: Mapping[tuple[str, str], Moments],
  means: Mapping[str, np.ndarray],
  side: int,
  numbers: int,
) -> tuple[Maps, np.ndarray]:
  """The maps of the largest correlations.

  Args:
    moments: (a, b) -> of these sensors' spectra, a before b in the order of `means`, and (a, a).
    means: sensor -> (F,) the mean gradients of a cell, which spectra are about.
    side: cells along a side.
    numbers: d of each cell.

  Returns:
    sensor -> kernel (F, d), bias (d,), scale (R, d), float32; and the correlations (d,). A sensor
    that no other shares a pair with gets its principal directions, and no weights.
  """
  keys, weights = list(means), np.bincount(spectrum.rings(side))
  own = {key: moments[key, key].covariance(side) for key in keys}
  power = {key: _positive(np.trace(own[key], axis1=1, axis2=2) / DIRECTIONS) for key in keys}

  def pooled(a: str, b: str, covariance: np.ndarray) -> np.ndarray:
    each = covariance / np.sqrt(power[a] * power[b])[:, None, None]
    return np.average(each, axis=0, weights=weights)

  white = {key: _whitening(pooled(key, key, own[key])) for key in keys}
  cross = {
    (a, b): moments[a, b].covariance(side)
    for a, b in itertools.combinations(keys, 2)
    if moments[a, b].pairs > 0
  }
  blocks = np.eye(len(keys) * DIRECTIONS)
  for (a, b), covariance in cross.items():
    rows, columns = (
      slice(keys.index(k) * DIRECTIONS, (keys.index(k) + 1) * DIRECTIONS) for k in (a, b)
    )
    blocks[rows, columns] = white[a] @ pooled(a, b, covariance) @ white[b]
    blocks[columns, rows] = blocks[rows, columns].T
  values, vectors = np.linalg.eigh(blocks)
  parts = vectors[:, ::-1][:, :numbers].reshape(len(keys), DIRECTIONS, numbers)
  partners = {key: [pair for pair in cross if key in pair] for key in keys}
  kernels = {
    key: white[key] @ _unit(part) if partners[key] else _principal(own[key].sum(axis=0), numbers)
    for key, part in zip(keys, parts, strict=True)
  }
  deviation = {
    key: np.sqrt(_positive(np.einsum("fd,rfg,gd->rd", kernels[key], own[key], kernels[key])))
    for key in keys
  }
  shared = {
    (a, b): np.einsum("fd,rfg,gd->rd", kernels[a], covariance, kernels[b])
    / (deviation[a] * deviation[b])
    for (a, b), covariance in cross.items()
  }
  maps: Maps = {}
  for key in keys:
    scale = np.ones_like(deviation[key])
    if partners[key]:
      counts = [float(moments[pair].pairs) for pair in partners[key]]
      rho = np.average([shared[pair] for pair in partners[key]], axis=0, weights=counts)
      scale = np.clip(rho, 0, _MOST_CORRELATED) / deviation[key]
    found = {"kernel": kernels[key], "bias": -means[key] @ kernels[key], "scale": scale}
    maps[key] = {name: value.astype(np.float32) for name, value in found.items()}
  most = (values[::-1][:numbers] - 1) / max(len(keys) - 1, 1) if cross else np.ones(numbers)
  return maps, most


def put(state: TrainState, head: str, maps: Maps) -> TrainState:
  """The state with a layout's maps in place of those drawn, trained and averaged."""

  def averaged(node: Any) -> Any:
    return node._replace(encoder=with_maps(node.encoder, head, maps)) if _is_target(node) else node

  return dataclasses.replace(
    state,
    params={**state.params, "encoder": with_maps(state.params["encoder"], head, maps)},
    opt_state=jax.tree.map(averaged, state.opt_state, is_leaf=_is_target),
  )


def with_maps(encoder: Any, head: str, maps: Maps) -> Any:
  """An encoder's parameters with a layout's maps in place of those drawn, placed as these are."""
  layout = encoder["layouts"][head]
  new = {
    key: {name: _like(old, maps[key][name]) for name, old in leaves.items()}
    for key, leaves in layout["maps"].items()
  }
  return {**encoder, "layouts": {**encoder["layouts"], head: {**layout, "maps": new}}}


def _means(experiment: Experiment, cells: int, most: int) -> dict[str, np.ndarray]:
  """sensor -> (F,) mean gradients of the cells seen."""

  def sums(batch: Mapping[str, Any]) -> dict[str, tuple[jax.Array, jax.Array]]:
    values, _ = plain_images(experiment.model, batch["values"])
    found = {}
    for key, each in values.items():
      gradients, seen = oriented_gradients(each, cells)
      there = seen & _present(batch, key)[:, None]
      found[key] = (jnp.where(there[..., None], gradients, 0).sum(axis=(0, 1)), there.sum())
    return found

  total: Any = None
  for found, _ in _measured(experiment, sums, most):
    total = found if total is None else jax.tree.map(np.add, total, found)
  return {key: each / max(float(count), 1.0) for key, (each, count) in total.items()}


def _moments(
  experiment: Experiment, cells: int, means: Mapping[str, np.ndarray], most: int
) -> tuple[dict[tuple[str, str], Moments], int]:
  """Moments of all pairs of sensors, and the number of pairs looked at."""
  ring = np.eye(spectrum.count_rings(cells), dtype=np.float32)[spectrum.rings(cells)].T

  def sums(batch: Mapping[str, Any]) -> dict[tuple[str, str], Moments]:
    values, _ = plain_images(experiment.model, batch["values"])
    spectra = {}
    for key, each in values.items():
      gradients, seen = oriented_gradients(each, cells)
      centred = gradients - jnp.asarray(means[key], jnp.float32)
      spectra[key] = spectrum.transform(jnp.where(seen[..., None], centred, 0))
    found = {}
    for a, b in itertools.combinations_with_replacement(values, 2):
      both = (_present(batch, a) & _present(batch, b))[:, None, None]
      one, other = (jnp.where(both, spectra[key], 0) for key in (a, b))
      products = jnp.einsum("bpf,bpg->pfg", one, other, precision="highest")
      found[a, b] = Moments(
        both.sum(), one.sum(axis=0), other.sum(axis=0), jnp.einsum("rp,pfg->rfg", ring, products)
      )
    return found

  total: Any = None
  pairs = 0
  for found, rows in _measured(experiment, sums, most):
    total = found if total is None else {key: total[key] + each for key, each in found.items()}
    pairs += rows
  return total, pairs


def _measured(experiment: Experiment, of: Any, most: int) -> Iterator[tuple[Any, int]]:
  """What a function makes of batches of training pairs, float64 on the host, and their rows."""
  mesh = experiment.mesh
  run = jax.jit(
    on_mesh(of, mesh.abstract_mesh),
    in_shardings=batch_sharding(mesh),
    out_shardings=replicated(mesh),
  )
  split = experiment.config.data.train
  left = shares(experiment.config, split, most)
  for number, (_, batches) in enumerate(experiment.passes(split, shuffle=True)):
    for batch in batches:
      if left[number] <= 0:
        break
      watchdog.advanced()
      wanted = {name: batch[name] for name in ("values", "present", "valid")}
      rows = int(jnp.sum(batch["valid"]))
      yield jax.tree.map(lambda x: np.asarray(x, np.float64), jax.device_get(run(wanted))), rows
      left[number] -= rows


def _present(batch: Mapping[str, Any], key: str) -> jax.Array:
  return batch["present"][key] & batch["valid"]


def _whitening(covariance: np.ndarray) -> np.ndarray:
  """(F, F): the root of the inverse, of a covariance with a ridge; 0 for one that is 0."""
  values, vectors = np.linalg.eigh(covariance)
  ridged = np.maximum(values, 0) + RIDGE * values.mean()
  if values.mean() <= 0:
    return np.zeros_like(covariance)
  return vectors @ np.diag(1 / np.sqrt(ridged)) @ vectors.T


def _principal(covariance: np.ndarray, numbers: int) -> np.ndarray:
  return np.linalg.eigh(covariance)[1][:, ::-1][:, :numbers]


def _unit(columns: np.ndarray) -> np.ndarray:
  return columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-12)


def _positive(values: np.ndarray) -> np.ndarray:
  """Variances; what rounding or a constant image leaves of one counts as 1, of which nothing is."""
  least = 1e-9 * max(float(values.max(initial=0)), 0.0)
  return np.where(values > least, values, 1.0)


def _is_target(node: Any) -> bool:
  return isinstance(node, TargetState)


def _like(old: jax.Array, new: np.ndarray) -> jax.Array:
  return jax.make_array_from_callback(old.shape, old.sharding, lambda index: new[index])


def canonical_heads(heads: Mapping[str, HeadConfig]) -> Sequence[str]:
  """Names of the heads that are fitted."""
  return [name for name, head in heads.items() if head.pooling == "canonical"]
