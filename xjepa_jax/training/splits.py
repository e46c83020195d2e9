"""The splits that a config names, opened."""

from __future__ import annotations

from xjepa_jax.config import Config
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.errors import ConfigError


def open_split(config: Config, split: str) -> list[PairDataset]:
  """The pairs of a split, of each data set.

  Of the training split as many damaged records are replaced as the config allows; what is measured
  on another would be of other pairs than it says.

  Raises:
    ConfigError: no data set is named.
    DatasetError: one cannot be opened, or has no such split.
  """
  if not config.data.directories:
    raise ConfigError(
      "config key 'data.directories' is empty; name a data set. "
      "`python -m xjepa_jax.data.importers --help` says how one is made of an archive."
    )
  bad_records = config.data.bad_records if split == config.data.train else 0
  return [
    PairDataset(each, split, config.data.verify, bad_records) for each in config.data.directories
  ]
