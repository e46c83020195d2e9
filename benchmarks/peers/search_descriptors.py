"""Descriptors with the structure of real ones: two views each of scenes, clustered, of low rank.

Uniform noise in 256 dimensions has no neighbours worth finding, and flatters or fails every
approximate index. Real descriptors of scenes have four things that these have too:

- a spectrum: the variance of principal axis j falls as a power, here j^-1.5, in a random rotation
  (RankMe 130 of 256);
- clusters (forest, crops, water, ...): 400 of them, the sizes by Zipf's law, half of the variance;
- neighbours: scenes follow each other along a track, each correlated with the one before (.7);
- two sensors, alternately: each sees the scene and something of its own (a fifth of the
  variance), and is centred on its own mean.

Queries are further views of scenes of the archive by the first sensor, with noise of their own.
"""

from __future__ import annotations

import numpy as np

SENSORS = ("optical", "radar")
_CLUSTERS = 400
_ALONG = 0.7  # correlation of a scene with the one before
_OWN = 0.5  # deviation of what only one view has, relative to the scene


def descriptors(
  count: int, dimensions: int = 256, queries: int = 1024, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """An archive and queries.

  Args:
    count: vectors of the archive, even: scene i has the rows 2 i and 2 i + 1.
    dimensions: K.
    queries: how many.
    seed: of everything.

  Returns:
    (count, K) and (queries, K) float32 of length 1, and (queries,) the scene of each query.
  """
  rng = np.random.default_rng(seed)
  deviation = np.arange(1, dimensions + 1, dtype=np.float32) ** -0.75
  rotation = np.linalg.qr(rng.standard_normal((dimensions, dimensions)))[0].astype(np.float32)
  scenes = _scenes(rng, count // 2, deviation)

  def view(of: np.ndarray) -> np.ndarray:
    own = rng.standard_normal(of.shape, np.float32)
    own *= _OWN * deviation
    own += of
    return own

  archive = np.empty((count // 2, 2, dimensions), np.float32)
  means = []
  for sensor in range(2):
    seen = view(scenes)
    means.append(seen.mean(axis=0))
    archive[:, sensor] = seen - means[-1]
  asked = rng.choice(count // 2, queries, replace=False)
  questions = view(scenes[asked]) - means[0]
  return (
    _unit(archive.reshape(count, dimensions) @ rotation),
    _unit(questions @ rotation),
    asked,
  )


def _scenes(rng: np.random.Generator, count: int, deviation: np.ndarray) -> np.ndarray:
  """(count, K): a cluster's centre and, along a track, what the scene adds to it."""
  dimensions = len(deviation)
  centres = rng.standard_normal((_CLUSTERS, dimensions), np.float32) * deviation
  share = 1 / np.arange(1, _CLUSTERS + 1)
  # A cluster holds for a stretch of the track, as land cover does.
  stretches = rng.choice(_CLUSTERS, -(-count // 16), p=share / share.sum())
  found = rng.standard_normal((count, dimensions), np.float32)
  for row in range(1, count):
    found[row] = _ALONG * found[row - 1] + (1 - _ALONG**2) ** 0.5 * found[row]
  found *= deviation
  found += centres[np.repeat(stretches, 16)[:count]]
  return found * np.float32(0.5**0.5)


def _unit(vectors: np.ndarray) -> np.ndarray:
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors
