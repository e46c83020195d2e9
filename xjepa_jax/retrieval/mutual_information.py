"""A baseline without learning: mutual information between the pixels of two images.

It needs images on one grid and compares every query with every archive image, so it is no way to
search an archive. It shows how much there is to be found (multi-modal registration: Viola and Wells
1997, Maes et al. 1997).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from xjepa_jax.errors import EvaluationError

METHOD = "mutual information"
BINS = 16
# Size limit of the one-hot matrix of a block of images, as float32: 64 MiB.
_BLOCK_VALUES = 1 << 24


def mutual_information(
  queries: np.ndarray,
  archive: np.ndarray,
  bins: int = BINS,
  *,
  seen_queries: np.ndarray | None = None,
  seen_archive: np.ndarray | None = None,
) -> np.ndarray:
  """Mutual information, in nats, between the pixels of every query and every archive image.

  Each band of each image is divided once into bins of equal frequency. The joint counts of two
  bands over the pixels valid in both are a product of one-hot matrices, so a single matrix product
  serves all pairs of images. With several bands, the result is the mean over all pairs of bands.

  Args:
    queries: (Q, H, W) or (Q, H, W, C) values, in any unit, because only their order matters.
    archive: (A, H, W) or (A, H, W, D) values on the same grid.
    bins: number of bins per band, 2 to 256.
    seen_queries, seen_archive: (Q, H, W) and (A, H, W) bool, the valid pixels; all if None. Two
      images without a common valid pixel get 0.

  Returns:
    (Q, A) float64, at least 0.

  Raises:
    EvaluationError: the grids differ, or the number of bins is out of range.
  """
  if not 2 <= bins <= 256:
    raise EvaluationError(f"{bins} bins for mutual information; expected 2 to 256.")
  one, other = _levels(queries, seen_queries, bins), _levels(archive, seen_archive, bins)
  if one.shape[2] != other.shape[2] or queries.shape[1:3] != archive.shape[1:3]:
    raise EvaluationError(
      f"images of {queries.shape[1:3]} and {archive.shape[1:3]} pixels; mutual information "
      "compares pixel with pixel, on one grid."
    )
  similarity = np.zeros((len(queries), len(archive)))
  for columns in _blocks(other, bins):
    right = _one_hot(other[columns], bins)
    for rows in _blocks(one, bins):
      # float32 counts pixels exactly up to 2^24, a 4096 x 4096 image.
      counts = _one_hot(one[rows], bins) @ right.T
      counts = counts.reshape(-1, one.shape[1], bins, len(other[columns]), other.shape[1], bins)
      similarity[rows, columns] = _information(counts).mean(axis=(1, 3))
  return similarity


def _levels(images: np.ndarray, seen: np.ndarray | None, bins: int) -> np.ndarray:
  """Bin of each pixel, (P, C, H W) uint16; the value `bins` marks a pixel that is not valid."""
  images = images[..., None] if images.ndim == 3 else images
  count, bands = len(images), images.shape[-1]
  values = images.reshape(count, -1, bands)
  pixels = np.ones(values.shape[:2], bool) if seen is None else seen.reshape(count, -1)
  # uint16, because 256 bins and the marker for invalid pixels do not fit into uint8.
  levels = np.full((count, bands, values.shape[1]), bins, np.uint16)
  for image in range(count):
    known = values[image, pixels[image]]
    if len(known):
      edges = np.quantile(known, np.arange(1, bins) / bins, axis=0)
      for band in range(bands):
        level = np.searchsorted(edges[:, band], known[:, band], side="right")
        levels[image, band, pixels[image]] = level
  return levels


def _blocks(levels: np.ndarray, bins: int) -> Iterator[slice]:
  """Slices of images (P, C, N) whose one-hot matrix has at most `_BLOCK_VALUES` entries."""
  step = max(1, _BLOCK_VALUES // (levels.shape[1] * levels.shape[2] * bins))
  for start in range(0, len(levels), step):
    yield slice(start, min(start + step, len(levels)))


def _one_hot(levels: np.ndarray, bins: int) -> np.ndarray:
  """(P C bins, N) float32 one-hot rows from levels (P, C, N); all zeros for an invalid pixel."""
  hot = levels[:, :, None, :] == np.arange(bins, dtype=levels.dtype)[:, None]
  return hot.astype(np.float32).reshape(-1, levels.shape[2])


def _information(counts: np.ndarray) -> np.ndarray:
  """Mutual information of joint counts (Q, C, bins, A, D, bins): (Q, C, A, D) float64."""
  # With joint counts n and N pixels, I = (sum n_ij log n_ij - sum n_i log n_i - sum n_j log n_j) /
  # N + log N.
  total = counts.sum(axis=(2, 5), dtype=np.float64)
  entropies = (
    _x_log_x(counts).sum(axis=(2, 5), dtype=np.float64)
    - _x_log_x(counts.sum(axis=5)).sum(axis=2, dtype=np.float64)
    - _x_log_x(counts.sum(axis=2)).sum(axis=4, dtype=np.float64)
  )
  pixels = np.maximum(total, 1)
  return np.maximum(entropies / pixels + np.log(pixels), 0.0)


def _x_log_x(counts: np.ndarray) -> np.ndarray:
  # float64 is needed: sums of up to 2^24 log 2^24 cancel down to a few thousandths.
  counts = counts.astype(np.float64)
  return counts * np.log(np.maximum(counts, 1.0))
