"""The number by which one validation is better than another, and the best checkpoint is chosen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xjepa_jax.retrieval.row import Row


def validation_score(rows: Sequence[Row], cuts: Sequence[int]) -> float | None:
  """A mean over directions.

  Across sensors, of R@k at every cut-off. Of one sensor alone, of nDCG at the largest cut-off, by
  labels, the query itself left out.

  Args:
    rows: of one head.
    cuts: the cut-offs k; those beyond an archive's size are not among a row's metrics.

  Returns:
    Between 0 and 1, or None where nothing can be ranked: one sensor, and no labels.
  """
  across = [row for row in rows if row.query != row.archive]
  found = [
    row.metrics[f"recall@{k}"] for row in across for k in cuts if f"recall@{k}" in row.metrics
  ]
  if not across:
    for row in rows:
      measured = [k for k in cuts if f"ndcg@{k}" in row.metrics]
      found += [row.metrics[f"ndcg@{max(measured)}"]] if measured else []
  return float(np.mean(found)) if found else None
