"""What training adds to the closed form, and what prediction adds to training; see docs/trials.md.

python -m benchmarks.trials                              # all of them, and the table
python -m xjepa_jax.main --config="configs/trials.py:simulated,local,_predicting,0"

A trial is named by its data set, its variant, and its seed. On OMBRIA, both dates, a seed is a fold
too: `python -m benchmarks.ombria_dates` writes these.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs import ombria, optical_sar

DATASETS = {
  "simulated": optical_sar,
  "ombria": ombria,
  "ombria half": ombria,  # one of two training places
  "ombria mixed": ombria,  # with simulated pairs, one of three
}
# Where a seed is a fold, its data sets.
DIRECTORIES = {
  "ombria": ("data/ombria_fold_{}",),
  "ombria half": ("data/ombria_half_{}",),
  "ombria mixed": ("data/ombria_fold_{}", "data/simulated_pictures"),
}
_ALONE = {"objective.latent.weight": 0.0}
# At weight 10 the gradient of predicting cells is, on the trunk, as large as that of matching.
_CELLS = {"target.of": "layout", "predictor.told": True}
_LOCAL = {"model.local": 64}
# What each one changes.
VARIANTS: dict[str, dict[str, Any]] = {
  "matching": _ALONE,
  "predicting cells": {**_CELLS, "objective.latent.weight": 10.0},
  "finding places": {**_CELLS, "objective.latent.term": "places"},
  "matching, zoomed": {**_ALONE, "augment.zoom": 0.25},
  "matching, curves and noise": {**_ALONE, "augment.curve": 0.3, "augment.noise": 0.5},
  "local, matching": {**_LOCAL, **_ALONE},
  "local, predicting": _LOCAL,
}
# What prediction adds is the difference to the same without it.
COMPARED = {
  "predicting cells": "matching",
  "finding places": "matching",
  "local, predicting": "local, matching",
}
# Which variants and seeds each data set has.
TRIALS: dict[str, dict[str, tuple[int, ...]]] = {
  "simulated": {
    "matching": (0, 1, 2),
    "predicting cells": (0, 1, 2),
    "finding places": (0,),
    "local, matching": (0, 1, 2),
    "local, predicting": (0, 1, 2),
  },
  "ombria": {
    "matching": (0, 1, 2),
    "predicting cells": (0, 1, 2),
    "finding places": (0, 1),
    "matching, zoomed": (0, 1),
    "matching, curves and noise": (0,),
    "local, matching": (0, 1, 2, 3, 4),
    "local, predicting": (0, 1, 2, 3, 4),
  },
  "ombria half": {"matching": (0, 1, 2), "predicting cells": (0, 1, 2)},
  "ombria mixed": {"matching": (0, 1, 2)},
}


def get_config(which: str) -> ConfigDict:
  """The trial "DATASET,VARIANT,SEED"; an underscore stands for a space."""
  dataset, _, rest = which.replace("_", " ").partition(",")
  variant, _, seed = rest.rpartition(",")
  if dataset not in DATASETS or variant not in VARIANTS or not seed.isdecimal():
    raise ValueError(
      f"{which!r}: expected DATASET,VARIANT,SEED with {', '.join(DATASETS)} and "
      f"{'; '.join(VARIANTS)}."
    )
  config = DATASETS[dataset].get_config()
  if dataset in DIRECTORIES:
    config.data.directories = tuple(each.format(seed) for each in DIRECTORIES[dataset])
  if dataset == "ombria mixed":
    config.data.weights = (2.0, 1.0)
  config.training.seed = int(seed)
  # A head that has nothing but tokens shows what these learn of classes.
  config.heads.semantic = {"pooling": "mean", "size": 256}
  semantic = {"term": "contrastive", "weight": 0.1, "on": "semantic", "temperature": 0.1}
  config.objective.semantic = semantic
  config.update_from_flattened_dict(VARIANTS[variant])
  return config
