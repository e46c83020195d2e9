"""Compiling for tests, where code runs once and making it is what takes the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

UNOPTIMISED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
# Fewer, simpler fusions. An option of some versions of XLA's CPU backend only.
SIMPLE: dict[str, Any] = {**UNOPTIMISED, "xla_cpu_use_fusion_emitters": False}


def compile_quickly(lowered: Any) -> Any:
  """What `jax.jit(...).lower(...)` gave, compiled in about a fifth of the usual time."""
  try:
    return lowered.compile(compiler_options=SIMPLE)
  except jax.errors.JaxRuntimeError:
    return lowered.compile(compiler_options=UNOPTIMISED)


def compiled(function: Callable[..., Any], *args: Any) -> Any:
  """The function's result, as arrays of the host."""
  return jax.device_get(compile_quickly(jax.jit(function).lower(*args))(*args))
