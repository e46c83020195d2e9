"""Kills an import and a small run at random moments, and compares with undisturbed ones.

  python -m benchmarks.fault --kills 100

Takes about fifteen minutes on two cores; Linux only. See README.md for what is done and how.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.peers import machine, working
from benchmarks.peers.report import machine_lines
from tests.fault.campaign import Commands, assert_equal, kill_import_and_run, write_archive
from tests.fault.killing import Kill, environment
from tests.fault.phases import PHASES
from xjepa_jax.paths import user_path

_RESULTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results", "fault")
_PAIRS, _DEVICES, _STEPS = 160, 2, 40
_OPTIONS = (
  f"--config.training.steps={_STEPS}",
  "--config.checkpoint.every=2",
  "--config.evaluation.every=8",
)
_MEANING = {
  "import": "GeoTIFF files are read and shards written, by two workers",
  "start": "from the start to the first batch, but for the restore",
  "restore": "checkpoints are checked, and the last is loaded",
  "first step": "from the first batch on, with compiling it or loading what was compiled",
  "steps": "later ones, between saves",
  "save": "a checkpoint is being written, beside steps or validations",
  "evaluation": "validation pairs are measured",
  "report": "the end: test pairs measured, report and encoder written",
}


def main(argv: list[str] | None = None) -> int:
  """Runs the campaign and writes the results; the exit status."""
  args = _arguments(argv)
  described = machine.describe(f"python -m benchmarks.fault --kills {args.kills}")
  with working.directory(args.work, "fault") as work:
    started = time.monotonic()
    runs = _campaign(args, Path(work))
  results = {"machine": described, "seconds": time.monotonic() - started, "runs": runs}
  working.write_results(args.out, results, markdown(results))
  return 0 if all(run["result"] == "equal" for run in runs) else 1


def _campaign(args: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
  """Runs, each killed some times and then left alone, until there were as many kills as wanted."""
  more = {
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={_DEVICES}",
    "JAX_COMPILATION_CACHE_DIR": str(work / "compiled"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }
  archive = work / "archive"
  if not archive.exists():
    write_archive(archive, _PAIRS)
  commands = Commands(archive, environment(**more), _OPTIONS)
  undisturbed = work / "undisturbed"
  for command in (commands.importing(undisturbed), commands.running(undisturbed)):
    status, _ = command.run()
    if status:
      raise RuntimeError(f"the undisturbed start failed:\n{command.said()}")
  working.say("undisturbed: done")
  chosen = random.Random(args.seed)
  runs: list[dict[str, Any]] = []
  while (left := args.kills - sum(len(run["kills"]) for run in runs)) > 0:
    folder = work / f"run-{len(runs)}"
    shutil.rmtree(folder, ignore_errors=True)
    kills: list[Kill] = []
    try:
      for kill in kill_import_and_run(commands, folder, min(args.each, left), chosen):
        kills.append(kill)
        working.say(f"run {len(runs)}: {kill}")
      assert_equal(folder, undisturbed)
      result = "equal"
      shutil.rmtree(folder)
    except Exception as error:  # whatever is not as it should be is a result
      result = f"{type(error).__name__}: {error}"
    working.say(f"run {len(runs)}: {len(kills)} kills, {result}")
    runs.append({"kills": [vars(kill) for kill in kills], "result": result})
    if not kills:
      break  # nothing can be started any more
  return runs


def markdown(results: dict[str, Any]) -> str:
  """The page of a campaign."""
  runs = results["runs"]
  kills = [kill for run in runs for kill in run["kills"]]
  aimed, landed = (Counter(kill[key] for kill in kills) for key in ("aimed", "landed"))
  equal = sum(run["result"] == "equal" for run in runs)
  lines = ["# Fault campaign", "", *machine_lines(results["machine"]), ""]
  lines += [
    f"{len(kills)} times `kill -9` in {len(runs)} runs of {_STEPS} steps on {_DEVICES} simulated "
    f"devices, each with an import of {_PAIRS} pairs of GeoTIFF files before; the same command was "
    f"started after each. {results['seconds'] / 60:.0f} minutes.",
    "",
    f"After its last start, {equal} of {len(runs)} runs had left what an undisturbed one leaves: "
    "every file of the data set, every array of the last state bit for bit, every row of "
    "`metrics.jsonl` once and equal but for times, the exported encoder and the report's numbers.",
    "",
    "| killed during | | aimed at | landed in |",
    "|---|---|---:|---:|",
  ]
  lines += [f"| {name} | {_MEANING[name]} | {aimed[name]} | {landed[name]} |" for name in PHASES]
  lines += ["", "| run | kills | after the last start |", "|---|---:|---|"]
  lines += [f"| {n} | {len(run['kills'])} | {run['result']} |" for n, run in enumerate(runs)]
  return "\n".join(lines) + "\n"


def _arguments(argv: list[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.fault",
    description="Kill an import and a small run at random moments.",
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument("--kills", type=int, default=100, help="in all")
  parser.add_argument("--each", type=int, default=16, help="kills of one run at most")
  parser.add_argument("--seed", type=int, default=0, help="of the moments")
  parser.add_argument(
    "--work", type=user_path, help="directory to keep; a temporary one if not given"
  )
  parser.add_argument(
    "--out", type=user_path, default=_RESULTS, help="path of the results, without suffix"
  )
  return parser.parse_args(argv)


if __name__ == "__main__":
  sys.exit(main())
