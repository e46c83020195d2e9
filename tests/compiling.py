"""Compiling for tests, where code runs once and making it is what takes the time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

UNOPTIMISED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
# Fewer, simpler fusions.
SIMPLE = {**UNOPTIMISED, "xla_cpu_use_fusion_emitters": False}


def compile_quickly(lowered: Any) -> Any:
  """What `jax.jit(...).lower(...)` gave, compiled in about a fifth of the usual time."""
  return lowered.compile(compiler_options=known(SIMPLE))


def compiled(function: Callable[..., Any], *args: Any) -> Any:
  """The function's result, as arrays of the host."""
  return jax.device_get(compile_quickly(jax.jit(function).lower(*args))(*args))


def known(options: dict[str, Any]) -> dict[str, Any]:
  """Those options that this version of XLA knows; it refuses to compile with any other."""
  return {name: value for name, value in options.items() if _is_known(name, value)}


@functools.cache
def _is_known(name: str, value: Any) -> bool:
  try:
    jax.jit(lambda x: x + 1).lower(0.0).compile(compiler_options={name: value})
  except (jax.errors.JaxRuntimeError, ValueError, TypeError):
    return False
  return True
