"""One sensor: REJEPA (arXiv 2504.03169), latents predicted within a sensor, with VICReg.

python -m xjepa_jax.main --config=configs/rejepa.py     # of s2; configs/rejepa.py:s1 of s1

The best step is that with the highest nDCG@10 by labels on the validation split. 400 steps take
minutes on two cores. What it reaches on simulated scenes whose labels tell them apart has not been
measured yet.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import optical_sar


def get_config(sensor: str = "s2") -> ConfigDict:
  """REJEPA of the named sensor; evaluated by labels, for there is no other sensor to find."""
  config = optical_sar.get_config("tiny")
  config.data.sensors = (sensor,)
  config.evaluation.head = "semantic"
  config.training.steps = 400
  config.optimizer.learning_rate = 1e-3
  config.evaluation.every = 100
  config.checkpoint.every = 100
  config.objective = {
    "latent": {"term": "latent", "weight": 1.0},
    "vicreg": {"term": "vicreg", "weight": 1.0, "on": "semantic"},
  }
  return config
