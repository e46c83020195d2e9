"""Warnings on configs that are valid but seldom intended, a sentence each, for runs and plans."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import jax

from xjepa_jax.model.encoder import has_network
from xjepa_jax.training.experiment import Experiment

# Share of all parameters that may be unsharded: norms, biases and small tables always are.
WHOLE = 0.1


def config_warnings(experiment: Experiment, sizes: Sequence[int] = ()) -> Iterator[str]:
  """Yield warnings about a config, each with what to change.

  Args:
    experiment: the opened experiment.
    sizes: size of the training split of each data set; () where the data are not available.
  """
  if has_network(experiment.config.model):
    yield from _whole_parameters(experiment)
  yield from _parts_of_batches(experiment)
  if experiment.config.training.steps:
    yield from _repeated_pairs(experiment, sizes)


def _whole_parameters(experiment: Experiment) -> Iterator[str]:
  fsdp = experiment.mesh.shape["fsdp"]
  leaves = jax.tree.leaves(experiment.abstract_state().params)
  whole = sum(_bytes(leaf) for leaf in leaves if "fsdp" not in leaf.sharding.spec)
  total = sum(map(_bytes, leaves))
  if fsdp > 1 and whole > WHOLE * total:
    yield (
      f"mesh.fsdp is {fsdp}, which does not divide the model's width: {whole / 1e6:,.1f} of "
      f"{total / 1e6:,.1f} MB of parameters are whole on every device, and so are their "
      "moments and averages. Give a size that divides it, and the rest to mesh.replica."
    )


def _parts_of_batches(experiment: Experiment) -> Iterator[str]:
  settings = experiment.config.training
  found = _over_samples(experiment)
  seen = settings.batch // settings.accumulate
  if found and seen == 1:
    yield (
      f"{', '.join(found)} compare samples and see one at a time (training.batch is "
      f"{settings.batch}, training.accumulate {settings.accumulate}): there is nothing to compare "
      "it with. Give a larger batch."
    )
  elif found and settings.accumulate > 1:
    yield (
      f"training.accumulate is {settings.accumulate}: {', '.join(found)} see {seen} samples at a "
      f"time and not {settings.batch}, which is another objective than that of the whole batch "
      "(fewer negatives, statistics of fewer samples). "
      "Prefer model.remat or more devices."
    )


def _repeated_pairs(experiment: Experiment, sizes: Sequence[int]) -> Iterator[str]:
  batch, data = experiment.config.training.batch, experiment.config.data
  weights = data.weights or sizes
  # `sizes` is empty where the data are not available, and then nothing is compared.
  for directory, pairs, weight in zip(data.directories, sizes, weights, strict=False):
    rows = batch * weight / sum(weights)
    if rows > pairs:
      yield (
        f"training.batch is {batch}, of which {rows:,.0f} are of the {pairs:,} pairs of the split "
        f"{data.train!r} of {directory}: pairs stand more than once in a batch, and terms that "
        "compare samples compare a pair with itself. Give a smaller batch, or more pairs."
      )


def _over_samples(experiment: Experiment) -> list[str]:
  """Return the labels of the terms that compare samples of a batch."""
  return [label for label, term in experiment.objective.terms.items() if term.over_samples]


def _bytes(leaf: jax.ShapeDtypeStruct) -> int:
  return math.prod(leaf.shape) * leaf.dtype.itemsize
