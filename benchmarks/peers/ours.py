"""xjepa_jax: `Pipeline` over a `PairDataset`, batches on the host as NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.peers.pair_format import SENSORS
from xjepa_jax.data.dataset import PairDataset
from xjepa_jax.data.pipeline import Pipeline, Reading


def batches(
  directory: str, size: int, batch: int, **options: Any
) -> Iterator[tuple[np.ndarray, ...]]:
  """Endless batches in a global shuffle, every record's CRC checked.

  Args:
    directory: of the data set.
    size: of an image in pixels; the data set knows it.
    batch: pairs of a batch.
    options: "bands" (sensor key -> names) as `Pipeline` takes them; "verify" as `PairDataset` does;
      "threads", "prefetch" and "workers" of a `Reading`, whose choice is the default.

  Yields:
    An array (batch, size, size, C) for each sensor.
  """
  bands = options.pop("bands", None)
  pairs = PairDataset(directory, verify=options.pop("verify", True))
  reading = Reading(**options) if options else None
  with Pipeline(pairs, batch=batch, bands=bands, reading=reading) as pipeline:
    for _, arrays in pipeline.batches():
      yield tuple(arrays["values"][key] for key in SENSORS)
