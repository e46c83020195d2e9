"""Real processes on loopback agree on what they save, what is damaged, and what is refused."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from xjepa_jax.training.checkpoint import Checkpoints
from xjepa_jax.training.mesh import make_mesh

WORKER = Path(__file__).with_name("checkpoints_worker.py")


def free_port() -> int:
  with socket.socket() as sock:
    sock.bind(("127.0.0.1", 0))
    return int(sock.getsockname()[1])


def test_two_processes_save_together_and_one_restores_alone(tmp_path: Path) -> None:
  said = [tmp_path / "said-0", tmp_path / "said-1"]  # not stdout, where Gloo's threads write too
  flags = "--xla_force_host_platform_device_count=2"
  started = [
    subprocess.Popen(
      [
        sys.executable,
        str(WORKER),
        str(tmp_path),
        f"127.0.0.1:{port}",
        "2",
        str(process),
        str(file),
      ],
      env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for port in [free_port()]
    for process, file in enumerate(said)
  ]
  try:
    for process, file in zip(started, said, strict=True):
      _, errors = process.communicate(timeout=180)
      assert process.returncode == 0, errors[-4000:]
      assert file.read_text().splitlines() == [
        "saved 1",
        "saved 2",
        "saved 4",
        "restored 2 {2.0} 2",
        "refused True",
      ], errors[-4000:]
  finally:
    for process in started:
      process.kill()
  assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"1", "2", "4.bad"}

  mesh = make_mesh(1, 1, 1, jax.devices()[:1])
  alone = NamedSharding(mesh, PartitionSpec())
  target = {
    "step": jax.ShapeDtypeStruct((), np.int32, sharding=alone),
    "kernel": jax.ShapeDtypeStruct((8, 3), np.float32, sharding=alone),
  }
  with Checkpoints(str(tmp_path), {}, read_only=True) as checkpoints:
    np.testing.assert_array_equal(checkpoints.restore(target)["kernel"], np.full((8, 3), 2.0))
