"""No network: what sensors share of oriented gradients, fitted in closed form in seconds.

python -m xjepa_jax.main --config=configs/linear.py                 # simulated pairs
python -m xjepa_jax.main --config=configs/linear.py \
  --config.data.directories="('data/mine',)" --config.data.simulate=0 --workdir=runs/mine
"""

from __future__ import annotations

from ml_collections import ConfigDict

from xjepa_jax.config import default_config


def get_config() -> ConfigDict:
  """The layout of a KiB (1,020 numbers as int8, and their scale), one of a quarter, and gradients.

  "linear" finds a scene that lies on the archive's grid; "coarse" gives up little of that and still
  finds one that lies half a cell off it.
  """
  config = default_config()
  config.data.directories = ("runs/pairs",)
  config.data.simulate = 2000
  config.model.preset = "none"
  config.training.steps = 0
  config.heads = {
    "linear": {"pooling": "canonical", "cells": 16, "numbers": 4, "size": 1020},
    "coarse": {"pooling": "canonical", "cells": 8, "numbers": 4, "size": 252},
    "gradients": {"pooling": "gradients", "cells": 8, "size": 576},
  }
  config.objective = {}
  config.evaluation.head = "linear"
  return config
