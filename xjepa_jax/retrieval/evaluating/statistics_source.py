"""Image statistics of a data set's pairs, as a baseline for `evaluate --pairs`.

They need the pixels, so there is no such baseline for sources that are only vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.retrieval.evaluating.pair_batches import pair_batches
from xjepa_jax.retrieval.image_statistics import image_statistics
from xjepa_jax.retrieval.scene_vectors import SceneVectors
from xjepa_jax.retrieval.statistics_baseline import FITTED_PAIRS, as_vectors


def statistics_vectors(
  directory: str, splits: Sequence[str], fitted: str, sensors: Sequence[str] = ()
) -> SceneVectors:
  """Statistics of a data set's pairs as vectors, see `as_vectors`.

  Args:
    directory: directory of the data set.
    splits: splits of the queries and of the archive.
    fitted: split on which means, deviations and regressions are fitted.
    sensors: sensors to include; () for all.

  Raises:
    DataError: the pairs cannot be read.
    EvaluationError: no training image of a sensor has a valid pixel.
  """
  return as_vectors(
    _measured(directory, splits, sensors), _measured(directory, [fitted], sensors, FITTED_PAIRS)
  )


def _measured(
  directory: str, splits: Sequence[str], sensors: Sequence[str], most: int = 0
) -> SceneVectors:
  """Raw statistics, NaN where no pixel is valid."""
  with PairDataset(directory, splits[0]) as pairs:
    known = {
      key: each for key, each in pairs.format.sensors.items() if not sensors or key in sensors
    }
  bands = {key: sensor.band_names for key, sensor in known.items()}
  ids: list[str] = []
  names: list[str] = []
  labels: list[tuple[str, ...]] = []
  values: dict[str, list[np.ndarray]] = {key: [] for key in known}
  present: dict[str, list[np.ndarray]] = {key: [] for key in known}
  for split in splits:
    for batch in pair_batches(directory, split, bands, most):
      ids += batch.ids
      names += [split] * len(batch.ids)
      labels += batch.labels
      for key, sensor in known.items():
        values[key].append(image_statistics(sensor, batch.values[key]))
        present[key].append(batch.present[key])
  return SceneVectors(
    ids=tuple(ids),
    splits=np.array(names, object),
    labels=tuple(labels),
    present={key: np.concatenate(parts) for key, parts in present.items()},
    vectors={key: np.concatenate(parts) for key, parts in values.items()},
  )
