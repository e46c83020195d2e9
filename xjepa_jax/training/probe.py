"""Whether latent prediction knows more than the place that it is asked for.

Much of a target needs no context: what all targets have in common, and what all targets at a place
have. A predictor can bring its loss down to that floor, and a target encoder can lower the floor
itself, without anything being learnt of scenes. So beside a term's loss stands what guesses lose
that know less, in the term's own measure: `probe`, on validation pairs under one mask.
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
  """The mean square of targets, split into what explains it.

  Two-way analysis of variance without replication: t = constant + position + scene + rest, whose
  squares add up, for the four are orthogonal over a whole table of samples and places.

  Args:
    targets: (B, M, D) of one route; place m is the same in all samples.

  Returns:
    Means over B, M and D of the squares of: "constant", the mean of all; "position", what the
    mean of a place adds; "scene", what the mean of a sample adds; "rest". Their sum is that of the
    targets, 1 for layer-normalised ones.
  """
  values = np.asarray(targets, np.float64)
  constant = values.mean(axis=(0, 1), keepdims=True)
  position = values.mean(axis=0, keepdims=True) - constant
  scene = values.mean(axis=1, keepdims=True) - constant
  parts = (constant, position, scene, values - constant - position - scene)
  return {name: float(np.square(part).mean()) for name, part in zip(PARTS, parts, strict=True)}


def guesses(outputs: Outputs) -> dict[str, dict[str, np.ndarray]]:
  """What stands in for the predictor, each as route -> (B, M, D), 0 where a sensor is absent.

  "real": the predictions. "other_context": those for the sample before, of those that have both
  sensors, so what the predictor says of this place when shown another sample. "position": the mean
  target of the place, and "constant": of all places. Both means are of the very targets they are
  compared with, so in squares they are floors: nothing that knows as little can lose less on these
  pairs. With B samples that is a B-th below what a mean of other pairs would lose.

  Args:
    outputs: on the host, of samples under one mask. A route that fewer than two samples have is
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
  """(B,) bool: the samples that have both sensors of a route."""
  return np.all([outputs.present[key] for key in route.split("->")], axis=0)


def probe(
  objective: Objective, parameters: Mapping[str, Any], outputs: Outputs, key: jax.Array
) -> dict[str, float]:
  """What every term that predicts loses beside what guesses lose.

  Args:
    objective: whose terms that log a loss by route are probed.
    parameters: the objective's.
    outputs: see `guesses`.
    key: for terms that draw.

  Returns:
    "probe/LABEL/real/a->b", the same of "other_context", "position" and "constant", and
    "probe/LABEL/over_position/a->b", real over position: 1 and more is no better than a table of
    places. Of each route's targets "targets/constant/a->b" and so on, see `second_moments`.
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
