"""The validation score, by which the best checkpoint is chosen.

It depends on what the data allow: recall across sensors, or nDCG by labels for a single sensor. One
sensor without labels has no score.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xjepa_jax.retrieval.row import Row


def validation_score(rows: Sequence[Row], cuts: Sequence[int]) -> float | None:
  """The validation score: a mean over directions.

  Across sensors it is the mean of R@k at every cut-off. With one sensor alone it is nDCG at the
  largest cut-off, by labels, with the query itself left out.

  Args:
    rows: rows of one head.
    cuts: the cut-offs k; a row has no metric for those larger than its archive.

  Returns:
    Between 0 and 1, or None if nothing can be ranked (one sensor and no labels).
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
