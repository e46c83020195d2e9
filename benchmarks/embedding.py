"""Times `embed` against the forward passes that it has to make.

  python -m benchmarks.embedding --encoder runs/optical_sar/encoder

Takes about five minutes on two cores. See README.md for what is measured and how.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import numpy as np

from benchmarks.peers import launch, machine, working
from benchmarks.peers.report import machine_lines
from xjepa_jax.paths import user_path

_RESULTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results", "embedding")
_GOAL = 0.9
ARCHIVES = {
  "pairs": "TFRecord pairs of 64 pixels",
  "geotiff": "GeoTIFF scenes of 512 pixels, deflate",
}


def main(argv: list[str] | None = None) -> None:
  """Runs everything and writes the results."""
  args = _arguments(argv)
  described = machine.describe(
    f"python -m benchmarks.embedding --scenes {args.scenes} --rounds {args.rounds}"
  )
  with working.directory(args.work, "embedding") as work:
    rounds = _rounds(args, work)
  results = {"machine": described, "rounds": rounds}
  working.write_results(args.out, results, markdown(results))


def _rounds(args: argparse.Namespace, work: str) -> list[dict[str, Any]]:
  """Every round is a fresh process; the kinds of archive take turns."""
  module = "benchmarks.peers.embedding_measure"
  for kind in ARCHIVES:
    working.say(f"{kind}: writing {args.scenes} scenes")
    launch.run_module(module, "write", kind, f"{work}/{kind}", "--scenes", str(args.scenes))
  found = []
  for number in range(args.rounds):
    for kind in ARCHIVES:
      options = ("--encoder", os.path.abspath(args.encoder), "--out", f"{work}/{kind}-{number}")
      found.append(
        {"kind": kind, **launch.run_module(module, "time", kind, f"{work}/{kind}", *options)}
      )
      working.say(f"round {number + 1} of {args.rounds}, {kind}: {_share(found[-1]):.2f}")
  return found


def _share(measured: dict[str, Any]) -> float:
  """Of the forward rate."""
  return float(measured["tiles"] / measured["seconds"] / measured["forward"])


def markdown(results: dict[str, Any]) -> str:
  """The page of a run."""
  lines = ["# Embedding", "", *machine_lines(results["machine"]), ""]
  lines += [
    "`python -m xjepa_jax.retrieval.embed`, from the first tile that is read to the last part that "
    "is written, compiling included, against the encoder's forward passes over images of both "
    "sensors in the same batches, from memory, compiled before. Each round is a fresh process.",
    "",
    "| archive | tiles | embed, tiles/s, median | forward, images/s | share | min | max |",
    "|---|---:|---:|---:|---:|---:|---:|",
  ]
  for kind, title in ARCHIVES.items():
    mine = [each for each in results["rounds"] if each["kind"] == kind]
    shares = [_share(each) for each in mine]
    rate = np.median([each["tiles"] / each["seconds"] for each in mine])
    forward = np.median([each["forward"] for each in mine])
    lines.append(
      f"| {title} | {mine[0]['tiles']:,} | {rate:,.0f} | {forward:,.0f} | {np.median(shares):.2f} "
      f"| {min(shares):.2f} | {max(shares):.2f} |"
    )
  worst = min(
    np.median([_share(each) for each in results["rounds"] if each["kind"] == kind])
    for kind in ARCHIVES
  )
  lines += [
    "",
    f"Goal, at least {_GOAL} of the forward rate: {'met' if worst >= _GOAL else 'MISSED'}.",
  ]
  return "\n".join(lines) + "\n"


def _arguments(argv: list[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.embedding",
    description="Time embed against the encoder's own forward passes.",
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument(
    "--encoder", type=user_path, default="runs/optical_sar/encoder", help="that make run leaves"
  )
  parser.add_argument("--scenes", type=int, default=64, help="of 64 tiles each, two sensors")
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument(
    "--work", type=user_path, help="directory to keep archives in; a temporary one if not given"
  )
  parser.add_argument(
    "--out", type=user_path, default=_RESULTS, help="path of the results, without suffix"
  )
  return parser.parse_args(argv)


if __name__ == "__main__":
  main()
