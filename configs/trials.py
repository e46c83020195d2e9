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

DATASETS = {"simulated": optical_sar, "ombria": ombria}
# What each one changes.
VARIANTS: dict[str, dict[str, Any]] = {
  "local, matching": {"objective.latent.weight": 0.0, "model.local": 64},
  "local, predicting": {"model.local": 64},
}
SEEDS = {"simulated": (0, 1, 2), "ombria": (0, 1, 2, 3, 4)}


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
  if dataset == "ombria":
    config.data.directories = (f"data/ombria_fold_{seed}",)
  config.training.seed = int(seed)
  # A head that has nothing but tokens shows what these learn of classes.
  config.heads.semantic = {"pooling": "mean", "size": 256}
  semantic = {"term": "contrastive", "weight": 0.1, "on": "semantic", "temperature": 0.1}
  config.objective.semantic = semantic
  config.update_from_flattened_dict(VARIANTS[variant])
  return config
