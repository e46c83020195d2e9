"""The splits that a config names: opened, identified by digest, and sampled."""

from __future__ import annotations

from typing import Any

from xjepa_jax.config import Config
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.description import describe
from xjepa_jax.errors import ConfigError


def open_split(config: Config, split: str) -> list[PairDataset]:
  """Open a split of every data set.

  In the training split, as many damaged records are replaced as the config allows. In other splits
  none are, because a measurement would then be on other pairs than it claims.

  Raises:
    ConfigError: no data set is named.
    DatasetError: a data set cannot be opened, or has no such split.
    SensorError: the config describes a sensor in a way that cannot be.
  """
  if not config.data.directories:
    raise ConfigError(
      "config key 'data.directories' is empty; name a data set. "
      "`python -m xjepa_jax.data.importers --help` says how one is made of an archive."
    )
  bad_records = config.data.bad_records if split == config.data.train else 0
  opened = [
    PairDataset(each, split, config.data.verify, bad_records, config.sensors)
    for each in config.data.directories
  ]
  held = sorted({key for dataset in opened for key in dataset.format.sensors})
  for key in config.sensors:
    if key not in held:
      raise ConfigError(
        f"config key 'sensors.{key}' describes a sensor that no data set has; there are "
        f"{', '.join(held)}."
      )
  return opened


def data_digests(config: Config) -> list[dict[str, Any]]:
  """Return digests that identify a run's data sets wherever they are stored.

  There is one for each data set's sensors, and one for each split used for training, for choosing
  the best step and for testing.

  Raises:
    DatasetError: a data set cannot be opened, or lacks a split.
  """
  found: list[dict[str, Any]] = []
  for directory in config.data.directories:
    digests: dict[str, str] = {}
    description = describe(directory)
    needed = (config.data.train, config.data.validation)
    tested = (config.data.test,) if config.data.test in description.splits else ()
    for split in dict.fromkeys((*needed, *tested)):
      with PairDataset(directory, split) as dataset:
        digests[split] = dataset.records.digest()
    found.append({"directory": directory, "sensors": description.digest(), "splits": digests})
  return found


def split_sizes(config: Config, split: str) -> list[int]:
  """Return the number of pairs in a split of each data set."""
  sizes = []
  for dataset in open_split(config, split):
    with dataset:
      sizes.append(len(dataset))
  return sizes


def shares(config: Config, split: str, most: int) -> list[int]:
  """Return how many pairs of a split each data set contributes if at most `most` are used.

  Every data set contributes the same number, or all its pairs where it has fewer, so that every
  archive and every sensor is represented, whichever comes first.

  Args:
    config: names the data sets.
    split: name of the split.
    most: number of pairs over all data sets.

  Returns:
    One number per data set; together they are `most`, or all the pairs that there are.
  """
  sizes = split_sizes(config, split)
  given, left = [0] * len(sizes), most
  # In ascending order of size, so that what small data sets lack is shared among the larger ones.
  for done, number in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):
    given[number] = min(sizes[number], left // (len(sizes) - done))
    left -= given[number]
  return given
