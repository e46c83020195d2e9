"""Results as a Markdown page; the JSON holds the same and every round by itself."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

_MB = 1e6
_ROUNDS = (
  "Batches of 64 pairs, page cache warm; each round is a fresh process, competitors take turns. "
  "MB/s are of values. CPU time is of all threads and workers."
)


def summarise(rounds: Sequence[Mapping[str, float]], pair_bytes: int) -> dict[str, float]:
  """Median, min and max over the rounds; memory is the highest of any round."""
  rates = [each["pairs"] / each["seconds"] for each in rounds]
  cpu = [1e6 * each["cpu_seconds"] / each["pairs"] for each in rounds]
  return {
    "median": statistics.median(rates),
    "min": min(rates),
    "max": max(rates),
    "bytes_per_second": statistics.median(rates) * pair_bytes,
    "cpu_us_per_pair": statistics.median(cpu),
    "resident": max(each["resident"] for each in rounds),
    "anonymous": max(each["anonymous"] for each in rounds),
  }


def markdown(results: Mapping[str, Any]) -> str:
  """The page of a run; `results` as `input_pipeline.run` returns them."""
  lines = ["# Input pipeline", "", *machine_lines(results["machine"]), "", _ROUNDS]
  for section in results["sections"]:
    lines += ["", f"## {section['title']}", "", *_throughput(section["rows"])]
  lines += ["", *results["skipped"]] if results["skipped"] else []
  lines += ["", "## Memory", "", *_memory(results["memory"])]
  lines += ["", "## Opening", "", *_opening(results["opening"])]
  return "\n".join(lines) + "\n"


def machine_lines(machine: Mapping[str, Any]) -> list[str]:
  """What was measured, when and on what."""
  versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
  return [
    f"`{machine['command']}`",
    "",
    f"{machine['date']}. {machine['processor']}, {machine['cores']} cores, "
    f"{machine['memory_bytes'] / 2**30:.0f} GiB, {machine['system']}; load before the run "
    f"{machine['load_before']}. {versions}.",
  ]


def _throughput(rows: Sequence[Mapping[str, Any]]) -> list[str]:
  lines = [
    "| | pairs/s, median | min | max | MB/s | CPU µs a pair | peak resident MB | anonymous MB |",
    "|---|---:|---:|---:|---:|---:|---:|---:|",
  ]
  for row in rows:
    found = row["summary"]
    lines.append(
      f"| {row['title']} | {found['median']:,.0f} | {found['min']:,.0f} | {found['max']:,.0f} "
      f"| {found['bytes_per_second'] / _MB:,.0f} | {found['cpu_us_per_pair']:,.0f} "
      f"| {found['resident'] / _MB:,.0f} | {found['anonymous'] / _MB:,.0f} |"
    )
  return lines


def _memory(rows: Sequence[Mapping[str, Any]]) -> list[str]:
  lines = [
    "| | data set MB | pairs read | peak resident MB | anonymous MB | under 1 GiB |",
    "|---|---:|---:|---:|---:|---|",
  ]
  for row in rows:
    lines.append(
      f"| {row['title']} | {row['dataset_bytes'] / _MB:,.0f} | {row['pairs']:,} "
      f"| {row['resident'] / _MB:,.0f} | {row['anonymous'] / _MB:,.0f} "
      f"| {'yes' if row['resident'] < 1 << 30 else 'NO'} |"
    )
  return lines


def _opening(found: Mapping[str, Any]) -> list[str]:
  met = found["seconds"] < 2 and found["resident"] < 500 * _MB
  return [
    f"{found['records']:,} records: {found['seconds']:.2f} s to open the data set "
    f"({found['open_seconds']:.2f} s), construct the pipeline ({found['pipeline_seconds']:.3f} s) "
    f"and place 64 positions ({found['place_seconds']:.3f} s); imports took "
    f"{found['import_seconds']:.2f} s before. Peak resident {found['resident'] / _MB:,.0f} MB. "
    f"The goals, under 2 s and 500 MB, are {'met' if met else 'MISSED'}.",
  ]
