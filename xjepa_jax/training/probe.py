"""Measures whether latent prediction knows more than the position that it is asked for.

Much of a target can be predicted without any context: what all targets share, and what all targets
at a position share. A predictor can bring its loss down to that floor, and a target encoder can
lower the floor itself, without learning anything about scenes. So each term's loss on validation
pairs, under one mask, is compared with the loss of guesses that know less, in the term's own
measure. See `probe`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.objective import Objective
from xjepa_jax.objective.term import PREDICTIONS
from xjepa_jax.training.triviality import CONSTANT, OTHER, PARTS, POSITION, REAL


def second_moments(targets: np.ndarray) -> dict[str, float]:
  """Split the mean square of targets into the parts that explain it.

  This is a two-way analysis of variance without replication: t = constant + position + scene +
  rest. The squares add up, because the four parts are orthogonal over a complete table of samples
  and positions.

  Args:
    targets: (B, M, D) of one route; place m is the same in all samples.

  Returns:
    Mean squares over B, M and D of: "constant", the mean of all; "position", what the mean of a
    place adds; "scene", what the mean of a sample adds; "rest". Their sum is the mean square of the
    targets, which is 1 for layer-normalised ones.
  """
  values = np.asarray(targets, np.float64)
  constant = values.mean(axis=(0, 1), keepdims=True)
  position = values.mean(axis=0, keepdims=True) - constant
  scene = values.mean(axis=1, keepdims=True) - constant
  parts = (constant, position, scene, values - constant - position - scene)
  return {name: float(np.square(part).mean()) for name, part in zip(PARTS, parts, strict=True)}


def guesses(outputs: Outputs) -> dict[str, dict[str, np.ndarray]]:
  """Return substitutes for the predictions, each as route -> (B, M, D), 0 where a sensor is absent.

  "real" are the predictions themselves. "other_context" are the predictions of the sample before,
  among those that have both sensors, so what the predictor says about this place when shown another
  sample. "position" is the mean target of the place, and "constant" that of all places. Both means
  are taken over the very targets that they are compared with, so in squares they are floors: a
  guess that knows no more cannot lose less on these pairs. With B samples that is 1 / B below the
  loss of a mean over other pairs.

  Args:
    outputs: on the host, for samples under one mask. A route that fewer than two samples have is
      left out.
  """
  found: dict[str, dict[str, np.ndarray]] = {k: {} for k in (REAL, OTHER, POSITION, CONSTANT)}
  for route, tokens in outputs.predicted.items():
    predicted = np.asarray(tokens)
    rows = np.flatnonzero(has_route(outputs, route))
    if len(rows) < 2:
      continue
    target = np.asarray(outputs.target[route], np.float64)[rows]
    kinds = {
      REAL: predicted[rows],
      OTHER: predicted[np.roll(rows, 1)],
      POSITION: target.mean(axis=0, keepdims=True),
      CONSTANT: target.mean(axis=(0, 1), keepdims=True),
    }
    for kind, values in kinds.items():
      found[kind][route] = np.zeros_like(predicted, np.float32)
      found[kind][route][rows] = values
  return found


def has_route(outputs: Outputs, route: str) -> np.ndarray:
  """Return (B,) bool, whether a sample has both sensors of a route."""
  return np.all([outputs.present[key] for key in route.split("->")], axis=0)


def probe(
  objective: Objective, parameters: Mapping[str, Any], outputs: Outputs, key: jax.Array
) -> dict[str, float]:
  """Compare the loss of every term that predicts with the losses of guesses.

  Args:
    objective: the terms that log a loss by route are probed.
    parameters: the objective's parameters.
    outputs: see `guesses`.
    key: random key for terms that sample.

  Returns:
    "probe/LABEL/real/a->b", and the same for "other_context", "position" and "constant";
    "probe/LABEL/over_position/a->b", real divided by position, where 1 or more is no better than a
    table of positions; and per route "targets/constant/a->b" and so on, see `second_moments`.
  """
  standing = guesses(outputs)
  routes = list(standing[REAL])
  measured: dict[str, float] = {}
  for route in routes:
    parts = second_moments(np.asarray(outputs.target[route])[has_route(outputs, route)])
    measured |= {f"targets/{name}/{route}": value for name, value in parts.items()}
  for label, term in objective.terms.items():
    if not routes or term.needs != PREDICTIONS:
      continue
    for kind, predicted in standing.items():
      arrays = {route: jnp.asarray(values) for route, values in predicted.items()}
      instead = dataclasses.replace(outputs, predicted={**outputs.predicted, **arrays})
      _, logged = term.loss(parameters.get(label, {}), instead, key)
      for route in routes:
        if f"route/{route}" in logged:
          measured[f"probe/{label}/{kind}/{route}"] = float(logged[f"route/{route}"])
    for route in routes:
      real, place = (measured.get(f"probe/{label}/{k}/{route}", 0.0) for k in (REAL, POSITION))
      if place > 0:
        measured[f"probe/{label}/over_position/{route}"] = real / place
  return measured
