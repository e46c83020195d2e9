"""Times the train step against the same step in PyTorch, and takes it apart.

  python -m benchmarks.train_step

Takes about half an hour on two cores and 6 GB of memory; see README.md for what is measured and
how. `--sizes tiny --skip unroll parts` takes about four.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers import launch, machine, step_report, working
from benchmarks.peers.step_shapes import SHAPES, StepShape
from xjepa_jax.paths import user_path

_RESULTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results", "train_step")
_TOLERANCE = 1e-3  # relative, between the losses of both
_ALIKE = 0.1  # relative, of times that two steps cannot tell apart
_UNROLLED = (1, 2, 4, 12)
_PARTS = (1, 4)  # of a batch, whose gradients are added up
_SECTIONS = ("first", "unroll", "parts")
_PEERS = "benchmarks.peers"


def main(argv: list[str] | None = None) -> None:
  """Runs everything and writes the results."""
  args = _arguments(argv)
  with working.directory(args.work, "train_step") as work:
    results = run(args, work)
  working.write_results(args.out, results, step_report.markdown(results))


def run(args: argparse.Namespace, work: str) -> dict[str, Any]:
  """Measures all sizes; returns what the JSON holds."""
  described = machine.describe(_command(args))
  for size in args.sizes:
    working.say(f"{size}: writing pairs and masks")
    launch.run_module(f"{_PEERS}.step_inputs", size, f"{work}/{size}")
  sizes = [measure_size(size, work, args.rounds, args.seconds) for size in args.sizes]
  size = args.sizes[0]
  best = sizes[0]["rows"][0]["options"]
  return {
    "machine": described,
    "sizes": sizes,
    "first": [] if "first" in args.skip else measure_first(size, work),
    "unroll": []
    if "unroll" in args.skip
    else measure_unroll(size, work, best, args.rounds, args.seconds),
    "parts": {} if "parts" in args.skip else measure_parts(args.sizes, work),
  }


def measure_size(size: str, work: str, rounds: int, seconds: float) -> dict[str, Any]:
  """Rounds in which all take turns, so that what disturbs the machine disturbs all alike."""
  shape = SHAPES[size]
  competitors: list[tuple[str, dict[str, Any]]] = [("ours", {"accumulate": 1})]
  best = best_options(size, work, "ours", [{"accumulate": parts} for parts in _PARTS])
  if best not in [options for _, options in competitors]:
    competitors.insert(0, ("ours", best))
  agreement: dict[str, float] = {}
  if importlib.util.find_spec("torch") is None:
    working.say(f"PyTorch: skipped, torch is not installed ({launch.INSTALL})")
  else:
    agreement = check_agreement(size, work)
    threads = sorted({1, os.cpu_count() or 1})
    tried = [{"threads": count, "accumulate": parts} for count in threads for parts in _PARTS]
    competitors.append(("torch", best_options(size, work, "torch", tried)))
  found: list[list[dict[str, float]]] = [[] for _ in competitors]
  flops = measure(size, work, "ours", least=0)["flops"]
  for number in range(rounds):
    for (name, options), results in zip(competitors, found, strict=True):
      results.append(measure(size, work, name, options, seconds))
      rate = results[-1]["pairs"] / results[-1]["seconds"]
      working.say(
        f"{size}, round {number + 1} of {rounds}, {_named(name, options)}: {rate:.2f} pairs/s"
      )
  return {
    "title": f"{size}: {shape.pixels} px, patch {shape.patch}",
    "description": _described(shape, flops),
    "shape": {**vars(shape), "flops": flops},
    "agreement": agreement,
    "rows": [
      {
        "title": _named(name, options),
        "options": options,
        "summary": step_report.summarise(results, flops, shape.batch),
        "rounds": results,
      }
      for (name, options), results in zip(competitors, found, strict=True)
    ],
  }


def check_agreement(size: str, work: str) -> dict[str, float]:
  """The losses of both on the same parameters; raises where they differ."""
  found = launch.run_module(f"{_PEERS}.step_agreement", size, f"{work}/{size}")
  if not abs(found["torch"] - found["ours"]) <= _TOLERANCE * abs(found["ours"]):
    raise AssertionError(f"{size}: PyTorch computes another loss than ours: {found}")
  working.say(f"{size}: both compute the loss {found['ours']:.6f}")
  return found


def best_options(
  size: str, work: str, competitor: str, tried: Sequence[dict[str, Any]]
) -> dict[str, Any]:
  """Those of a competitor's options that serve it best in a short trial, two steps each.

  The least memory of those that are about as fast as the fastest.
  """
  results = [measure(size, work, competitor, options, least=2) for options in tried]
  for options, result in zip(tried, results, strict=True):
    rate = SHAPES[size].batch / result["fastest"]
    working.say(f"{size}, trial, {_named(competitor, options)}: {rate:.2f} pairs/s")
  slowest = (1 + _ALIKE) * min(result["fastest"] for result in results)
  fast = [i for i, result in enumerate(results) if result["fastest"] <= slowest]
  return tried[min(fast, key=lambda i: results[i]["resident"])]


def measure_first(size: str, work: str) -> list[dict[str, Any]]:
  """Tracing and compiling: as it is, twice as deep, and from the cache."""
  depth = SHAPES[size].depth
  rows = []
  for title, changes, options in (
    (f"depth {depth}", {}, {"cache": False}),
    (f"depth {2 * depth}", {"depth": 2 * depth}, {"cache": False}),
    (f"depth {depth}, from the cache", {}, {}),
  ):
    found = measure(size, work, "ours", options, least=0, shape=changes)
    rows.append({"title": title, **found})
    working.say(f"{size}, {title}: {found['trace'] + found['compile']:.1f} s to trace and compile")
  return rows


def measure_unroll(
  size: str, work: str, best: Mapping[str, Any], rounds: int, seconds: float
) -> list[dict[str, Any]]:
  """Compilation with more layers in a turn of the scan, and speed, for which all take turns."""
  rows: list[dict[str, Any]] = []
  for unroll in _UNROLLED:
    options = {**best, "unroll": unroll}
    first = measure(size, work, "ours", {**options, "cache": False}, least=0)
    rows.append({"unroll": unroll, "options": options, "first": first, "rounds": []})
  for number in range(rounds):
    for row in rows:
      found = measure(size, work, "ours", row["options"], seconds)
      row["rounds"].append(found)
      rate = found["pairs"] / found["seconds"]
      working.say(
        f"{size}, round {number + 1} of {rounds}, unroll {row['unroll']}: {rate:.2f} pairs/s"
      )
  for row in rows:
    flops = row["first"]["flops"]
    row["summary"] = step_report.summarise(row["rounds"], flops, SHAPES[size].batch)
  return rows


def measure_parts(sizes: Sequence[str], work: str) -> dict[str, Any]:
  """The parts of the step by size, each compiled by itself."""
  found = {}
  for size in sizes:
    working.say(f"{size}: parts")
    found[size] = launch.run_module(f"{_PEERS}.step_parts", size, f"{work}/{size}")["output"]
  return found


def measure(
  size: str,
  work: str,
  competitor: str,
  options: Mapping[str, Any] | None = None,
  seconds: float = 0.0,
  least: int = 3,
  shape: Mapping[str, int] | None = None,
) -> dict[str, Any]:
  """One fresh process: what `step_measure` prints, and its peaks of memory in bytes."""
  return launch.run_module(
    f"{_PEERS}.step_measure",
    *(competitor, size, f"{work}/{size}"),
    *("--seconds", str(seconds), "--least", str(least)),
    *("--shape", json.dumps(dict(shape or {})), "--options", json.dumps(dict(options or {}))),
  )


def _described(shape: StepShape, flops: float) -> str:
  return (
    f"Encoder {shape.depth} layers of {shape.width}, {shape.heads} heads; predictor "
    f"{shape.predictor_depth} layers of {shape.predictor_width}; {shape.batch} pairs a step, "
    f"{shape.tokens} tokens an image, {shape.context_tokens} in the context, {shape.blocks} blocks "
    f"of {shape.block_tokens}. Ours needs {flops / 1e9:.1f} GFLOP a step."
  )


def _named(competitor: str, options: Mapping[str, Any]) -> str:
  title = "ours" if competitor == "ours" else f"PyTorch, {options['threads']} threads"
  parts = options.get("accumulate", 1)
  return title if parts == 1 else f"{title}, batch in {parts} parts"


def _command(args: argparse.Namespace) -> str:
  words = ["python -m benchmarks.train_step", f"--sizes {' '.join(args.sizes)}"]
  words += [f"--rounds {args.rounds}", f"--seconds {args.seconds:g}"]
  return " ".join(words + [f"--skip {' '.join(args.skip)}"] * bool(args.skip))


def _arguments(argv: list[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.train_step",
    description="Time the train step against the same step in PyTorch, and take it apart.",
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument("--sizes", nargs="+", choices=tuple(SHAPES), default=["tiny", "small"])
  parser.add_argument("--rounds", type=int, default=3, help="of the comparison")
  parser.add_argument("--seconds", type=float, default=10.0, help="of steps in a round")
  parser.add_argument(
    "--skip", nargs="+", choices=_SECTIONS, default=[], help="tables to leave out"
  )
  parser.add_argument(
    "--work", type=user_path, help="directory to keep inputs in; a temporary one if not given"
  )
  parser.add_argument(
    "--out", type=user_path, default=_RESULTS, help="path of the results, without suffix"
  )
  return parser.parse_args(argv)


if __name__ == "__main__":
  main()
