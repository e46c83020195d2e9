"""Ahead-of-time compilation of the train step for devices that are not at hand.

It runs in a process of its own with simulated devices, because XLA_FLAGS has to be set before JAX
starts. If libtpu is installed, the TPU's own compiler can compile the step as well, without a TPU.
The child process reads a JSON request and writes a JSON answer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from xjepa_jax.config import Config, resolve, to_dict
from xjepa_jax.data.batch_source import SensorSlot
from xjepa_jax.errors import TrainingError
from xjepa_jax.scaling.collectives import Collective
from xjepa_jax.sensors import sensor_from_json, sensor_to_json

# A CPU client of JAX accepts at most 2,048 devices of its own (seen with jax 0.10).
MOST_DEVICES = 2048
# XLA's backend does not change the collectives; with it turned off, compiling takes a tenth.
_QUICK: dict[str, Any] = {
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
  "xla_cpu_use_fusion_emitters": False,
}
_MARK = "lowered: "
_CHILD = "from xjepa_jax.scaling.lowering import main; main()"


@dataclasses.dataclass(frozen=True)
class Lowered:
  """A compiled step, per device.

  Attributes:
    compiler: "cpu" or "tpu".
    devices: number of devices of the program.
    mesh: axis -> size.
    collectives: see `scaling.hlo`.
    arguments, temporary, outputs, aliased: bytes, from `memory_analysis()`.
    flops: operations as counted by XLA, which counts a loop's body once.
    seconds: time that compiling took.
  """

  compiler: str
  devices: int
  mesh: Mapping[str, int]
  collectives: tuple[Collective, ...]
  arguments: int
  temporary: int
  outputs: int
  aliased: int
  flops: float
  seconds: float

  @property
  def peak(self) -> int:
    """Bytes needed on a device; donated buffers count once."""
    return self.arguments + self.temporary + self.outputs - self.aliased


def has_libtpu() -> bool:
  """Whether the TPU's compiler is installed."""
  return importlib.util.find_spec("libtpu") is not None


def lower(
  config: Config,
  slots: Mapping[str, SensorSlot],
  mesh: Mapping[str, int],
  platform: str,
  libtpu: str | None = None,
  slices: int = 1,
  timeout: float = 3600.0,
) -> Lowered:
  """Compile the step in a process of its own.

  Args:
    config: resolved config, whose batch divides over the mesh.
    slots: see `blueprint.slots_of`.
    mesh: axis -> size.
    platform: "tpu", "gpu" or "cpu": the platform for which the model is traced.
    libtpu: name of a slice, such as "v5p:4x4x4", to use the TPU's compiler; None simulates CPUs.
    slices: number of TPU slices.
    timeout: seconds.

  Raises:
    TrainingError: the step does not compile, or not in time; the message has the last error lines.
  """
  request = {
    "config": to_dict(config),
    "slots": {
      key: {"sensor": sensor_to_json(slot.sensor), "shape": slot.shape, "bands": slot.bands}
      for key, slot in slots.items()
    },
    "mesh": dict(mesh),
    "platform": platform,
    "libtpu": libtpu,
    "slices": slices,
  }
  count = 1
  for size in mesh.values():
    count *= size
  environment = dict(os.environ, JAX_PLATFORMS="cpu", TPU_SKIP_MDS_QUERY="1")
  # This process may have loaded libtpu as well, and by default only one process may.
  environment["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
  environment.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  environment.setdefault("TPU_ACCELERATOR_TYPE", "v5p-8")
  flags = [] if libtpu else [f"--xla_force_host_platform_device_count={count}"]
  kept = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in flag]
  environment["XLA_FLAGS"] = " ".join(kept + flags)
  try:
    done = subprocess.run(
      [sys.executable, "-c", _CHILD],
      input=json.dumps(request),
      env=environment,
      capture_output=True,
      text=True,
      timeout=timeout,
      check=False,
    )
  except subprocess.TimeoutExpired as error:
    raise TrainingError(
      f"the step for {count} devices did not compile within {timeout:.0f} seconds."
    ) from error
  answers = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
  if done.returncode or not answers:
    reasons = [line for line in done.stderr.splitlines() if "Error" in line or "error" in line]
    last = " ".join(reasons[-1:] or done.stderr.splitlines()[-2:])[:600]
    raise TrainingError(f"the step does not compile for {count} devices: {last}")
  answer = json.loads(answers[-1].removeprefix(_MARK))
  found = tuple(
    Collective(**{**each, "axes": tuple(each["axes"])}) for each in answer.pop("collectives")
  )
  return Lowered(**answer, collectives=found)


