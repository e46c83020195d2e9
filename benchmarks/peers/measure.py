"""Measures one competitor, in the process that this file is started in.

  python -m benchmarks.peers.measure ours DIRECTORY --size 120 --seconds 6

Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.peers.pair_files import digest
from benchmarks.peers.process_tree import cpu_seconds

COMPETITORS = ("ours", "tf_data", "torch_loader", "bound")


def measure(
  batches: Iterator[tuple[np.ndarray, ...]], batch: int, warm_up: int, seconds: float, least: int
) -> dict[str, float]:
  """Takes batches for a while.

  Args:
    batches: without end.
    batch: pairs of a batch.
    warm_up: batches that are taken before the clock starts.
    seconds: how long to measure.
    least: pairs to take, if that takes longer.

  Returns:
    "pairs", "seconds", "cpu_seconds" (of this process and its children), all of the time measured.
  """
  for _ in range(warm_up):
    touch(next(batches))
  pairs = 0
  cpu = cpu_seconds(os.getpid())
  start = now = time.perf_counter()
  while now - start < seconds or pairs < least:
    touch(next(batches))
    pairs += batch
    now = time.perf_counter()
  return {
    "pairs": pairs,
    "seconds": now - start,
    "cpu_seconds": cpu_seconds(os.getpid()) - cpu,
  }


def touch(arrays: tuple[np.ndarray, ...]) -> int:
  """Reads the last value of each array, so that no work is left for later."""
  return sum(int(array.flat[-1]) for array in arrays)


def digests(arrays: tuple[np.ndarray, ...]) -> list[str]:
  """What identifies the pixels of each pair of a batch."""
  return [digest(row) for row in zip(*arrays, strict=True)]


def main(argv: list[str] | None = None) -> None:
  """Prints a measurement, or what identifies the pairs of the first batch."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.peers.measure",
    description="Measure one competitor of the input pipeline's benchmark.",
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument("competitor", choices=COMPETITORS)
  parser.add_argument("directory", help="of a data set, or of .npy files for torch_loader")
  parser.add_argument("--size", type=int, default=120, help="of an image, in pixels")
  parser.add_argument("--batch", type=int, default=64)
  parser.add_argument("--seconds", type=float, default=6.0)
  parser.add_argument("--warm-up", type=int, default=48, help="batches before the clock starts")
  parser.add_argument("--least", type=int, default=0, help="pairs to read, however long it takes")
  parser.add_argument("--options", default="{}", help="of the competitor, as JSON")
  parser.add_argument("--digests", action="store_true", help="print digests of the first batch")
  args = parser.parse_args(argv)
  competitor: Any = importlib.import_module(f"benchmarks.peers.{args.competitor}")
  batches = competitor.batches(args.directory, args.size, args.batch, **json.loads(args.options))
  if args.digests:
    print(json.dumps(digests(next(batches))))
  else:
    print(json.dumps(measure(batches, args.batch, args.warm_up, args.seconds, args.least)))


if __name__ == "__main__":
  main()
