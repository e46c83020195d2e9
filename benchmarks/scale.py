"""What a run loses besides its steps, and what its devices send against what they must.

  python -m benchmarks.scale

Takes about ten minutes on two cores. See README.md for what is measured and how.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

from benchmarks.peers import machine, working
from benchmarks.peers.report import machine_lines
from xjepa_jax.paths import user_path

_RESULTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results", "scale")
_CONFIG = "configs/optical_sar.py"
_SAVES = {"every 10 steps": 10, "at the ends": 100_000}
_DEFAULT_EVERY = 500
# Goals: of a step's time for saving and for waiting, and bytes above what sharding needs.
_SAVING, _WAITING, _ABOVE = 0.02, 0.01, 0.05
_DEVICES = (2, 4, 8)
_MACHINES = {"v5p-128": None, "h100-8": 256}  # pairs a step of all devices; None is the config's
_COVARIANCE = "bpd,bpe->de"  # of all samples, which VICReg needs whatever the sharding


def main(argv: list[str] | None = None) -> None:
  """Runs everything and writes the results."""
  args = _arguments(argv)
  described = machine.describe(
    f"python -m benchmarks.scale --steps {args.steps} --rounds {args.rounds}"
  )
  sent = [_sent(devices) for devices in _DEVICES]
  predicted = [_predicted(name, batch) for name, batch in _MACHINES.items()]
  with working.directory(args.work, "scale") as work:
    rounds = _rounds(args, work)
  results = {
    "machine": described,
    "steps": args.steps,
    "rounds": rounds,
    "sent": sent,
    "predicted": predicted,
  }
  working.write_results(args.out, results, markdown(results))


def _rounds(args: argparse.Namespace, work: str) -> list[dict[str, Any]]:
  """Real runs of the main command, with and without saves, taking turns."""
  found = []
  for number in range(args.rounds):
    for title, every in _SAVES.items():
      workdir = f"{work}/{number}-{every}"
      command = [
        *(sys.executable, "-m", "xjepa_jax.main", f"--config={_CONFIG}", f"--workdir={workdir}"),
        *(f"--config.training.steps={args.steps}", f"--config.checkpoint.every={every}"),
        *("--config.evaluation.every=0", "--config.optimizer.warmup=5"),
        f"--config.data.directories=('{os.path.abspath(args.pairs)}',)",
      ]
      subprocess.run(command, check=True, timeout=3600, stdout=subprocess.DEVNULL)
      with open(f"{workdir}/goodput.jsonl", encoding="utf-8") as file:
        seconds = json.loads(file.readlines()[-1])
      found.append({"saves": title, **{key: seconds[key] for key in ("steps", "data", "save")}})
      working.say(f"round {number + 1} of {args.rounds}, {title}: {found[-1]}")
  return found


def _sent(devices: int) -> dict[str, Any]:
  """What a device of so many sends in a step of the default run, each with 32 pairs of its own."""
  from configs.optical_sar import get_config
  from xjepa_jax.config import resolve
  from xjepa_jax.scaling.describe import plan

  config = get_config("tiny")
  config.training.batch = config.evaluation.batch = 32 * devices
  config.mesh.fsdp = devices
  found = plan(resolve(config), f"h100-{devices}", use_libtpu=False)
  return {
    "devices": devices,
    "sent": sum(each.wire for each in found.sent),
    "objective": sum(each.wire for each in found.sent if _COVARIANCE in each.at),
    "least": sum(each.wire for each in found.layout.theory),
    "operations": sorted({each.op for each in found.sent}),
  }


def _predicted(name: str, batch: int | None) -> dict[str, Any]:
  """What the plan says of the large encoder at 224 pixels, patch 16."""
  from configs.optical_sar import get_config
  from xjepa_jax.config import resolve
  from xjepa_jax.scaling.describe import plan

  config = get_config("large")
  config.model.patch, config.data.image_size = 16, 224
  if batch:
    config.training.batch = batch
  found = plan(resolve(config), name, use_libtpu=False)
  return {
    "machines": name,
    "batch": found.layout.config.training.batch,
    "remat": found.layout.config.model.remat,
    "mfu": found.prediction.mfu,
    "bound": found.prediction.bound,
    "efficiency": found.layout.topology.efficiency,
    "peak_gb": found.peak / 1e9,
  }


def markdown(results: dict[str, Any]) -> str:
  """The page of a run."""
  steps, rounds = results["steps"], results["rounds"]
  lines = ["# Scale", "", *machine_lines(results["machine"]), ""]
  lines += [
    f"`{_CONFIG}` (tiny), {steps} steps, each round a fresh process; seconds from the run's own "
    "goodput.jsonl. A step's time is that of steps, of saves and of waiting for data together.",
    "",
    "| checkpoints | a step, ms, median of rounds | min | max | waiting for data |",
    "|---|---:|---:|---:|---:|",
  ]
  medians, waited = {}, []
  for title in _SAVES:
    mine = [each for each in rounds if each["saves"] == title]
    times = [1e3 * (each["steps"] + each["data"] + each["save"]) / steps for each in mine]
    shares = [each["data"] / (each["steps"] + each["data"]) for each in mine]
    waited += shares
    medians[title] = statistics.median(times)
    lines.append(
      f"| {title} | {medians[title]:,.1f} | {min(times):,.1f} | {max(times):,.1f} "
      f"| {statistics.median(shares):.2%} |"
    )
  often, seldom = (medians[title] for title in _SAVES)
  more = (steps - 1) // min(_SAVES.values())  # saves: both have those of the ends
  cost = (often - seldom) * steps / more
  share, wait = cost / _DEFAULT_EVERY / seldom, statistics.median(waited)
  lines += [
    "",
    f"- A save costs {cost:,.0f} ms beside steps of {seldom:,.0f} ms: {(often / seldom - 1):.1%} "
    f"every 10 steps, {share:.2%} every {_DEFAULT_EVERY}, the default. Goal, under {_SAVING:.0%} "
    f"at the default: {_said(share < _SAVING)}.",
    f"- Waiting for data: {wait:.2%} of the time of steps. Goal, under {_WAITING:.0%}: "
    f"{_said(wait < _WAITING)}.",
    "",
    "What a device sends in a step, with 32 pairs a device, fully sharded, as compiled, in "
    "bfloat16 with float32 sums of gradients. The objective's is VICReg's covariance over all "
    "samples; the least is gathering parameters and scattering gradients, above which the rest is.",
    "",
    "| devices | sent, MB | the objective's | least | above | operations |",
    "|---:|---:|---:|---:|---:|---|",
  ]
  above = [(each["sent"] - each["objective"]) / each["least"] - 1 for each in results["sent"]]
  for each, more in zip(results["sent"], above, strict=True):
    lines.append(
      f"| {each['devices']} | {each['sent'] / 1e6:,.2f} | {each['objective'] / 1e6:,.2f} "
      f"| {each['least'] / 1e6:,.2f} | {more:.1%} | {', '.join(each['operations'])} |"
    )
  lines += [
    "",
    f"Goal, at most {_ABOVE:.0%} above: {_said(max(above) <= _ABOVE)}.",
    "",
    "Predicted by `--plan` for `large` at 224 pixels, patch 16, in bfloat16. Assumed: products "
    "reach the given share of the peak; tables of peaks and links are in `scaling/topologies.py`.",
    "",
    "| machines | pairs a step | remat | share of the peak | MFU | bound by | GB a device |",
    "|---|---:|---|---:|---:|---|---:|",
  ]
  lines += [
    f"| {each['machines']} | {each['batch']:,} | {each['remat']} | {each['efficiency']:.0%} "
    f"| {each['mfu']:.1%} | {each['bound']} | {each['peak_gb']:.1f} |"
    for each in results["predicted"]
  ]
  return "\n".join(lines) + "\n"


def _said(met: bool) -> str:
  return "met" if met else "MISSED"


def _arguments(argv: list[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.scale",
    description="Measure what a run loses besides its steps, and what its devices send.",
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument(
    "--pairs", type=user_path, default="runs/pairs", help="simulated pairs that make run leaves"
  )
  parser.add_argument("--steps", type=int, default=60, help="of each run")
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument(
    "--work", type=user_path, help="directory of the runs; a temporary one if not given"
  )
  parser.add_argument(
    "--out", type=user_path, default=_RESULTS, help="path of the results, without suffix"
  )
  args = parser.parse_args(argv)
  if args.steps <= min(_SAVES.values()):
    parser.error(
      f"--steps {args.steps}: more than {min(_SAVES.values())}, or nothing is saved between."
    )
  return args


if __name__ == "__main__":
  main()
