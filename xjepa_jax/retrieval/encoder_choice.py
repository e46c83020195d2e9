"""Chooses which weights are measured and exported: the trained encoder's or their moving average.

Neither is better in general. The average finds more in mid-run, while the learning rate is high,
and less where it lags behind (docs/trials.md), so both are measured at every validation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from xjepa_jax.training.consensus import first_decides
from xjepa_jax.training.state import TrainState
from xjepa_jax.training.target import find_target

AVERAGED, TRAINED = "averaged", "trained"
ENCODERS = (AVERAGED, TRAINED)
_NAMED = {"target": AVERAGED, "online": TRAINED}  # values of the config key evaluation.encoder


def encoders(state: TrainState) -> dict[str, Any]:
  """Name -> encoder parameters; without a network the two are the same, and only one is given."""
  # A model without a network has no predictor.
  if not state.params["predictor"]:
    return {AVERAGED: find_target(state.opt_state)}
  return {AVERAGED: find_target(state.opt_state), TRAINED: state.params["encoder"]}


def choose(asked: str, metrics: Mapping[str, float]) -> str:
  """Name of the encoder that the config asks for, given the metrics of a state.

  Every process has to call this. The first process's metrics decide, because those of the others
  may differ in the last digits.

  Args:
    asked: "target", "online", or "best" for the one with the higher score. The average wins ties,
      and is taken where there is no score.
    metrics: with "validation/averaged/score" and "validation/trained/score", where they exist.
  """
  return first_decides(lambda: _NAMED.get(asked) or _better(metrics))


def _better(metrics: Mapping[str, float]) -> str:
  scores = {name: float(metrics.get(f"validation/{name}/score", math.nan)) for name in ENCODERS}
  found = {name: score for name, score in scores.items() if math.isfinite(score)}
  return max(found, key=lambda name: found[name], default=AVERAGED)
