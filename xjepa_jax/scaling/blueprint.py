"""An experiment without its data set: enough to lower its step, not to run it.

The sensors are those of the data set if it is there, else those of the simulation, whose bands are
Sentinel-1's and Sentinel-2's; so is the size of an image if the config does not say.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from xjepa_jax.config import Config, parse_bands, parse_routes
from xjepa_jax.data import storage
from xjepa_jax.data.batch_source import SensorSlot
from xjepa_jax.data.description import INFO_FILE
from xjepa_jax.data.simulate import simulated_archive
from xjepa_jax.errors import ConfigError
from xjepa_jax.model import xjepa
from xjepa_jax.model.masking import plan_masks
from xjepa_jax.objective import table
from xjepa_jax.training import checks, experiment
from xjepa_jax.training import mesh as meshes
from xjepa_jax.training import step as steps
from xjepa_jax.training.target import momentum_schedule

_PIXELS = 64  # of a simulated image, where the config names no size


def slots_of(config: Config, pixels: int = 0) -> tuple[dict[str, SensorSlot], bool]:
  """How batches have each sensor, and whether the simulation's were taken for the data set's.

  Args:
    config: resolved.
    pixels: side of the images that are stored where the data set is not there; 0 is the config's.

  Raises:
    ConfigError, DatasetError: the data set is there and is not as the config says.
  """
  directories = config.data.directories
  if directories and all(storage.exists(f"{each}/{INFO_FILE}") for each in directories):
    return dict(experiment._slots(config)), False
  size = pixels or config.data.image_size or _PIXELS
  bands = parse_bands(config.data.bands)
  slots = {}
  for key, sensor in simulated_archive(10).sensors.items():
    if config.data.sensors and key not in config.data.sensors:
      continue
    chosen = sensor.select(bands[key]) if key in bands else sensor
    slots[key] = SensorSlot(chosen, (size, size, len(chosen.bands)), None)
  if not slots:
    raise ConfigError(
      f"the data sets {directories} are not here, and of the sensors {config.data.sensors} the "
      "simulation has none; import a data set, or leave data.sensors empty."
    )
  return slots, True


def blueprint(
  config: Config, mesh: Mesh, slots: Mapping[str, SensorSlot], platform: str
) -> experiment.Experiment:
  """The experiment on a mesh, which may be of devices that are not there.

  Args:
    config: resolved.
    mesh: of devices, or abstract.
    slots: see `slots_of`.
    platform: "tpu", "gpu" or "cpu", on which a run would be; decides the precision "auto".

  Raises:
    ConfigError: values that do not go together.
  """
  check_batch(config, mesh)
  inputs = experiment._inputs(config, slots)
  checks.check_heads(config, inputs)
  dtype = precision(config, platform)
  model = xjepa.build(config, inputs, parse_routes(config.routes, tuple(inputs)), dtype)
  objective = table.build(experiment._terms(config))
  plan = plan_masks(model.grid, **dataclasses.asdict(config.mask))
  target = config.target
  momentum = momentum_schedule(
    target.schedule, target.momentum, target.final_momentum, config.training.steps
  )
  transform = experiment._optimizer(config, momentum)
  return experiment.Experiment(
    config=config,
    mesh=mesh,
    inputs=inputs,
    slots=slots,
    model=model,
    objective=objective,
    plan=plan,
    optimizer=transform,
    schedules=experiment._schedules(config),
    momentum=momentum,
    step=steps.train_step(model, objective, transform, plan, config),
    describe=None,
    tokens=None,
    predict=None,
  )


def mesh_sizes(config: Config, devices: int) -> dict[str, int]:
  """Axis -> size of the config's mesh on that many devices.

  Raises:
    ConfigError: they do not fit.
  """
  sizes = {axis: getattr(config.mesh, axis) for axis in meshes.AXES}
  given = math.prod(size for size in sizes.values() if size != -1)
  rest = [axis for axis, size in sizes.items() if size == -1]
  if any(size == 0 or size < -1 for size in sizes.values()) or len(rest) > 1:
    raise ConfigError(f"config keys mesh.* are {sizes}; one axis may be -1, the others 1 or more.")
  if devices % given or (not rest and given != devices):
    named = ", ".join(f"mesh.{axis} {size}" for axis, size in sizes.items())
    raise ConfigError(f"{devices} devices do not divide into {named}; set one of them to -1.")
  for axis in rest:
    sizes[axis] = devices // given
  return sizes


def precision(config: Config, platform: str) -> Any:
  """In which products would be computed on a platform."""
  named = config.training.precision
  if named == "auto":
    named = "float32" if platform == "cpu" else "bfloat16"
  return jnp.dtype(named)


def check_batch(config: Config, mesh: Mesh | AbstractMesh) -> None:
  """Refuses a batch that does not divide over a mesh.

  Raises:
    ConfigError: it does not.
  """
  rows = mesh.shape["replica"] * mesh.shape["fsdp"] * config.training.accumulate
  if config.training.batch % rows:
    raise ConfigError(
      f"config key 'training.batch' is {config.training.batch}; it must be a multiple of {rows}: "
      f"mesh.replica {mesh.shape['replica']} x mesh.fsdp {mesh.shape['fsdp']} x "
      f"training.accumulate {config.training.accumulate}."
    )
