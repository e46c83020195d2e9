"""Measures retrieval by published protocols: python -m xjepa_jax.retrieval.evaluate SOURCE ...

Compares several encoders, embedding directories and files of other models in one table. Each number
has its bootstrap interval over queries and stands beside the baselines that need no training:
chance, image statistics, gradients and the linear layout.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from xjepa_jax.errors import EvaluationError, OptionError, XJepaError
from xjepa_jax.paths import user_path
from xjepa_jax.processes.devices import check_devices
from xjepa_jax.processes.output import run_command

_EXAMPLE = """\
A source is [NAME=]PATH: an exported encoder, a directory that `embed` wrote, or a Parquet or CSV
file with one vector a row. Files of one sensor each go together as NAME=radar:a.csv,optical:b.csv.

example: python -m xjepa_jax.retrieval.evaluate ours=runs/optical_sar/encoder theirs=other.csv \\
           --pairs runs/pairs --protocol paired-recall --json evaluation.json
"""


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit status."""
  args = _parser().parse_args(argv)
  try:
    evaluate(args)
  except XJepaError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  return 0


def evaluate(args: argparse.Namespace) -> None:
  """Reads the sources, carries out the protocols, and prints and writes the results.

  Raises:
    XJepaError: an option or a source is not usable.
  """
  from xjepa_jax.retrieval.evaluating.comparison import Comparison
  from xjepa_jax.retrieval.evaluating.sources import Reading, read_source, splits_of
  from xjepa_jax.retrieval.evaluating.vector_files import Columns
  from xjepa_jax.retrieval.protocols import protocol_of

  check_devices()
  chosen = [
    protocol_of(name).between(args.queries or args.split, args.archive or args.split)
    for name in args.protocol or ["paired-recall"]
  ]
  reading = Reading(
    pairs=args.pairs,
    splits=splits_of([(each.queries, each.archive) for each in chosen]),
    head=args.head or None,
    columns=Columns(
      args.id_column, args.sensor_column, args.vector, args.labels_column, args.split_column
    ),
  )
  sources = [read_source(given, reading) for given in args.sources]
  # Where splits are unknown, choosing one would have no effect and all scenes would be measured.
  for option in ("split", "queries", "archive"):
    if split := getattr(args, option):
      _check_split_known(sources, f"--{option} {split}")
  names = [source.name for source in sources]
  if len(set(names)) < len(names):
    raise OptionError(f"sources {', '.join(names)}: give each a name of its own, NAME=PATH.")
  for source in sources:
    if source.taken:
      print(f"{source.name}: vectors of {source.scenes.dimensions:,} numbers, {source.taken}")
  comparison = Comparison(sources, reading, args.train, args.resamples, args.linear)
  results: list[dict[str, Any]] = []
  for number, protocol in enumerate(chosen):
    found = comparison.by(protocol)
    print(("\n" if number else "") + found.text)
    results.append(found.content)
  if args.quantisation:
    from xjepa_jax.retrieval.evaluating.sizes import sizes_table, write_plot

    # Sizes are measured by the first protocol only.
    prefixes = _numbers(args.prefixes)
    found_sizes = [
      (source.name, comparison.sizes(source, chosen[0], args.quantisation, prefixes))
      for source in sources
    ]
    print("\n" + sizes_table(found_sizes, chosen[0]))
    results[0]["sizes"] = {name: [size.to_json() for size in each] for name, each in found_sizes}
    if args.plot:
      write_plot(args.plot, found_sizes, chosen[0])
      print(f"Plot: {args.plot}")
  elif args.plot:
    raise OptionError("--plot shows sizes of descriptors: give --quantisation all.")
  if args.json:
    _write_json(args.json, results)


def _check_split_known(sources: Sequence[Any], option: str) -> None:
  for source in sources:
    if not source.scenes.split_known:
      raise OptionError(
        f"{option}: {source.name} says of no scene which split it is of, so all would be "
        f"measured. Leave {option.split()[0]} out to measure all, give --pairs with the data set "
        "whose splits count, or a file with a column of splits (--split-column)."
      )


def _write_json(path: str, results: Sequence[dict[str, Any]]) -> None:
  import json

  from xjepa_jax.versions import versions

  try:
    with open(path, "w", encoding="utf-8") as file:
      json.dump({"protocols": results, "versions": versions()}, file, indent=1, allow_nan=False)
  except OSError as error:
    raise EvaluationError(f"{path}: cannot be written ({error.strerror}).") from error


def _numbers(text: str) -> tuple[int, ...]:
  try:
    return tuple(int(each) for each in text.split(",") if each.strip())
  except ValueError as error:
    raise OptionError(f"--prefixes {text!r}: expected whole numbers, such as 64,128.") from error


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m xjepa_jax.retrieval.evaluate",
    description="Measure retrieval by published protocols, of several models in one table.",
    epilog=_EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("sources", nargs="+", metavar="SOURCE", help="what is compared; see below")
  parser.add_argument(
    "--protocol",
    action="append",
    metavar="NAME",
    help="paired-recall (the default), ben14k-f1@5, csmae-f1@10, cbrsir-map, dsrsid-map; "
    "may be given several times",
  )
  parser.add_argument(
    "--pairs",
    type=user_path,
    default="",
    metavar="DIR",
    help="data set: encoders' images, splits, labels",
  )
  parser.add_argument(
    "--split", default="", help="asks and is searched, whatever the protocol says"
  )
  parser.add_argument("--queries", default="", metavar="SPLIT", help="split that asks")
  parser.add_argument("--archive", default="", metavar="SPLIT", help="split that is searched")
  parser.add_argument(
    "--train", default="train", metavar="SPLIT", help="split that baselines are fitted on (train)"
  )
  parser.add_argument(
    "--linear",
    type=int,
    default=20_000,
    metavar="N",
    help="pairs, at most, that the linear baseline is fitted on; 0 omits it and gradients (20000)",
  )
  parser.add_argument("--head", default="", help="of encoders; their own if not given")
  parser.add_argument(
    "--json", type=user_path, default="", metavar="FILE", help="write everything measured"
  )
  parser.add_argument(
    "--resamples", type=int, default=1000, help="of the bootstrap; 0 for no intervals (1000)"
  )
  sizes = parser.add_argument_group("sizes of descriptors")
  sizes.add_argument(
    "--quantisation",
    default="",
    metavar="KIND",
    help="also a table of quality against bytes a scene: all, or float32, float16, int8, binary, "
    "hamming",
  )
  sizes.add_argument(
    "--prefixes", default="", metavar="N,N", help="sizes that vectors are cut to; the head's own"
  )
  sizes.add_argument("--plot", type=user_path, default="", metavar="PNG", help="of that table")
  files = parser.add_argument_group("columns of files")
  files.add_argument("--id-column", default="id", metavar="NAME", help="scene (id)")
  files.add_argument("--sensor-column", default="sensor", metavar="NAME", help="(sensor)")
  files.add_argument(
    "--vector",
    default="",
    metavar="NAME",
    help="column of lists, or pattern of numeric columns such as 'f*'; if not given, a column of "
    "lists, or all others where their names differ by numbers alone, such as f0, f1",
  )
  files.add_argument(
    "--labels-column", default="labels", metavar="NAME", help="lists, or text with ; (labels)"
  )
  files.add_argument("--split-column", default="split", metavar="NAME", help="(split)")
  return parser


if __name__ == "__main__":
  run_command(main)
