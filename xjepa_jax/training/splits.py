"""The splits that a config names, opened."""

from __future__ import annotations

from typing import Any

from xjepa_jax.config import Config
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.description import describe
from xjepa_jax.errors import ConfigError


def open_split(config: Config, split: str) -> list[PairDataset]:
  """The pairs of a split, of each data set.

  Of the training split as many damaged records are replaced as the config allows; what is measured
  on another would be of other pairs than it says.

  Raises:
    ConfigError: no data set is named.
    DatasetError: one cannot be opened, or has no such split.
    SensorError: the config describes a sensor as it cannot be.
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
  """What tells the data sets of a run from others, wherever they lie: digests of each one's
  sensors, and of the pairs that are trained on, that pick the best step and that are tested on.

  Raises:
    DatasetError: one cannot be opened, or lacks a split.
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
  """Pairs of a split, of each data set."""
  sizes = []
  for dataset in open_split(config, split):
    with dataset:
      sizes.append(len(dataset))
  return sizes


def shares(config: Config, split: str, most: int) -> list[int]:
  """How many pairs of a split each data set gives where at most `most` are looked at.

  The same of each, or all where it has fewer: so every archive is among them, and every sensor,
  whichever comes first.

  Args:
    config: names the data sets.
    split: of them.
    most: pairs of all together.

  Returns:
    One number a data set; together `most`, or all there are.
  """
  sizes = split_sizes(config, split)
  given, left = [0] * len(sizes), most
  for done, number in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):
    given[number] = min(sizes[number], left // (len(sizes) - done))
    left -= given[number]
  return given
