"""Times the input pipeline against tf.data, PyTorch's DataLoader and the bound of this machine.

  python -m benchmarks.input_pipeline --pairs 3000

Takes about six minutes on two cores, and 7 GB of disk. Pairs are 12 x uint16 and 2 x float32 of
120 x 120 pixels; see README.md for what is measured and how.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from benchmarks.peers import index_only, launch, machine, pair_files, report, working
from benchmarks.peers.launch import Competitor
from benchmarks.peers.pair_format import SENSORS, pair_bytes
from xjepa_jax.paths import user_path

_RESULTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results", "input_pipeline")
_TRIAL_SECONDS = 3.0
_SMALL = 64  # pixels of the small pairs
_TIMES = 3  # how many times the data set is repeated for the measurement of memory


def main(argv: list[str] | None = None) -> None:
  """Runs everything and writes the results."""
  args = _arguments(argv)
  with working.directory(args.work, "input_pipeline") as work:
    results = run(args, work)
  working.write_results(args.out, results, report.markdown(results))


def run(args: argparse.Namespace, work: str) -> dict[str, Any]:
  """Writes data, checks that all read the same, measures; returns what the JSON holds."""
  described = machine.describe(_command(args))
  write(work, args.pairs)
  main_ones, skipped = _installed(competitors(work))
  others, also_skipped = _installed(other_competitors(work))
  check_agreement(work, main_ones)
  main_ones = [_with_best_workers(each) for each in main_ones]
  sections = [
    section("Pairs of 120 x 120", main_ones, args.rounds, args.seconds),
    section("Small pairs, and compressed ones", others, args.small_rounds, args.seconds / 2),
  ]
  if args.readings:
    sections.append(section("Ways of reading", readings(work), args.small_rounds, args.seconds / 2))
  return {
    "machine": described,
    "sections": sections,
    "skipped": list(dict.fromkeys(skipped + also_skipped)),
    "memory": measure_memory(work, args.seconds),
    "opening": measure_opening(work),
  }


def write(work: str, pairs: int) -> None:
  """Writes the data sets that are timed, reads them once, and waits until all is on disk."""
  working.say(f"writing {pairs} pairs")
  pair_files.write_npy(f"{work}/npy", pairs, 120)
  pair_files.write_pairs(f"{work}/pairs", pairs, 120)
  pair_files.write_pairs(f"{work}/small", pairs, _SMALL)
  pair_files.write_pairs(f"{work}/zlib", max(pairs // 8, 64), 120, "zlib")
  os.sync()
  for name in ("npy", "pairs", "small", "zlib"):
    pair_files.warm(f"{work}/{name}")


def competitors(work: str) -> list[Competitor]:
  """Those that read the pairs of 120 x 120."""
  return [
    Competitor("ours", "ours", f"{work}/pairs"),
    Competitor("ours, no CRC", "ours", f"{work}/pairs", options={"verify": False}),
    Competitor("tf.data", "tf_data", f"{work}/pairs", needs="tensorflow"),
    Competitor(
      "DataLoader, pair by pair, no CRC",
      "torch_loader",
      f"{work}/npy",
      needs="torch",
      options={"gather": False},
    ),
    Competitor(
      "DataLoader, batches gathered, no CRC", "torch_loader", f"{work}/npy", needs="torch"
    ),
    Competitor("bound: read and CRC, 1 thread", "bound", f"{work}/pairs"),
  ]


def other_competitors(work: str) -> list[Competitor]:
  """Small pairs and compressed ones."""
  small = f"{work}/small"
  return [
    Competitor(f"ours, {_SMALL} x {_SMALL}", "ours", small, _SMALL),
    Competitor(f"tf.data, {_SMALL} x {_SMALL}", "tf_data", small, _SMALL, needs="tensorflow"),
    Competitor("ours, 120 x 120, zlib", "ours", f"{work}/zlib"),
  ]


def readings(work: str) -> list[Competitor]:
  """Ours with other numbers of threads and of batches ahead."""
  return [
    Competitor(
      f"ours, Reading(threads={threads}, prefetch={prefetch})",
      "ours",
      f"{work}/pairs",
      options={"threads": threads, "prefetch": prefetch},
    )
    for threads in (1, 2, 3)
    for prefetch in (1, 2, 4)
  ]


def check_agreement(work: str, chosen: Sequence[Competitor]) -> None:
  """Raises unless each one's first shuffled batch holds pairs as written.

  Half of them at least are different: the window of tf.data holds several epochs of few pairs.
  """
  written = pair_files.read_digests(f"{work}/npy")
  for each in chosen:
    if each.module != "bound":
      found = launch.digests(each)
      if len(set(found)) < 32 or not set(found) <= written:
        raise AssertionError(f"{each.title} delivers other pixels than were written")
      working.say(f"{each.title}: delivers the pixels that were written")


def section(
  title: str, chosen: Sequence[Competitor], rounds: int, seconds: float
) -> dict[str, Any]:
  """Rounds in which all take turns, so that what disturbs the machine disturbs all alike."""
  found: dict[str, list[dict[str, float]]] = {each.title: [] for each in chosen}
  for number in range(rounds):
    for each in chosen:
      result = launch.measure(each, seconds)
      found[each.title].append(result)
      rate = result["pairs"] / result["seconds"]
      working.say(f"round {number + 1} of {rounds}, {each.title}: {rate:,.0f} pairs/s")
  rows = [
    {
      "title": each.title,
      "options": dict(each.options),
      "summary": report.summarise(found[each.title], pair_bytes(each.size)),
      "rounds": found[each.title],
    }
    for each in chosen
  ]
  return {"title": title, "rows": rows}


def measure_memory(work: str, seconds: float) -> list[dict[str, Any]]:
  """Peak memory of ours, over at least one pass through several GB, both ways of reading."""
  large = f"{work}/large"
  pair_files.repeat_shards(f"{work}/pairs", large, _TIMES)
  dataset_bytes = pair_files.warm(large)
  least = dataset_bytes // pair_bytes(120)
  some_bands = {key: sensor.band_names[:-1] for key, sensor in SENSORS.items()}
  ways = {
    "all bands, read into the batch": Competitor("all", "ours", large),
    "some bands, copied from the map": Competitor(
      "some", "ours", large, options={"bands": some_bands}
    ),
  }
  rows = []
  for title, competitor in ways.items():
    working.say(f"memory: {title}")
    found = launch.measure(competitor, seconds / 2, least)
    rows.append({"title": title, "dataset_bytes": dataset_bytes, **found})
  return rows


def measure_opening(work: str) -> dict[str, Any]:
  """Time and memory to open ten million records."""
  working.say("opening ten million records")
  index_only.write_index_only(f"{work}/ten_million")
  return launch.run_module("benchmarks.peers.opening", f"{work}/ten_million")


def _with_best_workers(competitor: Competitor) -> Competitor:
  """PyTorch's loader with as many workers as serve it best: none, or one a core."""
  if competitor.module != "torch_loader":
    return competitor
  tried = [
    dataclasses.replace(
      competitor,
      options={**competitor.options, "workers": workers},
      title=f"{competitor.title}{name}",
    )
    for workers, name in ((0, ", 0 workers"), (os.cpu_count() or 1, f", {os.cpu_count()} workers"))
  ]
  rates = []
  for each in tried:
    found = launch.measure(each, _TRIAL_SECONDS)
    rates.append(found["pairs"] / found["seconds"])
    working.say(f"trial, {each.title}: {rates[-1]:,.0f} pairs/s")
  return tried[rates.index(max(rates))]


