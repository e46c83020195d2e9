"""Checks of a config against what it is used with: devices, data sets and the grid of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jax.sharding import AbstractMesh, Mesh

from xjepa_jax.config import Config, Route
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.errors import ConfigError, DatasetError
from xjepa_jax.model.inputs import SensorInput
from xjepa_jax.model.statistics import count_statistics
from xjepa_jax.training.splits import open_split


def check_batches(config: Config, mesh: Mesh | AbstractMesh, platform: str) -> None:
  """Check that a batch, and each part of it in gradient accumulation, divides over the devices.

  Args:
    config: the resolved config.
    mesh: a mesh of devices, or an abstract one.
    platform: the platform of the devices: "cpu", "gpu" or "tpu".

  Raises:
    ConfigError: a batch does not divide, or the devices lack the configured attention.
  """
  rows = mesh.shape["replica"] * mesh.shape["fsdp"]
  parts = config.training.accumulate
  for key, batch in (
    ("training.batch", config.training.batch),
    ("evaluation.batch", config.evaluation.batch),
  ):
    if batch % (rows * (parts if key == "training.batch" else 1)):
      raise ConfigError(
        f"config key {key!r} is {batch}; it must be a multiple of {rows}, the devices along "
        "mesh.replica and mesh.fsdp"
        + (f", times training.accumulate = {parts}." if parts > 1 else ".")
      )
  if config.model.attention == "cudnn" and platform != "gpu":
    raise ConfigError(
      f"config key 'model.attention' is 'cudnn' and the devices are {platform}; use 'xla'."
    )


def check_splits(config: Config) -> None:
  """Check that every split that will be read exists, before training rather than after it.

  Raises:
    ConfigError, DatasetError: a split or a sensor is missing.
  """
  splits = {
    "data.train": config.data.train,
    "data.test": config.data.test,
    "data.validation": config.data.validation,  # the confidence is fitted on it at the end
  }
  for key, split in splits.items():
    try:
      datasets = open_split(config, split)
    except DatasetError as error:
      if f"split {split!r}" not in str(error):
        raise
      raise DatasetError(f"config key {key!r} is {split!r}: {error}") from error
    _check_sensors(config.data.sensors, datasets)
    for dataset in datasets:
      dataset.close()


def check_heads(config: Config, inputs: Mapping[str, SensorInput]) -> None:
  """Check that every cell of a grid head has a token, and that there are enough image statistics.

  Raises:
    ConfigError: a head has more cells along a side than there are tokens, or its pooling is
      "statistics" and it has more numbers than a sensor's images have statistics.
  """
  given = next(iter(inputs.values()))  # all sensors' tokens lie on one grid
  rows, columns = given.grid
  fewest = min(inputs, key=lambda key: inputs[key].bands)
  told = count_statistics(inputs[fewest].bands)
  for name, head in config.heads.items():
    if head.pooling == "statistics" and head.numbers > told:
      raise ConfigError(
        f"config key 'heads.{name}.numbers' is {head.numbers}; of the {inputs[fewest].bands} bands "
        f"of sensor {fewest!r} there are {told} statistics. Give at most as many."
      )
    if head.pooling == "grid" and head.cells > min(rows, columns):
      raise ConfigError(
        f"config key 'heads.{name}.cells' is {head.cells}; the grid has {rows} x {columns} tokens "
        f"(images of {given.height} x {given.width} pixels, model.patch {given.patch}), so at most "
        f"{min(rows, columns)}. Give fewer cells, or a smaller patch."
      )


def check_routes(routes: Sequence[Route]) -> None:
  """Check that every sensor that is predicted is also a context in training.

  The target encoder is the average of the context encoder. Whatever belongs to a sensor that the
  context encoder never sees, above all its stem, would keep its random initial values.

  Raises:
    ConfigError: a sensor is a target but not a context.
  """
  contexts, targets = ({route[end] for route in routes} for end in range(2))
  for key in sorted(targets - contexts):
    raise ConfigError(
      f"config key 'routes' is {', '.join('->'.join(route) for route in routes)}: no route starts "
      f"from {key!r}, so that its encoder would never be trained. Add '{key}->{key}', or a route "
      "from it to another sensor."
    )


def _check_sensors(wanted: tuple[str, ...], datasets: Sequence[PairDataset]) -> None:
  """Check that every named sensor is in a data set, and that every data set has one of them."""
  known = {key: None for dataset in datasets for key in dataset.format.sensors}
  for key in wanted:
    if key not in known:
      raise ConfigError(
        f"config key 'data.sensors' has {key!r}; the data sets have {', '.join(known)}."
      )
  for dataset in datasets:
    if wanted and not set(wanted) & set(dataset.format.sensors):
      raise ConfigError(
        f"config key 'data.sensors' is {wanted}; {dataset.directory} has none of them, but "
        f"{', '.join(dataset.format.sensors)}."
      )
