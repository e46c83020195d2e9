"""One sensor: REJEPA (arXiv 2504.03169), latents predicted within a sensor, with VICReg.

python -m xjepa_jax.main --config=configs/rejepa.py     # of s2; configs/rejepa.py:s1 of s1

400 steps of simulated pairs, minutes on two cores. What it reaches has not been measured yet.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import optical_sar


def get_config(sensor: str = "s2") -> ConfigDict:
  """REJEPA of the named sensor; evaluated by labels, for there is no other sensor to find."""
  config = optical_sar.get_config("tiny")
  config.data.sensors = (sensor,)
  config.evaluation.head = "semantic"
  config.objective = {
    "latent": {"term": "latent", "weight": 1.0},
    "vicreg": {"term": "vicreg", "weight": 1.0, "on": "semantic"},
  }
  return config
