"""Small real archives to serve: simulated pairs, embedded by an encoder with random weights."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path

import numpy as np

from tests.conftest import compiling_quickly
from tests.retrieval.embedding.random_encoder import export_random_encoder
from xjepa_jax.data.archive import Archive, Entry
from xjepa_jax.data.description import describe
from xjepa_jax.data.import_plan import plan_import
from xjepa_jax.data.pairs import NO_TRANSFORM, Pair
from xjepa_jax.data.scenes import scene
from xjepa_jax.data.simulate import simulated_archive
from xjepa_jax.data.writer import write_dataset
from xjepa_jax.retrieval import embed, index

SIZE = 16
PAIRS = 60


@dataclasses.dataclass(frozen=True)
class Made:
  """Where an archive's parts lie."""

  pairs: str
  encoder: str
  embeddings: str
  index: str


@functools.cache
def archive_in(directory: Path, georeferenced: bool = True) -> Made:
  """Pairs, encoder, embeddings and index below a directory, made once."""
  root = directory / ("placed" if georeferenced else "unplaced")
  made = Made(*(str(root / name) for name in ("pairs", "encoder", "embeddings", "index")))
  source = simulated_archive(pairs=PAIRS, size=SIZE)
  if not georeferenced:
    source = dataclasses.replace(source, read=functools.partial(_without_place, source))
  write_dataset(plan_import(source, shard_bytes=100_000, encoding="bytes"), made.pairs)
  with compiling_quickly():
    _embed(made)
  return made


def _embed(made: Made) -> None:
  export_random_encoder(made.encoder, dict(describe(made.pairs).format.sensors), SIZE)
  argv = ["--encoder", made.encoder, "--archive", made.pairs, "--out", made.embeddings]
  assert embed.main(argv) == 0
  assert index.main(["--embeddings", made.embeddings, "--out", made.index]) == 0


def optical(number: int) -> np.ndarray:
  """(16, 16, 12) uint16: what the optical sensor of the simulation sees of a scene."""
  return scene(0, number, SIZE).optical


def sar(number: int) -> np.ndarray:
  """(16, 16, 2) float32: what its radar sees."""
  return scene(0, number, SIZE).sar


def _without_place(source: Archive, entry: Entry) -> Pair:
  pair = source.read(entry)
  return dataclasses.replace(
    pair, longitude=math.nan, latitude=math.nan, crs="", transform=NO_TRANSFORM
  )
