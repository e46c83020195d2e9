"""What training adds to the closed form, and what prediction adds to training; see docs/trials.md.

python -m benchmarks.trials                                           # all of them, and the table
python -m xjepa_jax.main --config=configs/trials.py:simulated,predicting,0 --workdir=runs/trial

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
  "tokens, matching": {"objective.latent.weight": 0.0},
  "tokens, predicting": {},
  "local, matching": {"objective.latent.weight": 0.0, "model.local": 64},
  "local, predicting": {"model.local": 64},
}
SEEDS = (0, 1, 2)


def get_config(which: str) -> ConfigDict:
  """The trial "DATASET,VARIANT,SEED"; of a variant, one or both words."""
  dataset, _, rest = which.partition(",")
  variant, _, seed = rest.rpartition(",")
  variant = variant if variant in VARIANTS else f"local, {variant}"
  if dataset not in DATASETS or variant not in VARIANTS or not seed.isdecimal():
    raise ValueError(
      f"{which!r}: expected DATASET,VARIANT,SEED with {', '.join(DATASETS)} and "
      f"{'; '.join(VARIANTS)}."
    )
  config = DATASETS[dataset].get_config()
  if dataset == "ombria":
    config.data.directories = (f"data/ombria_fold_{seed}",)
  config.training.seed = int(seed)
  config.optimizer.learning_rate = 1e-3
  config.augment = {"gain": 0.2, "offset": 0.3, "noise": 0.3}
  config.update_from_flattened_dict(VARIANTS[variant])
  return config
