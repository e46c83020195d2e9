"""Compiler options that overlap communication between devices with matrix products.

They are in one table, by platform and generation. They are passed to the compiler with the step and
not through XLA_FLAGS, where an option that a version does not know aborts the process. Here an
unknown option is left out and named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax

from xjepa_jax.training.progress import say


class Option(NamedTuple):
  """A compiler option for some kinds of device.

  Attributes:
    name, value: as XLA defines them.
    devices: a pattern for "platform kind" as JAX names them: "gpu NVIDIA H100", "tpu TPU v5 lite".
    why: what the option does.
  """

  name: str
  value: bool | int | str
  devices: str
  why: str


_TPU, _GPU, _V5E = "^tpu ", "^gpu ", "^tpu TPU v5 ?(lite|e)"
# Sources: OpenXLA's flags guidance (openxla.org/xla/flags_guidance) and JAX's and NVIDIA's pages on
# GPU performance. The TPU options were tried with libtpu 0.0.52's compiler for v5e, v5p and v6e,
# the GPU options with jaxlib 0.10; each compiler knows its options. The gain was not measured.
TABLE = (
  Option(
    "xla_gpu_enable_latency_hiding_scheduler", True, _GPU, "starts messages early, waits late"
  ),
  Option("xla_gpu_enable_pipelined_all_gather", True, _GPU, "gathers a layer during that before"),
  Option("xla_gpu_enable_pipelined_reduce_scatter", True, _GPU, "sums a layer during the next"),
  Option("xla_gpu_enable_pipelined_all_reduce", True, _GPU, "the same between replicas"),
  Option("xla_enable_async_all_gather", "true", _V5E, "gathers beside products"),
  Option("xla_tpu_enable_async_collective_fusion", "true", _V5E, "runs them inside of products"),
  Option(
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather", "true", _V5E, "gathers inside, too"
  ),
  Option(
    "xla_tpu_enable_data_parallel_all_reduce_opt", "true", _TPU, "sums over slices during backward"
  ),
  Option(
    "xla_tpu_data_parallel_opt_different_sized_ops", "true", _TPU, "the same for unlike layers"
  ),
)


def options_for(platform: str, kind: str, devices: int) -> dict[str, Any]:
  """Return option -> value for a number of devices of one kind; {} for a single device.

  Args:
    platform, kind: as JAX names them, such as "gpu" and "NVIDIA H100 80GB HBM3".
    devices: number of devices of the mesh.
  """
  named = f"{platform} {kind}"
  chosen = (each for each in TABLE if re.search(each.devices, named))
  return {each.name: each.value for each in chosen} if devices > 1 else {}


def compile_step(lowered: Any, devices: Iterable[jax.Device], hide: bool) -> Any:
  """Compile the step with the options for its devices; unknown options are left out.

  Args:
    lowered: the step as lowered by JAX.
    devices: the devices of the mesh.
    hide: whether to hide communication behind products; False compiles without any option.
  """
  devices = list(devices)
  first = devices[0]
  options = options_for(first.platform, first.device_kind, len(devices)) if hide else {}
  return compile_with(lowered, options)


def compile_with(lowered: Any, options: dict[str, Any]) -> Any:
  """Compile with the given options; those that the compiler does not know are left out."""
  try:
    return lowered.compile(compiler_options=options)
  except jax.errors.JaxRuntimeError as error:
    # The name of the unknown option is only in the message; every attempt drops one.
    unknown = re.search(r"No such compile option: '(\w+)'", str(error))
    if not unknown or unknown[1] not in options:
      raise
    say(f"Note: this compiler does not know {unknown[1]}; compiling without it")
    return compile_with(lowered, {k: v for k, v in options.items() if k != unknown[1]})
