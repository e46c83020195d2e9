"""What a config may say and seldom means: a sentence each, for the start of a run and for plans."""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax

from xjepa_jax.model.encoder import has_network
from xjepa_jax.objective.table import OVER_SAMPLES
from xjepa_jax.training.experiment import Experiment

WHOLE = 0.1  # of all parameters: less is norms, biases and small tables, which are never cut


def cautions(experiment: Experiment) -> Iterator[str]:
  """What goes on and should be known, with what to change."""
  if has_network(experiment.config.model):
    yield from _whole_parameters(experiment)
  yield from _parts_of_batches(experiment)


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
  found = [
    label
    for label, entry in experiment.config.objective.items()
    if entry.get("term", label) in OVER_SAMPLES
  ]
  if settings.accumulate > 1 and found:
    yield (
      f"training.accumulate is {settings.accumulate}: {', '.join(found)} see "
      f"{settings.batch // settings.accumulate} samples at a time and not {settings.batch}, which "
      "is another objective than that of the whole batch (fewer negatives, statistics of fewer "
      "samples; sigreg's gradient is that much weaker). Prefer model.remat or more devices."
    )


def _bytes(leaf: jax.ShapeDtypeStruct) -> int:
  return math.prod(leaf.shape) * leaf.dtype.itemsize
