r"""BEN-14K by the published protocol: 14,832 pairs of BigEarthNet v1, 120 pixels, F1@5 and F1@10.

python -m xjepa_jax.data.importers bigearthnet --src BigEarthNet --out data/ben14k --labels 19 \
  --subset train=train.csv --subset validation=val.csv --subset test=test.csv
python -m xjepa_jax.main --config=configs/ben14k.py

For an accelerator; neither its time nor its result has been measured yet. The report has all three
definitions of F1@5 and F1@10; queries and archive are both the test split. By CSMAE's protocol
the validation split asks: --config.evaluation.protocol=csmae-f1@10, or afterwards

python -m xjepa_jax.retrieval.evaluate runs/ben14k/encoder --pairs data/ben14k \
  --protocol ben14k-f1@5 --protocol csmae-f1@10
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import optical_sar


def get_config(preset: str = "small") -> ConfigDict:
  """CSMAE's inputs: Sentinel-1 VH, VV; ten bands of Sentinel-2; patches of 15 pixels."""
  config = optical_sar.get_config(preset)
  config.data.directories = ("data/ben14k",)
  config.data.simulate = 0
  config.data.bands = ("s1=VH,VV", "s2=B02,B03,B04,B08,B05,B06,B07,B11,B12,B8A")
  config.model.patch = 15
  config.evaluation.head = "semantic"
  config.evaluation.protocol = "ben14k-f1@5"
  config.evaluation.pairs = 20_000
  return config
