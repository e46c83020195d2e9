"""One sensor: REJEPA (arXiv 2504.03169), latents predicted within a sensor, with VICReg.

python -m xjepa_jax.main --config=configs/rejepa.py     # of s2; configs/rejepa.py:s1 of s1

The best step is that with the highest nDCG@10 by labels on the validation split. 400 steps take
less than five minutes on two cores, simulation and report included. Of 200 unseen simulated pairs'
optical images it reaches nDCG@10 62.6 % (semantic head; layout 58.3 %), image statistics 62.6 %,
chance 56.5 %: labels of simulated scenes show in their colours. Step 100 of the 400 was the best.
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
