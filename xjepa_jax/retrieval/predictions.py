"""What the predictor makes of a split's pairs, gathered on the host, and what it is worth."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from xjepa_jax.model.outputs import Outputs
from xjepa_jax.training.experiment import Experiment, device_batch
from xjepa_jax.training.mesh import on_every_device
from xjepa_jax.training.probe import has_route, probe
from xjepa_jax.training.state import TrainState
from xjepa_jax.training.step import SHOWN
from xjepa_jax.training.target import find_target


def predicted_outputs(experiment: Experiment, state: TrainState, split: str) -> Outputs:
  """Outputs of about `SHOWN` plain pairs under one mask, each data set having its share of them.

  All are of one mask, so that predictions can be compared place by place.
  """
  config = experiment.config
  if not experiment.model.routes:
    return Outputs({}, {}, {}, {}, {}, {}, {}, {}, {})
  rows = len(config.data.directories) * (config.evaluation.batch or config.training.batch)
  target = find_target(state.opt_state)
  parts = [
    jax.device_get(experiment.predict(state.params, target, device_batch(batch)))
    for _, batches in experiment.passes(split)
    for batch in itertools.islice(batches, -(-SHOWN // rows))
  ]
  outputs: Outputs = jax.tree.map(lambda *each: np.concatenate(each), *parts)
  return outputs


def route_predictions(outputs: Outputs) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """route -> predicted and target tokens (B, M, D) and their places (B, M), for `geometry`.

  Of the samples that have both sensors of a route. Places are alike for all samples.
  """
  found = {}
  for route, tokens in outputs.predicted.items():
    predicted, target = np.asarray(tokens), np.asarray(outputs.target[route])
    there = has_route(outputs, route)
    places = np.broadcast_to(np.arange(predicted.shape[1]), predicted.shape[:2])
    found[route] = (predicted[there], target[there], places[there])
  return found


def latent_scalars(
  experiment: Experiment, state: TrainState, outputs: Outputs, step: int
) -> dict[str, float]:
  """The objective of plain pairs, and what it is beside guesses; every process has to call it.

  Returns:
    "validation/loss/LABEL" and "validation/loss/total", of the terms with the weights of this
    step; and what `training.triviality.probe` measures.
  """
  if not experiment.objective.terms:
    return {}
  parameters = jax.device_get(on_every_device(experiment.mesh, state.params["objective"]))
  key = jax.random.key(experiment.config.training.seed)
  _, losses = experiment.objective.loss(parameters, jax.tree.map(jnp.asarray, outputs), step, key)
  found = {
    f"validation/{name}": float(value) for name, value in losses.items() if name[:5] == "loss/"
  }
  return found | probe(experiment.objective, parameters, outputs, key)
