"""How long a data set takes to open, and how much memory that needs.

  python -m benchmarks.peers.opening DIRECTORY

Prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time

from benchmarks.peers.process_tree import high_water


def open_and_place(directory: str) -> dict[str, float]:
  """Seconds to import, to open, to construct the pipeline, to place the first 64 positions.

  "seconds" is the sum without the imports; "resident" is VmHWM in bytes, imports included.
  """
  start = time.perf_counter()
  import numpy as np

  from xjepa_jax.data.dataset import PairDataset
  from xjepa_jax.data.pipeline import Pipeline

  imported = time.perf_counter()
  pairs = PairDataset(directory)
  opened = time.perf_counter()
  with Pipeline(pairs, batch=64) as pipeline:
    made = time.perf_counter()
    pipeline.source.order.places(np.arange(64))
    placed = time.perf_counter()
  return {
    "records": len(pairs),
    "import_seconds": imported - start,
    "open_seconds": opened - imported,
    "pipeline_seconds": made - opened,
    "place_seconds": placed - made,
    "seconds": placed - imported,
    "resident": high_water(os.getpid()),
  }


if __name__ == "__main__":
  print(json.dumps(open_and_place(sys.argv[1])))
