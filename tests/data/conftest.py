"""Small data sets for the tests of the record layer."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pytest

from xjepa_jax.data import framing, shard_index
from xjepa_jax.data.archive import Archive, Entry
from xjepa_jax.data.import_plan import plan_import
from xjepa_jax.data.pairs import Observation, Pair
from xjepa_jax.data.writer import write_dataset
from xjepa_jax.sensor_presets import PRESETS

SENSORS = {"s1": PRESETS["sentinel1_grd"], "s2": PRESETS["sentinel2_l2a"]}
PAIR_BYTES = 6 * 5 * 2 * 4 + 3 * 4 * 12 * 2  # of the values of `_pair`

PairMaker = Callable[[int], Pair]
DatasetBuilder = Callable[..., str]
ShardWriter = Callable[[str, Sequence[bytes]], None]


def _pair(number: int, lacking: bool = True) -> Pair:
  """A pair whose strings have lengths of their own; with `lacking`, one in five has one sensor."""
  rng = np.random.default_rng(number)
  observations = {
    "s1": Observation(rng.normal(-12, 4, (6, 5, 2)).astype(np.float32), "2017-06-13"[: number % 5]),
    "s2": Observation(rng.integers(1, 9999, (3, 4, 12)).astype(np.uint16), "2017" * (number % 3)),
  }
  if lacking and number % 5 == 3:
    del observations["s1" if number % 2 else "s2"]
  return Pair(
    pair_id=f"pair-{number}" + "ü" * (number % 7),
    observations=observations,
    labels=tuple(f"label {i}" for i in range(number % 4)),
    longitude=20 + number / 7,
    latitude=-44.0 - number / 7,
    crs="EPSG:32634" if number % 2 else "",
    transform=(10.0, 0.0, 600000.0 + number, 0.0, -10.0, 4900000.0),
  )


def _read(entry: Entry, lacking: bool) -> Pair:
  return _pair(entry.source, lacking)


class Views(NamedTuple):
  """Simulated scenes: optical (N, H, W, 12), SAR (N, H, W, 2), classes (N, H, W), labels."""

  optical: np.ndarray
  sar: np.ndarray
  classes: np.ndarray
  labels: list[tuple[str, ...]]


@pytest.fixture(scope="session")
def views() -> Views:
  """1000 scenes of 64 pixels."""
  from xjepa_jax.data.scenes import scene  # SciPy takes a while: not for those who only write

  made = [scene(2024, i) for i in range(1000)]
  optical = np.stack([each.optical for each in made]).astype(np.float32)
  sar, classes = (np.stack([getattr(each, n) for each in made]) for n in ("sar", "classes"))
  return Views(optical, sar, classes, [each.labels for each in made])


@pytest.fixture(scope="session")
def make_pair() -> PairMaker:
  """Pair `number`, as the data sets below hold it: "s1" (6, 5, 2), "s2" (3, 4, 12)."""
  return _pair


@pytest.fixture(scope="session")
def build_dataset() -> DatasetBuilder:
  """Writes pairs `make_pair(0)`, `make_pair(1)`, ... as a data set of those counts by split."""

  def build(
    directory: str | os.PathLike[str],
    train: int = 12,
    validation: int = 6,
    encoding: str = "bytes",
    pairs_a_shard: int = 4,
    lacking: bool = True,
  ) -> str:
    entries = [Entry(_pair(number).pair_id, number) for number in range(train + validation)]
    splits = {"train": entries[:train], "validation": entries[train:]}
    read = functools.partial(_read, lacking=lacking)
    archive = Archive("small", SENSORS, {k: v for k, v in splits.items() if v}, read)
    write_dataset(plan_import(archive, pairs_a_shard * PAIR_BYTES, encoding), str(directory))
    return str(directory)

  return build


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory, build_dataset: DatasetBuilder) -> str:
  """A data set of 12 and 6 pairs in shards of at most 4. Shared: not to be changed."""
  return build_dataset(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="session")
def write_shard() -> ShardWriter:
  """Writes records as a shard with its index; their checksums are right whatever they hold."""

  def write(path: str, records: Sequence[bytes]) -> None:
    shard = pathlib.Path(path)
    shard.write_bytes(b"".join(framing.frame(record) for record in records))
    index = pathlib.Path(path + shard_index.SUFFIX)
    index.write_bytes(shard_index.build(path).to_bytes())

  return write
