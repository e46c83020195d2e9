"""Results of the search benchmark as a Markdown page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.peers.report import machine_lines

_MB = 1e6
_PRESET = "faiss, rabitq7"  # the default of its back end
_HOW = (
  "Descriptors of 256 float32 numbers, two sensors, clustered, of a power-law spectrum "
  "(peers/search_descriptors.py); queries are further views of scenes. Every round is a fresh "
  "process, all take turns; latencies are of all rounds together. Memory is of the searching "
  "process (Pss), for pgvector with the server's; bytes on disk include the columns of filters."
)


def summarise(rounds: Sequence[Mapping[str, Any]]) -> dict[str, float]:
  """Quantiles of the latencies of all rounds in ms, recall, and the most memory."""
  found = {}
  for name in ("single", "many"):
    times = 1e3 * np.concatenate([each[name] for each in rounds])
    found[f"{name}_p50"], found[f"{name}_p99"] = np.percentile(times, [50, 99]).tolist()
    found[f"{name}_count"] = len(times)
  return {
    **found,
    "recall": min(each["recall"] for each in rounds),
    "opening_seconds": float(np.median([each["opening_seconds"] for each in rounds])),
    "memory": max(each["memory"] for each in rounds),
  }


def markdown(results: Mapping[str, Any]) -> str:
  """The page of a run; `results` as `search.run` returns them."""
  lines = ["# Search", "", *machine_lines(results["machine"]), "", _HOW]
  for archive in results["archives"]:
    lines += ["", f"## {archive['count']:,} x {archive['dimensions']}", "", *_table(archive)]
    lines += ["", *_goals(archive)]
    dates = sorted({row["measured"] for row in archive["rows"] if "measured" in row})
    if dates:
      lines += ["", f"\\* Measured earlier, {'; '.join(dates)}, not in turns with the others."]
  lines += ["", *results["skipped"]] if results["skipped"] else []
  return "\n".join(lines) + "\n"


def _table(archive: Mapping[str, Any]) -> list[str]:
  lines = [
    "| | build s | open s | batch 1: p50 ms | p99 | batch 64: p50 ms | p99 | recall@10 "
    "| memory MB | disk MB | bytes a vector |",
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
  ]
  for row in archive["rows"]:
    mark = " *" if "measured" in row else ""
    found, built = row["summary"], row["build"]
    lines.append(
      f"| {row['title']}{mark} | {built['seconds']:,.1f} | {found['opening_seconds']:,.1f} "
      f"| {found['single_p50']:,.2f} | {found['single_p99']:,.2f} | {found['many_p50']:,.1f} "
      f"| {found['many_p99']:,.1f} | {found['recall']:.3f} | {found['memory'] / _MB:,.0f} "
      f"| {built['disk'] / _MB:,.0f} | {built['disk'] / archive['count']:,.0f} |"
    )
  return lines


def _goals(archive: Mapping[str, Any]) -> list[str]:
  """What was aimed at, and whether it was reached."""
  rows = {row["title"]: row for row in archive["rows"]}
  lines = []
  if {"exact", "IndexFlatIP"} <= set(rows):
    ours, flat = (rows[name]["summary"]["many_p50"] for name in ("exact", "IndexFlatIP"))
    lines.append(
      f"Exact search at batch 64, no slower than IndexFlatIP: {_met(ours <= flat)} "
      f"({flat / ours:.1f} x its speed)."
    )
  if _PRESET in rows:
    found, built = rows[_PRESET]["summary"], rows[_PRESET]["build"]
    size = built["disk"] / archive["count"]
    met = found["recall"] >= 0.98 and found["single_p50"] < 1 and size <= 300
    lines.append(
      f"{_PRESET}, at a recall@10 of .98 in under 1 ms (p50) and 300 bytes a vector: {_met(met)} "
      f"({found['recall']:.3f}, {found['single_p50']:.2f} ms, {size:.0f} bytes)."
    )
  return lines


def _met(met: bool) -> str:
  return "met" if met else "MISSED"
