"""An experiment without its data set: enough to compile its step, not to run it.

The sensors are those of the data set if it is present, else those of the simulation, with the bands
of Sentinel-1 and Sentinel-2. The same holds for the image size, if the config does not set it.
"""

from __future__ import annotations

from collections.abc import Mapping

from jax.sharding import Mesh

from xjepa_jax.config import Config, parse_bands
from xjepa_jax.data import storage
from xjepa_jax.data.batch_source import SensorSlot
from xjepa_jax.data.description import INFO_FILE
from xjepa_jax.data.simulate import simulated_archive
from xjepa_jax.errors import ConfigError
from xjepa_jax.training import experiment
from xjepa_jax.training.validation import check_batches

_PIXELS = 64  # side of a simulated image if the config sets no size


def slots_of(config: Config, pixels: int = 0) -> tuple[dict[str, SensorSlot], bool]:
  """The layout of each sensor in a batch, and whether the simulation's sensors are used.

  Args:
    config: resolved config.
    pixels: side of the stored images if the data set is absent; 0 means the config's.

  Raises:
    ConfigError, DatasetError: the data set is present but does not fit the config.
  """
  directories = config.data.directories
  if directories and all(storage.exists(f"{each}/{INFO_FILE}") for each in directories):
    return dict(experiment.data_slots(config)), False
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
  """The experiment on a mesh, whose devices need not exist.

  Args:
    config: resolved config.
    mesh: mesh of devices, or an abstract one.
    slots: see `slots_of`.
    platform: "tpu", "gpu" or "cpu", the platform of the run; decides the precision "auto".

  Raises:
    ConfigError: values that do not fit together.
  """
  check_batches(config, mesh, platform)
  dtype = experiment.compute_dtype(config, platform)
  return experiment.build_experiment(config, mesh, slots, dtype)
