"""No network: what sensors share of oriented gradients, fitted in closed form in seconds.

python -m xjepa_jax.main --config=configs/linear.py                 # simulated pairs
python -m xjepa_jax.main --config=configs/linear.py \
  --config.data.directories="('data/mine',)" --config.data.simulate=0 --workdir=runs/mine
"""

from __future__ import annotations

from ml_collections import ConfigDict

from xjepa_jax.config import default_config


def get_config() -> ConfigDict:
  """A layout of 1,020 numbers, 1 KiB as int8 with its scale, and gradients as they are."""
  config = default_config()
  config.data.directories = ("runs/pairs",)
  config.data.simulate = 2000
  config.model.preset = "none"
  config.training.steps = 0
  config.heads = {
    "linear": {"pooling": "canonical", "cells": 16, "numbers": 4, "size": 1020},
    "gradients": {"pooling": "gradients", "cells": 8, "size": 576},
  }
  config.objective = {}
  config.evaluation.head = "linear"
  return config
