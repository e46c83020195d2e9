"""OMBRIA's places on both dates as folds, at 128 pixels of 20 m: what configs/trials.py trains on.

  python -m benchmarks.ombria_dates --src OMBRIA/pairs.csv --work runs/ombria_dates

The table has the columns pair_id, s1, s2, split, place, date ("before" or "after" the flood) and
adjacency_group, as the images have 256 pixels of 10 m; pixels are averaged 2 x 2, those that were
seen. The test split takes no part. The others are cut into five folds by group; a fold's places are
asked for date by date, so that the other date of a place is no wrong answer: "after" is the split
"validation" of data/ombria_fold_I, "before" its split "test". Labels are of the later date.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from xjepa_jax.data.folds import folds_of
from xjepa_jax.data.importers.__main__ import main as import_pairs
from xjepa_jax.paths import user_path

_FILL = {"s1": 255, "s2": 0}
_FOLDS = 5
_SPLITS = {"before": "test", "after": "validation"}


def main(argv: list[str] | None = None) -> None:
  """Writes images and tables to --work, and data sets to --out."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.ombria_dates", description=(__doc__ or "").splitlines()[0]
  )
  parser.add_argument(
    "--src", type=user_path, required=True, help="table of the pairs of both dates"
  )
  parser.add_argument(
    "--work", type=user_path, default="runs/ombria_dates", help="directory of averaged images"
  )
  parser.add_argument(
    "--out", type=user_path, default="data/ombria_fold_", help="beginning of data sets' names"
  )
  parser.add_argument(
    "--every", type=int, default=1, help="places of which one is kept for training: 2 is half"
  )
  parser.add_argument(
    "--folds", nargs="+", type=int, default=list(range(_FOLDS)), help="which, of five"
  )
  args = parser.parse_args(argv)
  with open(args.src, encoding="utf-8", newline="") as file:
    rows = [row for row in csv.DictReader(file) if row["split"] != "test"]
  for row in rows:
    for sensor, fill in _FILL.items():
      target = os.path.join(args.work, row[sensor])
      os.makedirs(os.path.dirname(target), exist_ok=True)
      image = np.asarray(Image.open(os.path.join(os.path.dirname(args.src), row[sensor])))
      Image.fromarray(halved(image, fill)).save(target)
  for number in args.folds:
    path = os.path.join(args.work, f"fold_{number}.csv")
    _write(path, folded(rows, number, args.every))
    import_pairs(
      ["manifest", "--src", path, "--out", f"{args.out}{number}", "--name", "ombria_dates"]
      + ["--sensor", "s1=grey", "--sensor", "s2=rgb", "--ungeoreferenced"]
      + ["--nodata", f"s1={_FILL['s1']}", "--nodata", f"s2={_FILL['s2']}"]
    )


def halved(image: np.ndarray, fill: int) -> np.ndarray:
  """(H / 2, W / 2) or (H / 2, W / 2, C) of uint8 pixels: means of those of 2 x 2 that were seen."""
  values = image if image.ndim == 3 else image[..., None]
  seen = (values != fill).any(axis=-1, keepdims=True)

  def total(x: np.ndarray) -> np.ndarray:
    height, width, bands = x.shape
    return x.reshape(height // 2, 2, width // 2, 2, bands).sum(axis=(1, 3))

  count = total(seen.astype(float))
  means = np.rint(total(np.where(seen, values, 0).astype(float)) / np.maximum(count, 1))
  if fill:  # a pixel that was seen is not as bright as fill
    means = np.minimum(means, fill - 1)
  return (
    np.where(count > 0, means, fill).astype(np.uint8).reshape(count.shape[:2] + image.shape[2:])
  )


def folded(rows: Sequence[Mapping[str, str]], number: int, every: int) -> list[dict[str, str]]:
  """The rows with a fold's places as the splits of its two dates, the others as training pairs.

  Of the others one place of `every` is kept, with both dates.
  """
  fold_of = folds_of(Counter(row["adjacency_group"] for row in rows), _FOLDS)
  others = {row["place"] for row in rows if fold_of[row["adjacency_group"]] != number}
  kept = set(sorted(others)[::every])
  return [
    {**row, "split": "train" if row["place"] in others else _SPLITS[row["date"]]}
    for row in rows
    if row["place"] in kept or row["place"] not in others
  ]


def _write(path: str, rows: Sequence[Mapping[str, str]]) -> None:
  with open(path, "w", encoding="utf-8", newline="") as file:
    writer = csv.DictWriter(file, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)


if __name__ == "__main__":
  main()
