"""Simulated pairs as pictures, to be mixed with OMBRIA's: VV in one band, red, green and blue.

  python -m benchmarks.simulated_pictures --pairs 1000

Scenes of 128 pixels of 10 m, all of them training pairs; VV from -25 to 0 dB and reflectance from 0
to .3 as 8 bits, so that the sensors are OMBRIA's "s1" and "s2" to the importer and to the encoder.
"""

from __future__ import annotations

import argparse
import csv
import os

import numpy as np
from PIL import Image

from xjepa_jax.data.importers.__main__ import main as import_pairs
from xjepa_jax.data.scenes import scene

_DECIBELS = (-25.0, 0.0)
_BRIGHTEST = 3000  # reflectance x 1e4
_RGB = [3, 2, 1]  # B04, B03, B02 of the simulator's twelve bands


def main(argv: list[str] | None = None) -> None:
  """Writes pictures to --work, and a data set to --out."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.simulated_pictures", description=(__doc__ or "").splitlines()[0]
  )
  parser.add_argument("--pairs", type=int, default=1000)
  parser.add_argument("--work", default="runs/simulated_pictures")
  parser.add_argument("--out", default="data/simulated_pictures")
  args = parser.parse_args(argv)
  os.makedirs(args.work, exist_ok=True)
  table = os.path.join(args.work, "pairs.csv")
  with open(table, "w", encoding="utf-8", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(("pair_id", "s1", "s2", "split"))
    for index in range(args.pairs):
      seen = scene(1, index, 128)
      low, high = _DECIBELS
      grey = np.clip((seen.sar[..., 0] - low) / (high - low) * 254, 0, 254)  # 255 is OMBRIA's fill
      colour = np.clip(seen.optical[..., _RGB] / _BRIGHTEST * 254 + 1, 1, 255)  # and 0
      names = [f"{index:05d}_{sensor}.png" for sensor in ("s1", "s2")]
      for name, picture in zip(names, (grey, colour), strict=True):
        Image.fromarray(picture.astype(np.uint8)).save(os.path.join(args.work, name))
      writer.writerow((f"simulated-{index:05d}", *names, "train"))
  import_pairs(
    ["manifest", "--src", table, "--out", args.out, "--name", "simulated_pictures"]
    + ["--sensor", "s1=grey", "--sensor", "s2=rgb", "--nodata", "s1=255", "--nodata", "s2=0"]
    + ["--ungeoreferenced"]
  )


if __name__ == "__main__":
  main()