def compile_step(experiment: Any, platform: str, options: Mapping[str, Any] | None = None) -> Any:
  """Compile the step of a blueprint whose mesh has devices."""
  import jax

  from xjepa_jax.model.activation import traced_for
  from xjepa_jax.training import mesh as meshes
  from xjepa_jax.training.plan import abstract_batch
  from xjepa_jax.training.step import jit_step

  mesh, state = experiment.mesh, experiment.abstract_state()
  shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
  step = jit_step(experiment.step, shardings, meshes.batch_sharding(mesh), meshes.replicated(mesh))
  with traced_for(platform):
    lowered = step.lower(state, abstract_batch(experiment))  # type: ignore[attr-defined]
  return lowered.compile(compiler_options=dict(options or {}))


def quick_options() -> dict[str, Any]:
  """The options of the CPU's compiler in `_QUICK` that this version of XLA knows."""
  import jax

  found = {}
  for name, value in _QUICK.items():
    with contextlib.suppress(jax.errors.JaxRuntimeError, ValueError, TypeError):
      jax.jit(lambda x: x + 1).lower(0.0).compile(compiler_options={name: value})
      found[name] = value
  return found


def main() -> None:
  """Entry point of the child: read a request from stdin, print the answer as one line of stdout."""
  request = json.load(sys.stdin)
  import jax

  from xjepa_jax.scaling.blueprint import blueprint
  from xjepa_jax.scaling.hlo import collectives
  from xjepa_jax.training.compiler_options import options_for

  slots = {
    key: SensorSlot(
      sensor_from_json(each["sensor"], key),
      tuple(each["shape"]),
      None if each["bands"] is None else tuple(each["bands"]),
    )
    for key, each in request["slots"].items()
  }
  mesh = _mesh(request)
  experiment = blueprint(resolve(request["config"]), mesh, slots, request["platform"])
  start = time.monotonic()
  with tempfile.TemporaryDirectory() as folder:
    if request["libtpu"]:
      # libtpu's client cannot print the optimised program, but the compiler can dump it.
      options: dict[str, Any] = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
      options |= options_for("tpu", mesh.devices.flat[0].device_kind, mesh.size)
    else:
      options = quick_options()
    compiled = compile_step(experiment, request["platform"], options)
    seconds = time.monotonic() - start
    dumped = glob.glob(f"{folder}/*step*after_optimizations.txt")
    if dumped:
      with open(dumped[0], encoding="utf-8") as file:
        text = file.read()
    else:
      text = compiled.as_text()
  needed = compiled.memory_analysis()
  cost = compiled.cost_analysis() or {}
  cost = cost[0] if isinstance(cost, list) else cost
  answer = Lowered(
    compiler="tpu" if request["libtpu"] else "cpu",
    devices=mesh.size,
    mesh=dict(mesh.shape),
    collectives=tuple(collectives(text, dict(mesh.shape))),
    arguments=int(needed.argument_size_in_bytes),
    temporary=int(needed.temp_size_in_bytes),
    outputs=int(needed.output_size_in_bytes),
    aliased=int(needed.alias_size_in_bytes),
    flops=float(cost.get("flops", 0.0)),
    seconds=seconds,
  )
  # Whatever was compiled, nothing may have run on an accelerator.
  assert jax.default_backend() == "cpu"
  print(_MARK + json.dumps(dataclasses.asdict(answer)))


def _mesh(request: Mapping[str, Any]) -> Any:
  """A mesh of simulated devices, or of a TPU's described ones, with slices along `replica`."""
  import jax
  from jax.experimental import topologies

  from xjepa_jax.training.mesh import make_mesh

  if not request["libtpu"]:
    return make_mesh(**request["mesh"], devices=jax.devices())
  slices = request["slices"]
  extra = {"num_slices": slices} if slices > 1 else {}
  described = topologies.get_topology_desc(platform="tpu", topology_name=request["libtpu"], **extra)
  return make_mesh(**request["mesh"], devices=described.devices)
