"""Builds or times one index, in the process that this file is started in.

  python -m benchmarks.peers.search_measure build "faiss, sq8" DIRECTORY
  python -m benchmarks.peers.search_measure search "faiss, sq8" DIRECTORY --seconds 5

Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

import numpy as np

from benchmarks.peers.process_tree import cpu_seconds, proportional
from benchmarks.peers.search_archive import K
from benchmarks.peers.search_engines import ENGINES, Search, build, opened

_WARM_UP = 3
_LEAST = 20
_MOST = 2000  # searches: their latencies are printed, and a pipe that nobody empties holds 64 KiB


def measure_build(title: str, directory: str, server: str) -> dict[str, float]:
  """Seconds, processor seconds of this process, and bytes on the disk."""
  start, cpu = time.perf_counter(), cpu_seconds(os.getpid())
  size = build(title, directory, server)
  return {
    "seconds": time.perf_counter() - start,
    "cpu_seconds": cpu_seconds(os.getpid()) - cpu,
    "disk": size,
  }


def measure_search(title: str, directory: str, seconds: float, postmaster: int) -> dict[str, Any]:
  """Latencies in seconds of single queries and of batches of 64, recall, and memory."""
  queries = np.load(f"{directory}/queries.npy")
  truth = np.load(f"{directory}/truth.npy")
  start = time.perf_counter()
  search = opened(title, directory)
  single = latencies(search, queries, 1, seconds)
  ready = time.perf_counter() - start - sum(single)
  many = latencies(search, queries, 64, seconds)
  found = np.concatenate([search(queries[at : at + 64], K) for at in range(0, len(queries), 64)])
  hits = sum(len(np.intersect1d(a, b)) for a, b in zip(found, truth, strict=True))
  memory = proportional(os.getpid())
  if title.startswith("pgvector"):
    memory += proportional(postmaster)
  return {
    "single": single,
    "many": many,
    "recall": hits / truth.size,
    "opening_seconds": ready,
    "memory": memory,
  }


def latencies(search: Search, queries: np.ndarray, batch: int, seconds: float) -> list[float]:
  """Seconds of each search, of batches that follow each other, after a warm-up."""
  found: list[float] = []
  starts = range(0, len(queries) - batch + 1, batch)
  for number in range(_WARM_UP):
    search(queries[starts[number] : starts[number] + batch], K)
  begun = time.perf_counter()
  while len(found) < _LEAST or (len(found) < _MOST and time.perf_counter() - begun < seconds):
    at = starts[len(found) % len(starts)]
    start = time.perf_counter()
    search(queries[at : at + batch], K)
    found.append(round(time.perf_counter() - start, 6))
  return found


if __name__ == "__main__":
  parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.search_measure")
  parser.add_argument("what", choices=("build", "search"))
  parser.add_argument("title", choices=ENGINES)
  parser.add_argument("directory", help="of an archive that search_archive wrote")
  parser.add_argument("--seconds", type=float, default=5.0, help="of each size of batch")
  parser.add_argument("--server", default="", help="of PostgreSQL")
  parser.add_argument("--postmaster", type=int, default=0, help="process of that server")
  args = parser.parse_args()
  if args.what == "build":
    print(json.dumps(measure_build(args.title, args.directory, args.server)))
  else:
    print(json.dumps(measure_search(args.title, args.directory, args.seconds, args.postmaster)))
