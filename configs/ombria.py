"""Real pairs: OMBRIA, Sentinel-1 VV and three bands of Sentinel-2, before floods.

python -m xjepa_jax.data.importers manifest --src OMBRIA/pairs.csv --out data/ombria --name ombria \
  --sensor s1=grey --sensor s2=rgb --nodata s1=255 --nodata s2=0
python -m xjepa_jax.main --config=configs/ombria.py
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import optical_sar


def get_config(preset: str = "tiny") -> ConfigDict:
  """The tiny encoder on 484 pairs of 128 pixels of 20 m."""
  config = optical_sar.get_config(preset)
  config.data.directories = ("data/ombria",)
  config.data.simulate = 0
  config.model.patch = 16
  return config
