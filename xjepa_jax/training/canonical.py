"""The closed form of a canonical layout, fitted on a run's training pairs and put into its state.

Fitting takes two passes: one over a few pairs for the mean of each sensor's cells, and one over the
pairs for their second moments about that mean. It works in batches and on any mesh. Sums within a
batch are float32 on the devices; sums over batches and everything after (`canonical_correlation`)
are float64 on the host. The pairs that are used do not depend on the size of a batch.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xjepa_jax.config import HeadConfig
from xjepa_jax.model import spectrum
from xjepa_jax.model.activation_sharding import on_mesh
from xjepa_jax.model.layout import Reading, is_fitted
from xjepa_jax.processes import watchdog
from xjepa_jax.training.canonical_correlation import RIDGE, WHOLE_RIDGE, Maps, Moments, solve
from xjepa_jax.training.experiment import Experiment, device_batch
from xjepa_jax.training.mesh import batch_sharding, replicated
from xjepa_jax.training.splits import shares
from xjepa_jax.training.state import TrainState
from xjepa_jax.training.step import plain_images
from xjepa_jax.training.target import TargetState

_MEAN_PAIRS = 512  # pairs from which the mean of each sensor's cells is taken


@dataclasses.dataclass(frozen=True)
class Fit:
  """A closed form, and the data that it was fitted on.

  Attributes:
    maps: the maps of each sensor.
    correlations: (d,) correlation of each number of a cell over all frequencies; 1 for a single
      sensor.
    pairs: number of pairs used.
    seconds: time that the fit took.
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


def fit(experiment: Experiment, heads: Mapping[str, HeadConfig]) -> dict[str, Fit]:
  """Fit canonical layouts on the training split. Every process has to call this.

  Args:
    experiment: the run.
    heads: name -> head with a closed form (`layout.is_fitted`). Each is fitted on at most `fitted`
      training pairs, in random order; heads with the same limit share one pass.

  Returns:
    The fit of each head, by name. Its seconds are those of the whole pass.
  """
  found: dict[str, Fit] = {}
  for most in sorted({head.fitted for head in heads.values()}):
    started = time.monotonic()
    together = {name: head for name, head in heads.items() if head.fitted == most}
    readings = tuple(dict.fromkeys(Reading.of(head) for head in together.values()))
    means = _means(experiment, readings, min(most, _MEAN_PAIRS))
    moments, pairs = _moments(experiment, readings, means, most)
    for name, head in together.items():
      number = readings.index(reading := Reading.of(head))
      ridge = WHOLE_RIDGE if reading.whole else RIDGE
      maps, shared = solve(
        moments[number], means[number], reading.cells, head.numbers, ridge, reading.whole
      )
      found[name] = Fit(maps, shared, pairs, time.monotonic() - started)
  return {name: found[name] for name in heads}


def put(state: TrainState, head: str, maps: Maps) -> TrainState:
  """Return the state with a layout's fitted maps, in the trained and in the averaged encoder."""

  def averaged(node: Any) -> Any:
    return node._replace(encoder=with_maps(node.encoder, head, maps)) if _is_target(node) else node

  return dataclasses.replace(
    state,
    params={**state.params, "encoder": with_maps(state.params["encoder"], head, maps)},
    opt_state=jax.tree.map(averaged, state.opt_state, is_leaf=_is_target),
  )


def with_maps(encoder: Any, head: str, maps: Maps) -> Any:
  """Return an encoder's parameters with a layout's fitted maps, sharded like those they replace."""
  layout = encoder["layouts"][head]
  new = {
    key: {name: _like(old, maps[key][name]) for name, old in leaves.items()}
    for key, leaves in layout["maps"].items()
  }
  return {**encoder, "layouts": {**encoder["layouts"], head: {**layout, "maps": new}}}


def _means(
  experiment: Experiment, readings: Sequence[Reading], most: int
) -> list[dict[str, np.ndarray]]:
  """Return, per reading, sensor -> (F,) the mean of what is read of the cells that were seen."""

  def sums(batch: Mapping[str, Any]) -> list[dict[str, tuple[jax.Array, jax.Array]]]:
    values, _ = plain_images(experiment.model, batch["values"])
    found: list[dict[str, tuple[jax.Array, jax.Array]]] = [{} for _ in readings]
    for (number, reading), key in itertools.product(enumerate(readings), values):
      told, seen = reading(values[key])
      there = seen & _present(batch, key)[:, None]
      found[number][key] = jnp.where(there[..., None], told, 0).sum(axis=(0, 1)), there.sum()
    return found

  total: Any = None
  for found, _ in _measured(experiment, sums, most):
    total = found if total is None else jax.tree.map(np.add, total, found)
  # Batches hold their sensors in any order; the experiment's order is the one that counts.
  return [
    {key: sums_of[key][0] / max(float(sums_of[key][1]), 1.0) for key in experiment.inputs}
    for sums_of in total
  ]