def _installed(chosen: Sequence[Competitor]) -> tuple[list[Competitor], list[str]]:
  """Those that can run, and a line for each that cannot."""
  missing = {each.title: each.missing() for each in chosen}
  lines = [line for line in missing.values() if line]
  for line in lines:
    working.say(line)
  return [each for each in chosen if not missing[each.title]], lines


def _command(args: argparse.Namespace) -> str:
  words = ["python -m benchmarks.input_pipeline", f"--pairs {args.pairs}"]
  words += [f"--rounds {args.rounds}", f"--small-rounds {args.small_rounds}"]
  words += [f"--seconds {args.seconds:g}"]
  return " ".join(words + ["--readings"] * args.readings)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.input_pipeline",
    description="Time the input pipeline against tf.data, PyTorch's DataLoader and the bound.",
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument("--pairs", type=int, default=3000, help="to write and read, at least 64")
  parser.add_argument("--rounds", type=int, default=5, help="of the comparison")
  parser.add_argument("--small-rounds", type=int, default=3, help="of the other tables")
  parser.add_argument("--seconds", type=float, default=6.0, help="of steady state in a round")
  parser.add_argument("--readings", action="store_true", help="time ours with 1 to 3 threads too")
  parser.add_argument(
    "--work", type=user_path, help="directory to keep data in; a temporary one if not given"
  )
  parser.add_argument(
    "--out", type=user_path, default=_RESULTS, help="path of the results, without suffix"
  )
  return parser.parse_args(argv)


if __name__ == "__main__":
  main()
