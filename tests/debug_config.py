"""A config of seconds: the smallest model on images of 16 pixels.

python -m xjepa_jax.main --config=tests/debug_config.py:DIRECTORY_OF_A_DATA_SET
"""

from __future__ import annotations

from ml_collections import ConfigDict

from xjepa_jax.config import default_config


def get_config(directory: str = "") -> ConfigDict:
  """Its preset is the data set's directory."""
  config = default_config()
  config.data.directories = (directory,) if directory else ()
  config.model.preset = "debug"
  config.model.patch = 4
  config.mask.blocks = 2
  config.predictor.depth = 1
  config.heads.layout.cells = 2
  config.heads.layout.size = 32
  config.heads.semantic.size = 16
  config.training.steps = 12
  config.training.batch = 16
  config.optimizer.warmup = 2
  config.evaluation.every = 4
  config.checkpoint.every = 2
  config.telemetry.every = 1
  config.evaluation.predicted = True
  config.evaluation.linear = (
    0  # a minute of compiling a run; tests/retrieval/test_closed_form.py has it
  )
  return config
