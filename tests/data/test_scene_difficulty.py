"""How hard simulated pairs are to match: by layout well, by pixel statistics badly."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from tests.data.conftest import Views
from xjepa_jax.retrieval import metrics
from xjepa_jax.retrieval.image_statistics import fit_ridge, image_statistics
from xjepa_jax.sensor_presets import preset

TRAIN, TEST = slice(0, 800), slice(800, 1000)
N_TEST = 200
VV, VH = 0, 1


def standardised(x: np.ndarray) -> np.ndarray:
  return (x - x[TRAIN].mean(axis=0)) / x[TRAIN].std(axis=0)


def recall_at_1(distance: np.ndarray) -> tuple[float, float]:
  own = np.arange(len(distance))
  return float(np.mean(distance.argmin(1) == own)), float(np.mean(distance.argmin(0) == own))


def best_ridge_recall(x: np.ndarray, y: np.ndarray) -> float:
  """R@1 of y's nearest neighbour to a ridge prediction from x; the best penalty, with hindsight."""
  x, y = standardised(x), standardised(y)
  found = 0.0
  for penalty in (0.1, 1.0, 10.0, 100.0):
    gram = x[TRAIN].T @ x[TRAIN] + penalty * np.eye(x.shape[1])
    predicted = standardised(x @ np.linalg.solve(gram, x[TRAIN].T @ y[TRAIN]))
    found = max(found, recall_at_1(squared_distance(predicted[TEST], y[TEST]))[0])
  return found


def cca_recall(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
  """R@1 both ways in the canonical space, each direction weighted by its correlation."""
  x, y = standardised(x), standardised(y)

  def whitening(z: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(np.cov(z[TRAIN].T) + 0.01 * np.eye(z.shape[1]))
    return vectors / np.sqrt(values) @ vectors.T

  u, s, vt = np.linalg.svd(whitening(x) @ (x[TRAIN].T @ y[TRAIN] / TRAIN.stop) @ whitening(y))
  a = x[TEST] @ whitening(x) @ u[:, : len(s)] * s
  b = y[TEST] @ whitening(y) @ vt.T[:, : len(s)] * s
  return recall_at_1(squared_distance(a, b))


def squared_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  return ((a[:, None] - b[None]) ** 2).sum(-1)


def band_means(images: np.ndarray) -> np.ndarray:
  return images.mean(axis=(1, 2), dtype=np.float64)


def band_statistics(images: np.ndarray) -> np.ndarray:
  spread = [images.std(axis=(1, 2), dtype=np.float64)]
  levels = np.percentile(images, (5, 25, 50, 75, 95), axis=(1, 2))
  return np.concatenate([band_means(images), *spread, *levels], axis=1)


@pytest.mark.parametrize(("describe", "limit"), [(band_means, 0.10), (band_statistics, 0.15)])
def test_global_colour_and_statistics_do_not_find_the_pair(
  views: Views, describe: Callable[[np.ndarray], np.ndarray], limit: float
) -> None:
  optical, sar = views.optical, views.sar
  right = describe(sar)
  for left in (describe(optical), describe(np.log(optical))):
    recalls = best_ridge_recall(left, right), best_ridge_recall(right, left)
    assert max(*recalls, *cca_recall(left, right)) < limit


def test_no_band_is_a_copy_of_the_backscatter(views: Views) -> None:
  optical = views.optical[TEST].reshape(N_TEST, -1, 12).astype(np.float64)
  sar = views.sar[TEST].reshape(N_TEST, -1, 2).astype(np.float64)
  for band in range(12):
    for polarisation in (VV, VH):
      x, y = optical[..., band], sar[..., polarisation]
      assert abs(np.corrcoef(x.ravel(), y.ravel())[0, 1]) < 0.4
      within = [abs(np.corrcoef(a, b)[0, 1]) for a, b in zip(x, y, strict=True)]
      assert np.median(within) < 0.5


def gradient_cells(images: np.ndarray, blur: float, cells: int = 8) -> np.ndarray:
  """(N, cells * cells * 9) size of the gradient along 9 directions, of length 1 in every cell."""
  smooth = ndimage.gaussian_filter(images.astype(np.float32), (0, blur, blur, 0))
  down, right = np.gradient(smooth, axis=(1, 2))
  parts = []
  for angle in np.arange(9) * np.pi / 9:
    along = right * np.cos(angle) + down * np.sin(angle)
    size = ndimage.gaussian_filter(np.sqrt((along**2).sum(-1)), (0, 2, 2))
    n, side = len(size), images.shape[1] // cells
    parts.append(size.reshape(n, cells, side, cells, side).mean((2, 4)))
  found = np.sqrt(np.stack(parts, -1))
  return (found / np.linalg.norm(found, axis=-1, keepdims=True)).reshape(len(images), -1)


def test_the_two_images_of_a_pair_share_their_layout(views: Views) -> None:
  optical = gradient_cells(views.optical, 1.0)
  sar = gradient_cells(views.sar, 1.5)
  optical, sar = (each[TEST] - each[TRAIN].mean(axis=0) for each in (optical, sar))
  one, other = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (optical, sar))
  found = recall_at_1(-one @ other.T)
  assert min(found) > 0.85
  # A pair under clouds, or of one cover all over, is hard: the data set has to tell methods apart.
  assert max(found) < 0.99


# --- how hard scenes of the same classes are to find -----------------------------------------


def label_sets(labels: list[tuple[str, ...]]) -> np.ndarray:
  names = sorted({name for each in labels for name in each})
  return np.array([[name in each for name in names] for each in labels])


def f1_at_5(sets: np.ndarray, best: np.ndarray) -> list[float]:
  """By the three definitions, smallest first."""
  answers = sets[best[:, :5]]
  by_item, by_query = metrics.f1_item(sets, answers), metrics.f1_query(sets, answers)
  return [float(by_item.mean()), float(by_query.mean()), metrics.f1_csmae(sets, answers)]


def by_lot(sets: np.ndarray) -> list[float]:
  rng = np.random.default_rng(0)
  orders = [np.stack([rng.permutation(len(sets)) for _ in sets]) for _ in range(20)]
  return list(np.mean([f1_at_5(sets, order) for order in orders], axis=0))


def test_answers_by_lot_share_few_labels(views: Views) -> None:
  sets = label_sets(views.labels)
  chance = by_lot(sets[TEST])
  assert 0.05 < chance[0] <= chance[1] <= chance[2] < 0.3
  _, counts = np.unique(sets, axis=0, return_counts=True)
  share = counts / counts.sum()
  assert -np.sum(share * np.log2(share)) > 6  # bits: as 64 equally frequent sets of labels
  assert share.max() < 0.1
  # The commonest label says little, and none is too rare to be learned.
  assert sets.mean(axis=0).min() > 0.02 and sets.mean(axis=0).max() < 0.4


def test_pixel_statistics_say_something_of_the_classes_and_not_much(views: Views) -> None:
  sets = label_sets(views.labels)[TEST]
  chance = by_lot(sets)
  statistics = {
    "s1": image_statistics(preset("sentinel1_grd"), views.sar),
    "s2": image_statistics(preset("sentinel2_l2a"), views.optical),
  }
  for one, other in (("s1", "s2"), ("s2", "s1")):
    ridge = fit_ridge(statistics[one][TRAIN], statistics[other][TRAIN])
    similarity = ridge.similarity(statistics[one][TEST], statistics[other][TEST])
    found = f1_at_5(sets, np.argsort(-similarity, axis=1))
    assert chance[0] + 0.05 < found[0] and found[2] < 0.45
