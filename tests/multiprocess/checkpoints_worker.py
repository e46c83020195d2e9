"""One process of several: saves, finds a checkpoint damaged, restores, is refused.

It writes each of these to FILE:

python checkpoints_worker.py WORKDIR COORDINATOR PROCESSES PROCESS FILE
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from xjepa_jax.config import CheckpointConfig
from xjepa_jax.errors import CheckpointError
from xjepa_jax.training.checkpoint import Checkpoints
from xjepa_jax.training.mesh import make_mesh

CONFIG = {"model": {"width": 16}}


def main() -> None:
  workdir, coordinator = sys.argv[1:3]
  processes, process = map(int, sys.argv[3:5])
  jax.distributed.initialize(coordinator, processes, process, initialization_timeout=60)
  along = NamedSharding(make_mesh(), PartitionSpec("fsdp"))
  whole = NamedSharding(make_mesh(), PartitionSpec())
  target = {
    "step": jax.ShapeDtypeStruct((), np.int32, sharding=whole),
    "kernel": jax.ShapeDtypeStruct((8, 3), np.float32, sharding=along),
  }
  with Checkpoints(workdir, CONFIG, CheckpointConfig(every=2, keep=3)) as checkpoints:
    for step in range(1, 5):
      state = {
        "step": jax.device_put(np.int32(step), whole),
        "kernel": jax.device_put(np.full((8, 3), step, np.float32), along),
      }
      if checkpoints.save(step, state):
        print("saved", step)
    checkpoints.wait()
    if process == 0:
      path = Path(workdir, "checkpoints", "4", "about", "metadata")
      path.write_bytes(path.read_bytes().replace(b"16", b"17"))
    multihost_utils.sync_global_devices("damaged")
    restored = checkpoints.restore(target)
    values = {float(v) for s in restored["kernel"].addressable_shards for v in np.ravel(s.data)}
    print("restored", int(restored["step"]), values, checkpoints.latest)
  try:
    Checkpoints(workdir, {"model": {"width": 32}})
  except CheckpointError as error:
    print("refused", "model.width: 16, 32" in str(error))
  multihost_utils.sync_global_devices("done")


if __name__ == "__main__":
  with open(sys.argv[5], "w") as said, contextlib.redirect_stdout(said):
    main()
