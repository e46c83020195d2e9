"""Writes the pairs that are read: one content, as a data set of ours and as .npy files.

Pixels are simulated scenes, so that they compress as images do. A few scenes are simulated and
shifted by another offset for each pair, which keeps writing quick and all pairs different.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
from collections.abc import Iterable

import numpy as np

from benchmarks.peers.pair_format import SENSORS, npy_path
from xjepa_jax.data import shard_index
from xjepa_jax.data.archive import Archive, Entry
from xjepa_jax.data.description import INFO_FILE, Description, describe, write_description
from xjepa_jax.data.import_plan import plan_import
from xjepa_jax.data.pairs import Observation, Pair
from xjepa_jax.data.writer import write_dataset

_SCENES = 32
_SHARD_BYTES = 128 << 20


def pixels(index: int, size: int) -> dict[str, np.ndarray]:
  """Pair `index`: sensor key -> (size, size, C)."""
  down, right = divmod(index // _SCENES, size)
  return {
    key: np.roll(values, (down, right), axis=(0, 1))
    for key, values in _scene(index % _SCENES, size).items()
  }


def digest(arrays: Iterable[np.ndarray]) -> str:
  """What tells one pair's pixels, of all sensors in order, from any other's."""
  content = hashlib.sha256()
  for array in arrays:
    content.update(np.ascontiguousarray(array).tobytes())
  return content.hexdigest()


def write_pairs(directory: str, count: int, size: int, encoding: str = "bytes") -> None:
  """Writes `count` pairs as a data set, unless a run before has done so."""
  if os.path.exists(f"{directory}/{INFO_FILE}"):
    return
  archive = Archive(
    name="benchmark",
    sensors=SENSORS,
    splits={"train": [Entry(f"pair-{index:07d}", index) for index in range(count)]},
    read=functools.partial(_read, size=size),
  )
  plan = plan_import(archive, _SHARD_BYTES, encoding)
  write_dataset(plan, directory, workers=os.cpu_count() or 1, resume=True)


def write_npy(directory: str, count: int, size: int) -> None:
  """Writes the same pairs as one .npy file a sensor, and what identifies each pair's pixels."""
  if os.path.exists(_digests_path(directory)):
    return
  os.makedirs(directory, exist_ok=True)
  arrays = {
    key: np.lib.format.open_memmap(
      npy_path(directory, key), "w+", sensor.dtype, (count, size, size, len(sensor.bands))
    )
    for key, sensor in SENSORS.items()
  }
  digests = []
  for index in range(count):
    values = pixels(index, size)
    for key, array in arrays.items():
      array[index] = values[key]
    digests.append(digest(values[key] for key in SENSORS))
  for array in arrays.values():
    array.flush()
  with open(_digests_path(directory), "w", encoding="ascii") as file:
    file.write("\n".join(digests))


def read_digests(directory: str) -> set[str]:
  """The digests of all pairs that `write_npy` wrote."""
  with open(_digests_path(directory), encoding="ascii") as file:
    return set(file.read().split())


def repeat_shards(source: str, directory: str, times: int) -> None:
  """Puts a data set's shards several times over into one larger data set.

  The first time they are links, to spare the disk; then copies, whose pages are other ones.
  """
  if os.path.exists(f"{directory}/{INFO_FILE}"):
    return
  os.makedirs(directory, exist_ok=True)
  description = describe(source)
  once = description.shards(source, "train")
  shards = once * times
  larger = Description(
    name=description.name,
    format=description.format,
    statistics=description.statistics,
    splits={"train": description.splits["train"] * times},
  )
  for number, new in enumerate(larger.shards(directory, "train")):
    put = os.link if number < len(once) else shutil.copyfile
    for suffix in ("", shard_index.SUFFIX):
      put(shards[number] + suffix, new + suffix)
  write_description(directory, larger, {"train": sum(map(os.path.getsize, shards))})


def warm(directory: str) -> int:
  """Reads every file once, so that it lies in the page cache; returns their bytes."""
  total = 0
  for entry in os.scandir(directory):
    if entry.is_file():
      with open(entry.path, "rb", buffering=0) as file:
        while content := file.read(16 << 20):
          total += len(content)
  return total


def _read(entry: Entry, size: int) -> Pair:
  values = pixels(entry.source, size)
  return Pair(entry.pair_id, {key: Observation(values[key]) for key in SENSORS})


@functools.lru_cache(maxsize=_SCENES)
def _scene(seed: int, size: int) -> dict[str, np.ndarray]:
  from xjepa_jax.data.scenes import scene  # imports SciPy: not for those who only read

  seen = scene(seed, 0, size)
  return {"s2": seen.optical, "s1": seen.sar}


def _digests_path(directory: str) -> str:
  return f"{directory}/digests.txt"
