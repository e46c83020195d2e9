"""One process of several: prints a digest of every row of every batch that its devices hold.

python batches_worker.py DIRECTORY COORDINATOR PROCESSES PROCESS START STEPS
"""

from __future__ import annotations

import hashlib
import sys

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.pipeline import Pipeline


def main() -> None:
  directory, coordinator = sys.argv[1:3]
  processes, process, start, steps = map(int, sys.argv[3:])
  if processes > 1:
    jax.distributed.initialize(coordinator, processes, process, initialization_timeout=60)
  mesh = Mesh(np.array(jax.devices()).reshape(2, -1), ("replica", "fsdp"))
  sharding = NamedSharding(mesh, PartitionSpec(("replica", "fsdp")))
  with Pipeline(PairDataset(directory), batch=16, sharding=sharding, seed=3) as pipeline:
    for step, batch in pipeline.batches(start):
      if step == start + steps:
        break
      leaves, _ = jax.tree_util.tree_flatten_with_path(batch)
      for path, array in leaves:
        assert array.shape[0] == 16 and len(array.sharding.device_set) == 4
        for shard in array.addressable_shards:
          for row, values in enumerate(np.asarray(shard.data), shard.index[0].start or 0):
            digest = hashlib.sha256(values.tobytes()).hexdigest()
            print("row", step, jax.tree_util.keystr(path), row, digest)


if __name__ == "__main__":
  main()