def _moments(
  experiment: Experiment,
  readings: Sequence[Reading],
  means: Sequence[Mapping[str, np.ndarray]],
  most: int,
) -> tuple[list[dict[tuple[str, str], Moments]], int]:
  """Return, per reading, the moments of all pairs of sensors, and the number of pairs used."""

  def sums(batch: Mapping[str, Any]) -> list[dict[tuple[str, str], Moments]]:
    values, _ = plain_images(experiment.model, batch["values"])
    return [_batch_moments(batch, values, *each) for each in zip(readings, means, strict=True)]

  total: Any = None
  pairs = 0
  for found, rows in _measured(experiment, sums, most):
    total = found if total is None else list(map(_added, total, found))
    pairs += rows
  return total, pairs


def _batch_moments(
  batch: Mapping[str, Any],
  values: Mapping[str, jax.Array],
  reading: Reading,
  means: Mapping[str, np.ndarray],
) -> dict[tuple[str, str], Moments]:
  rings = np.eye(spectrum.count_rings(reading.cells), dtype=np.float32)
  ring = rings[spectrum.rings(reading.cells)].T
  spectra = {}
  for key in means:
    told, seen = reading(values[key])
    centred = told - jnp.asarray(means[key], jnp.float32)
    spectra[key] = spectrum.transform(jnp.where(seen[..., None], centred, 0))
  found = {}
  for a, b in itertools.combinations_with_replacement(means, 2):
    both = (_present(batch, a) & _present(batch, b))[:, None, None]
    one, other = (jnp.where(both, spectra[key], 0) for key in (a, b))
    # JAX's default precision would multiply in bfloat16 on TPUs and in TF32 on GPUs.
    products = jnp.einsum("bpf,bpg->pfg", one, other, precision="highest")
    found[a, b] = Moments(
      both.sum(), one.sum(axis=0), other.sum(axis=0), jnp.einsum("rp,pfg->rfg", ring, products)
    )
  return found


def _added(
  total: Mapping[tuple[str, str], Moments], more: Mapping[tuple[str, str], Moments]
) -> dict[tuple[str, str], Moments]:
  return {pair: each + more[pair] for pair, each in total.items()}


def _measured(
  experiment: Experiment, of: Callable[[Any], Any], most: int
) -> Iterator[tuple[Any, int]]:
  """Yield a function's result, float64 on the host, and the row count per batch of training pairs.

  In the last batch only the rows that are still wanted are valid, so that the pairs used do not
  depend on the size of a batch.
  """
  mesh = experiment.mesh

  def measure(batch: Mapping[str, Any], left: jax.Array) -> tuple[Any, jax.Array]:
    valid = batch["valid"] & (jnp.cumsum(batch["valid"]) <= left)
    return of({**batch, "valid": valid}), valid.sum()

  run = jax.jit(
    on_mesh(measure, mesh.abstract_mesh),
    in_shardings=(batch_sharding(mesh), replicated(mesh)),
    out_shardings=replicated(mesh),
  )
  split = experiment.config.data.train
  left = shares(experiment.config, split, most)
  for number, (_, batches) in enumerate(experiment.passes(split, shuffle=True)):
    for batch in batches:
      if left[number] <= 0:
        break
      watchdog.advanced()
      found, rows = jax.device_get(run(device_batch(batch), np.int32(left[number])))
      yield jax.tree.map(lambda x: np.asarray(x, np.float64), found), int(rows)
      left[number] -= int(rows)


def _present(batch: Mapping[str, Any], key: str) -> jax.Array:
  return batch["present"][key] & batch["valid"]


def _is_target(node: Any) -> bool:
  return isinstance(node, TargetState)


def _like(old: jax.Array, new: np.ndarray) -> jax.Array:
  # Every process fills the shards of its own devices only.
  return jax.make_array_from_callback(old.shape, old.sharding, lambda index: new[index])


def fitted_heads(heads: Mapping[str, HeadConfig]) -> dict[str, HeadConfig]:
  """Return the heads that have a closed form."""
  return {name: head for name, head in heads.items() if is_fitted(head)}
