"""Predictor outputs for a split's pairs, gathered on the host, and what they are worth.

All pairs are masked alike, so that predictions can be compared position by position.
"""

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
  """Outputs for about `SHOWN` pairs without augmentation, in equal shares from the data sets.

  All pairs have the same mask, so that predictions can be compared position by position.
  """
  config = experiment.config
  if not experiment.model.routes:
    return Outputs({}, {}, {}, {}, {}, {}, {}, {}, {})
  rows = len(config.data.directories) * (config.evaluation.batch or config.training.batch)
  target = find_target(state.opt_state)
  parts = [
    jax.device_get(experiment.predict(state.params, target, device_batch(batch)))
    for _, batches in experiment.passes(split)
    # Rounded up, so that the data sets together give at least SHOWN pairs.
    for batch in itertools.islice(batches, -(-SHOWN // rows))
  ]
  outputs: Outputs = jax.tree.map(lambda *each: np.concatenate(each), *parts)
  return outputs


def route_predictions(outputs: Outputs) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """route -> predicted and target tokens (B, M, D) and positions (B, M), for `training.geometry`.

  Only the samples that have both sensors of a route are included. All samples share one mask, and
  so the positions are the same for all.
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
  """Validation losses of the objective, and the probes that put them in proportion.

  Every process has to call this.

  Returns:
    "validation/loss/LABEL" and "validation/loss/total", with the terms weighted as at this step,
    and the metrics of `training.probe.probe`.
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
