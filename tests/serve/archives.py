"""Small real archives to serve: simulated pairs, embedded by an encoder with random weights."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import shapely

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
from xjepa_jax.retrieval.embedding.description import EmbeddingDescription
from xjepa_jax.retrieval.embedding.files import EmbeddingFiles, open_embeddings
from xjepa_jax.retrieval.embedding.footprints import cut
from xjepa_jax.retrieval.embedding.rows import Rows, part_table
from xjepa_jax.retrieval.embedding.writing import write_embeddings

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


def embeddings_at(
  outlines: Mapping[str, Sequence[tuple[float, float]]], directory: str
) -> EmbeddingFiles:
  """Embeddings of one tile an id, with random descriptors; outlines are corners in degrees."""
  count = len(outlines)
  footprints, boxes, centres = [], np.zeros((count, 4)), np.zeros((count, 2))
  for row, corners in enumerate(outlines.values()):
    ring = np.array(corners)
    parts = cut(ring)
    footprints.append(shapely.to_wkb(shapely.MultiPolygon([shapely.Polygon(p) for p in parts])))
    points = np.concatenate(parts)
    boxes[row] = *points.min(axis=0), *points.max(axis=0)
    turned = np.where(ring[:, 0] < 0, ring[:, 0] + 360 * (np.ptp(ring[:, 0]) > 180), ring[:, 0])
    centres[row] = (turned.mean() + 180) % 360 - 180, ring[:, 1].mean()
  rows = Rows(
    ids=list(outlines),
    sensors=["optical"] * count,
    sources=["source"] * count,
    vectors=np.random.default_rng(0).standard_normal((count, 8), np.float32),
    longitude=centres[:, 0],
    latitude=centres[:, 1],
    footprints=pa.array(footprints, pa.binary()),
    boxes=boxes,
    windows=np.zeros((count, 4), np.int32),
    valid_fraction=np.ones(count),
    times=[None] * count,
    labels=[[]] * count,
  )
  description = EmbeddingDescription(
    encoder={"name": "none", "sha256": "", "head": "layout"},
    dimensions=8,
    quantisation="float32",
    sensors=("optical",),
    source={"kind": "test"},
    count=count,
    georeferenced=True,
  )
  write_embeddings(directory, description, [part_table(rows, "float32", True, {})])
  return open_embeddings(directory)


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
