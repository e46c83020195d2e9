"""The table of results as text: for a terminal, as Markdown, and as cells for a page."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from xjepa_jax.report.findings import definition, measure

# The columns shown for rows that have many numbers, in this order; metrics.json has the rest.
HEADLINE = (
  "recall@1",
  "recall@5",
  "recall@10",
  "mrr",
  "ndcg@10",
  "map_reachable@10",
  "f1_item@5",
  "queries",
  "archive_size",
)
_WITHIN = ("ndcg@10",)  # shown only where there are no co-located scenes: with a single sensor
_COUNTS = {"queries": "Queries", "archive_size": "Archive"}
_NOTHING = "–"


@dataclasses.dataclass(frozen=True)
class Cells:
  """The texts of a table.

  Attributes:
    header: one text per column; the first two columns hold text, the others numbers.
    rows: each as long as the header.
    best: (row, column) of the best share of each direction.
  """

  header: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]
  best: frozenset[tuple[int, int]]


def cells(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> Cells:
  """Format a summary: shares in per cent, counts with thousands separators.

  Args:
    rows: see `Findings.summary`.
    columns: keys of the numbers shown; None takes those of HEADLINE that any row has, or all if
      there are none.
  """
  if columns is None:
    known = {key for row in rows for key in row}
    columns = [key for key in HEADLINE if key in known]
    if "recall@1" in known:
      columns = [key for key in columns if key not in _WITHIN]
    if all(key in _COUNTS for key in columns):
      columns = list(dict.fromkeys(key for row in rows for key in row))
      columns = [key for key in columns if key not in ("name", "direction")]
  header = ("", "Direction", *(_COUNTS.get(key, measure(key)) for key in columns))
  texts = tuple(
    (
      str(row.get("name", "")),
      arrow(str(row.get("direction", ""))),
      *(number(key, row.get(key)) for key in columns),
    )
    for row in rows
  )
  return Cells(header, texts, _best(rows, columns))


def text_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
  """Align the table for a terminal, with names only where they change; "" without rows."""
  if not rows:
    return ""
  table = cells(rows, columns)
  body = [list(row) for row in table.rows]
  for above, row in zip(table.rows, body[1:], strict=False):
    if row[0] == above[0]:
      row[0] = ""
  lines = [list(table.header), *body]
  widths = [max(len(line[i]) for line in lines) for i in range(len(table.header))]
  lines.insert(1, ["─" * width for width in widths])
  return "\n".join(
    "  ".join(
      text.ljust(width) if i < 2 else text.rjust(width)
      for i, (text, width) in enumerate(zip(line, widths, strict=True))
    ).rstrip()
    for line in lines
  )


def markdown_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
  """Format the table as Markdown, with the best of each direction in bold; "" without rows."""
  if not rows:
    return ""
  table = cells(rows, columns)
  lines = [
    _markdown_line(table.header),
    "|" + "|".join(["---", "---", *["---:"] * (len(table.header) - 2)]) + "|",
  ]
  for place, row in enumerate(table.rows):
    bold = (
      f"**{text}**" if (place, i) in table.best else _escaped(text) for i, text in enumerate(row)
    )
    lines.append(_markdown_line(bold))
  return "\n".join(lines)


def number(key: str, value: Any) -> str:
  """Format a number of a summary: a share such as R@1 in per cent, others with four digits."""
  if value is None or (isinstance(value, float) and not math.isfinite(value)):
    return _NOTHING
  if isinstance(value, list | tuple):
    return " to ".join(number(key, part) for part in value)
  if isinstance(value, str | bool):
    return str(value)
  if definition(key) is not None:
    # Shares below 1 %, such as chance in a large archive, need a second decimal.
    return f"{value:.1%}" if value >= 0.01 or value == 0 else f"{value:.2%}"
  if float(value).is_integer() or abs(value) >= 1000:
    return f"{value:,.0f}"
  return f"{value:,.4g}"


def arrow(direction: str) -> str:
  """Return "a → b" for "a->b"."""
  return " → ".join(direction.split("->"))


def _best(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> frozenset[tuple[int, int]]:
  found = set()
  for column, key in enumerate(columns, 2):
    if definition(key) is None:
      continue
    for direction in {row.get("direction") for row in rows}:
      values = {
        place: row[key]
        for place, row in enumerate(rows)
        if row.get("direction") == direction
        and isinstance(row.get(key), int | float)
        and math.isfinite(row[key])
      }
      if len(values) > 1:  # a single value is not the best of anything
        most = max(values.values())
        found |= {(place, column) for place, value in values.items() if value == most}
  return frozenset(found)


def _markdown_line(texts: Any) -> str:
  return "| " + " | ".join(texts) + " |"


def _escaped(text: str) -> str:
  return text.replace("\\", "\\\\").replace("|", "\\|")
