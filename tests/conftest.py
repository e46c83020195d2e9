"""What tests of several rooms need: the real pairs beside the repository, and a small archive."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before anything imports NumPy: on two cores that also run JAX, BLAS threads wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# 8 devices on one CPU, before anything imports JAX.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
  [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
).strip()


@pytest.fixture(scope="session")
def shared_data() -> Path:
  """The folder of real pairs, or a skip with the reason."""
  folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
  if not folder.is_dir():
    pytest.skip("the real pairs are not beside the repository (folder shared/data)")
  return folder


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> str:
  """A data set of 160 simulated pairs of 16 pixels: 128 train, 16 validation, 16 test."""
  from xjepa_jax.data.import_plan import plan_import
  from xjepa_jax.data.simulate import simulated_archive
  from xjepa_jax.data.writer import write_dataset

  directory = str(tmp_path_factory.mktemp("simulated") / "pairs")
  plan = plan_import(simulated_archive(pairs=160, size=16), shard_bytes=100_000, encoding="bytes")
  write_dataset(plan, directory)
  return directory


@dataclasses.dataclass(frozen=True)
class FinishedRun:
  """A run of the debug config: its config, its directory, and what it printed."""

  config: Any
  workdir: str
  printed: str


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> str:
  """A compilation cache that all runs share, those in processes of their own as well."""
  import jax

  directory = str(tmp_path_factory.mktemp("compiled"))
  jax.config.update("jax_compilation_cache_dir", directory)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
  return directory


@contextlib.contextmanager
def compiling_quickly() -> Iterator[None]:
  """Half the time, for programs that run for milliseconds."""
  import jax

  before = jax.config.values["jax_disable_most_optimizations"]
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def compiled_quickly() -> Iterator[None]:
  """For modules of tests that compile much and compute little."""
  with compiling_quickly():
    yield


@pytest.fixture(scope="session")
def finished_run(
  simulated: str, compiled: str, tmp_path_factory: pytest.TempPathFactory
) -> FinishedRun:
  """One run from its config to its report, uninterrupted."""
  from tests.debug_config import get_config
  from xjepa_jax.config import resolve
  from xjepa_jax.run import run

  config = resolve(get_config(simulated))
  workdir = str(tmp_path_factory.mktemp("finished") / "run")
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed), compiling_quickly():
    run(config, workdir)
  return FinishedRun(config, workdir, printed.getvalue())
