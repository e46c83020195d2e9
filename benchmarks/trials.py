"""Runs the trials of configs/trials.py one after another and writes the table of docs/trials.md.

  python -m benchmarks.trials

Each trial is a run of xjepa_jax.main in a process of its own. A finished one is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

from configs.trials import DATASETS, VARIANTS

_BEGIN, _END = "<!-- trials: written by benchmarks/trials.py -->", "<!-- /trials -->"
_PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "docs", "trials.md")


def main(argv: list[str] | None = None) -> None:
  """Runs what is not finished, then writes the tables."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.trials",
    description="Compare the objective's terms at equal budgets, on simulated and real pairs.",
    epilog="example: python -m benchmarks.trials --only ombria",
  )
  parser.add_argument("--only", choices=tuple(DATASETS), help="one data set")
  parser.add_argument("--variants", nargs="+", default=list(VARIANTS), metavar="NAME")
  parser.add_argument("--work", default="runs/trials", help="directory of the runs")
  parser.add_argument("--page", default=_PAGE, help="document whose tables are replaced")
  parser.add_argument("--set", action="append", default=[], help="KEY=VALUE for every run")
  args = parser.parse_args(argv)
  names = [args.only] if args.only else list(DATASETS)
  tables = [table(name, args.variants, args.work, args.set) for name in names]
  _write(args.page, "\n".join(tables))


def table(dataset: str, variants: list[str], work: str, settings: list[str]) -> str:
  """The trials of one data set as Markdown, run first where they are not finished."""
  lines = [
    f"### {dataset}",
    "",
    "| trial | R@1 a->b | R@1 b->a | R@10 a->b | R@10 b->a | RankMe | gap | seconds |",
    "|---|---:|---:|---:|---:|---:|---:|---:|",
  ]
  for variant in variants:
    found = run(dataset, variant, work, settings)
    lines.append(_row(variant, found))
    print(lines[-1], flush=True)
  first = run(dataset, variants[0], work, settings)
  for name in ("image statistics", "mutual information", "chance"):
    rows = _across(first, name)
    if rows:
      recalls = [f"{100 * row[f'recall@{k}']:.1f}" for k in (1, 10) for row in rows]
      lines.append(f"| {name} | {' | '.join(recalls)} | | | |")
  return "\n".join(lines) + "\n"


def run(dataset: str, variant: str, work: str, settings: list[str]) -> dict[str, Any]:
  """What `report/metrics.json` of a trial holds."""
  which = f"{dataset},{variant.replace(' ', '_')}"
  workdir = os.path.join(work, which)
  path = os.path.join(workdir, "report", "metrics.json")
  if not os.path.exists(path):
    command = [sys.executable, "-m", "xjepa_jax.main", f"--config=configs/trials.py:{which}"]
    command += [f"--workdir={workdir}", *(f"--config.{each}" for each in settings)]
    print(" ".join(command[1:]), flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
  with open(path, encoding="utf-8") as file:
    return json.load(file)


def _row(variant: str, found: dict[str, Any]) -> str:
  head = found["config"]["evaluation"]["head"]
  rows = _across(found, f"X-JEPA, {head}")
  recalls = [f"{100 * row[f'recall@{k}']:.1f}" for k in (1, 10) for row in rows]
  geometry = found["geometry"]
  rank = min(value for key, value in geometry.items() if key.startswith("rankme/"))
  gap = next(value for key, value in geometry.items() if key.startswith("gap_relative/"))
  seconds = found["timing"].get("training_seconds", float("nan"))
  return f"| {variant} | {' | '.join(recalls)} | {rank:.1f} | {gap:.2f} | {seconds:.0f} |"


def _across(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
  """Rows of the summary between two sensors."""
  rows = [row for row in found["summary"] if row["name"] == name]
  return [row for row in rows if len(set(row["direction"].split("->"))) == 2]


def _write(page: str, tables: str) -> None:
  with open(page, encoding="utf-8") as file:
    content = file.read()
  before, _, rest = content.partition(_BEGIN)
  _, _, after = rest.partition(_END)
  with open(page, "w", encoding="utf-8") as file:
    file.write(f"{before}{_BEGIN}\n\n{tables}\n{_END}{after}")


if __name__ == "__main__":
  main()
