"""The table that `evaluate` prints: one row per source and direction, one column per metric.

Chance stands below, once per direction, and what could not be measured is named with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xjepa_jax.retrieval.row import Row

_NOTHING = "–"
_NAMES = {
  "recall": "R",
  "mrr": "MRR",
  "map": "mAP",
  "precision": "P",
  "f1_item": "F1 item",
  "f1_query": "F1 query",
  "f1_csmae": "F1 CSMAE",
  "map_hits": "mAP hits",
  "map_relevant": "mAP relevant",
  "map_reachable": "mAP reachable",
}


def evaluation_table(
  rows: Sequence[tuple[str, Row]],
  headline: Sequence[str],
  duplicates: Mapping[tuple[str, str], float],
  notes: Sequence[str] = (),
) -> str:
  """Aligned text: name, direction, metrics in per cent with intervals, counts, duplicates.

  Args:
    rows: (name of what was compared, row).
    headline: metrics to show.
    duplicates: (name, sensor) -> fraction of the archive's vectors that have a duplicate.
    notes: what could not be compared, with the reason; one line each, without numbers.
  """
  header = ["", "direction", *map(metric_name, headline), "queries", "archive", "doubles"]
  body = [
    [
      name,
      f"{row.query} → {row.archive}",
      *(_value(row, metric) for metric in headline),
      f"{row.queries:,}",
      f"{row.archive_size:,}",
      _share(duplicates.get((name, row.archive))),
    ]
    for name, row in rows
  ]
  body += chance_lines(rows, headline)
  lines = aligned([header, *body])
  return "\n".join([*lines, *notes])


def chance_lines(rows: Sequence[tuple[str, Row]], headline: Sequence[str]) -> list[list[str]]:
  """One line per direction with the scores of a random ranking of the same archive."""
  first: dict[str, Row] = {}
  for _, row in rows:
    first.setdefault(f"{row.query} → {row.archive}", row)
  return [
    [
      "chance",
      way,
      *(_share(row.chance.get(metric)) for metric in headline),
      f"{row.queries:,}",
      f"{row.archive_size:,}",
      _NOTHING,
    ]
    for way, row in first.items()
  ]


def metric_name(metric: str) -> str:
  """Short name of a metric, such as "R@5" for "recall@5"."""
  stem, at, cut = metric.partition("@")
  return f"{_NAMES.get(stem, stem)}{at}{cut}"


def aligned(lines: Sequence[Sequence[str]], texts: int = 2) -> list[str]:
  """Lines of a table with a rule below the first; the first `texts` columns are left-aligned."""
  widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
  ruled = [lines[0], ["─" * width for width in widths], *lines[1:]]
  return [
    "  ".join(
      text.ljust(width) if i < texts else text.rjust(width)
      for i, (text, width) in enumerate(zip(line, widths, strict=True))
    ).rstrip()
    for line in ruled
  ]


def _value(row: Row, metric: str) -> str:
  value = row.metrics.get(metric)
  if value is None:
    return _NOTHING
  if metric not in row.interval:
    return _share(value)
  low, high = row.interval[metric]
  return f"{_share(value)} [{_share(low)} {_share(high)}]"


def _share(value: float | None) -> str:
  return _NOTHING if value is None else f"{100 * value:.1f}"
