"""The built-in data set: co-located scenes seen by two simulated sensors.

  python -m xjepa_jax.data.simulate --out data/simulated --pairs 2000
  python -m xjepa_jax.data.simulate --out data/scenes --pairs 12 --size 512 --geotiff

Scenes come from `xjepa_jax.data.scenes` and are written like any archive, or as GeoTIFF files to
try the commands that read such files. The k-th pair of a seed is the same in a data set of any
size.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys

from xjepa_jax.data import simulated_places
from xjepa_jax.data.archive import Archive, Entry
from xjepa_jax.data.importing import command
from xjepa_jax.data.pairs import Observation, Pair
from xjepa_jax.errors import DataError, XJepaError
from xjepa_jax.processes.output import run_command
from xjepa_jax.sensor_presets import preset


def simulated_archive(pairs: int = 2000, size: int = 64, seed: int = 0) -> Archive:
  """Simulated scenes as an archive: 80 % for training, 10 % each for validation and test.

  Args:
    pairs: number of pairs, at least 10.
    size: side of an image, in pixels of 10 m.
    seed: seed of the scenes.

  Raises:
    DataError: an argument is out of range.
  """
  if pairs < 10:
    raise DataError(f"pairs {pairs}: at least 10, so that no split is empty.")
  if not 16 <= size <= 512:
    raise DataError(f"size {size}: must be from 16 to 512 pixels.")
  if seed < 0:
    raise DataError(f"seed {seed}: must be 0 or above.")
  entries = [Entry(f"simulated-{seed}-{index:07d}", index) for index in range(pairs)]
  splits: dict[str, list[Entry]] = {"train": [], "validation": [], "test": []}
  for entry in entries:  # split by index, so that a pair keeps its split when the data set grows
    last = entry.source % 10
    splits["test" if last == 9 else "validation" if last == 8 else "train"].append(entry)
  simulated = {
    "s1": dataclasses.replace(preset("sentinel1_grd"), product="simulated Sentinel-1 GRD, sigma0"),
    "s2": dataclasses.replace(preset("sentinel2_l2a"), product="simulated Sentinel-2 L2A"),
  }
  return Archive(
    name="simulated",
    sensors=simulated,
    splits=splits,
    read=functools.partial(_read, seed=seed, size=size),
  )


def _read(entry: Entry, seed: int, size: int) -> Pair:
  from xjepa_jax.data.scenes import scene  # importing SciPy is slow; a --help should not wait

  index = entry.source
  seen = scene(seed, index, size)
  longitude, latitude = simulated_places.centre(index, size)
  return Pair(
    entry.pair_id,
    {
      "s1": Observation(seen.sar, simulated_places.acquired(index, hours=7)),
      "s2": Observation(seen.optical, simulated_places.acquired(index)),
    },
    labels=seen.labels,
    longitude=longitude,
    latitude=latitude,
    crs=simulated_places.CRS,
    transform=simulated_places.transform(index, size),
  )


def main(argv: list[str] | None = None) -> int:
  """Write a simulated data set; returns the exit status."""
  parser = argparse.ArgumentParser(
    prog="python -m xjepa_jax.data.simulate",
    description="Write co-located scenes seen by two simulated sensors (Sentinel-1, Sentinel-2).",
    epilog="example: python -m xjepa_jax.data.simulate --out data/simulated --pairs 2000",
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument("--pairs", type=int, default=2000)
  parser.add_argument("--size", type=int, default=64, help="of an image, in pixels of 10 m")
  parser.add_argument(
    "--geotiff", action="store_true", help="write a folder of GeoTIFF files a sensor instead"
  )
  command.add_output_arguments(parser)
  args = parser.parse_args(argv)
  if args.geotiff:
    return _write_geotiffs(args)
  return command.run(lambda args: simulated_archive(args.pairs, args.size, args.seed), args)


def _write_geotiffs(args: argparse.Namespace) -> int:
  from xjepa_jax.data.geotiff_folders import write_geotiffs

  try:
    count = write_geotiffs(simulated_archive(args.pairs, args.size, args.seed), args.out)
  except XJepaError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  print(f"Wrote {count:,} GeoTIFF files into {args.out}")
  return 0


if __name__ == "__main__":
  run_command(main, optional=True, reports=["--dry-run"])
