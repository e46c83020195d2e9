"""Terms and heads compared at equal budgets, on a grid head; see docs/trials.md.

python -m benchmarks.trials                                               # all of them
python -m xjepa_jax.main --config=configs/trials.py:ombria,bare --workdir=runs/trials/ombria,bare
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import ombria, optical_sar

DATASETS = {"simulated": optical_sar, "ombria": ombria}
_LATENT = {"term": "latent", "weight": 1.0}
_VICREG = {"term": "vicreg", "weight": 1.0, "on": "layout"}
# What each one changes: the terms of the loss, and keys of the config.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
  "default": ({}, {}),
  "layout only": ({"latent": _LATENT, "vicreg": _VICREG}, {}),
  "bare": ({"latent": _LATENT}, {}),
  "without latent": ({"latent": {**_LATENT, "weight": 0.0}, "vicreg": _VICREG}, {}),
  "latent x 10": ({"latent": {**_LATENT, "weight": 10.0}, "vicreg": _VICREG}, {}),
  "latent x 100": ({"latent": {**_LATENT, "weight": 100.0}, "vicreg": _VICREG}, {}),
  "vicreg of both": (
    {"latent": _LATENT, "vicreg": _VICREG, "tokens": {**_VICREG, "on": "tokens"}},
    {},
  ),
  "vicreg of the mean": (
    {"latent": _LATENT, "vicreg": {**_VICREG, "on": "semantic"}},
    {"evaluation.head": "semantic"},
  ),
  "16 cells": (
    {"latent": _LATENT, "vicreg": _VICREG},
    {"heads.layout.cells": 4, "heads.layout.size": 512},
  ),
  "contrastive of cells": (
    {
      "latent": _LATENT,
      "contrastive": {"term": "contrastive", "weight": 1.0, "on": "layout", "cells": 64},
    },
    {},
  ),
  "sigreg and cosine": (
    {
      "latent": _LATENT,
      "sigreg": {"term": "sigreg", "weight": 0.05, "on": "layout"},
      "cosine": {"term": "cosine", "weight": 1.0, "on": "layout"},
    },
    {},
  ),
  "covariance x 10": ({"latent": _LATENT, "vicreg": {**_VICREG, "covariance": 10.0}}, {}),
  "vicreg and sigreg": (
    {
      "latent": _LATENT,
      "vicreg": {**_VICREG, "weight": 0.1},
      "sigreg": {"term": "sigreg", "weight": 0.2, "on": "layout"},
    },
    {},
  ),
  "psa": ({"latent": _LATENT, "psa": {"term": "psa", "weight": 1.0}, "vicreg": _VICREG}, {}),
}


def get_config(which: str) -> ConfigDict:
  """The trial "DATASET,VARIANT"; an underscore stands for a space."""
  dataset, _, variant = which.partition(",")
  variant = variant.replace("_", " ")
  if dataset not in DATASETS or variant not in VARIANTS:
    raise ValueError(
      f"{which!r}: expected DATASET,VARIANT with {', '.join(DATASETS)} and {', '.join(VARIANTS)}."
    )
  config = DATASETS[dataset].get_config()
  config.heads.layout = ConfigDict({"pooling": "grid", "cells": 8, "size": 512})
  config.training.steps = 100
  config.optimizer.warmup = 20
  config.evaluation.every = 50
  terms, keys = VARIANTS[variant]
  if terms:
    config.objective = ConfigDict(terms)
  config.update_from_flattened_dict(keys)
  return config
