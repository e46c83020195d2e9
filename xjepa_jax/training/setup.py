"""Preparations before a run is opened: its directory, the compilation cache, simulated pairs."""

from __future__ import annotations

import os

import jax

from xjepa_jax.config import Config
from xjepa_jax.data import storage
from xjepa_jax.data.cores import usable_cores
from xjepa_jax.data.description import INFO_FILE
from xjepa_jax.data.import_plan import plan_import
from xjepa_jax.data.simulate import simulated_archive
from xjepa_jax.data.writer import write_dataset
from xjepa_jax.errors import CheckpointError, ConfigError
from xjepa_jax.training.consensus import first_decides
from xjepa_jax.training.progress import say

_SHARD_BYTES = 128_000_000


def check_workdir(workdir: str) -> None:
  """Refuse at once a directory in which the first checkpoint could not be written.

  Raises:
    ConfigError: it is in object storage.
    CheckpointError: it cannot be created or written.
  """
  if storage.is_remote(workdir):
    raise ConfigError(
      f"--workdir={workdir}: a run writes into a directory of this machine or a mounted disk. Copy "
      "it to object storage when it is done."
    )
  place = os.path.abspath(workdir)
  # The nearest existing ancestor decides whether the directory can be created.
  while not os.path.lexists(place):
    place = os.path.dirname(place)
  if not os.path.isdir(place) or not os.access(place, os.W_OK | os.X_OK):
    what = "may not be written" if os.path.isdir(place) else "is a file"
    raise CheckpointError(
      f"{workdir}: cannot be used as a working directory, for {place} {what}. Name one that can be "
      "made and written."
    )


def use_compilation_cache(workdir: str) -> None:
  """Cache compiled programs for when the run is resumed; a cache that is already set is kept."""
  if not jax.config.values["jax_compilation_cache_dir"]:
    jax.config.update("jax_compilation_cache_dir", os.path.abspath(f"{workdir}/compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def simulate_if_asked(config: Config) -> None:
  """Write the simulated data set if the config asks for one that does not exist yet.

  Raises:
    ConfigError: more than one data set is named.
    DataError: it cannot be written.
  """
  if not config.data.simulate or not config.data.directories:
    return
  (directory, *others) = config.data.directories
  if others:
    raise ConfigError(
      "config key 'data.simulate' is for a single data set, and data.directories names "
      f"{len(others) + 1}; set it to 0."
    )
  first_decides(lambda: _simulate(config, directory))


def _simulate(config: Config, directory: str) -> None:
  """Runs on the first process, while the others wait."""
  if storage.exists(f"{directory}/{INFO_FILE}"):
    return
  say(f"Simulating {config.data.simulate:,} pairs into {directory}")
  plan = plan_import(simulated_archive(config.data.simulate), _SHARD_BYTES, "bytes")
  write_dataset(plan, directory, usable_cores(), resume=os.path.isdir(directory))
