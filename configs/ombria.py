"""Real pairs: OMBRIA, Sentinel-1 VV and three bands of Sentinel-2, before floods.

python -m xjepa_jax.data.importers manifest --src OMBRIA/pairs.csv --out data/ombria --name ombria \
  --sensor s1=grey --sensor s2=rgb --nodata s1=255 --nodata s2=0 --ungeoreferenced
python -m xjepa_jax.main --config=configs/ombria.py

Its validation split has 70 pairs. To choose by more, cut all 694 into folds by group, each tested
once, and import and train on each:

python -m xjepa_jax.data.folds --src OMBRIA/pairs.csv --out folds --group adjacency_group
python -m xjepa_jax.data.importers manifest --src folds/fold_0.csv --allow-outside \
  --out data/fold_0 --name ombria \
  --sensor s1=grey --sensor s2=rgb --nodata s1=255 --nodata s2=0 --ungeoreferenced
python -m xjepa_jax.main --config=configs/ombria.py --workdir=runs/fold_0 \
  --config.data.directories="('data/fold_0',)"

It starts from the linear layout, which finds all 140 test pairs at rank 1 in both directions before
the first step (none of them borders a training pair), so that nothing is left for training to add
there; docs/trials.md has what is harder. Chance finds 0.7 %, image statistics 0.7 and 1.4 %.
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
