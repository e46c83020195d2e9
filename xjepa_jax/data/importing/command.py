"""The options that all imports share, and one import from its plan to its summary."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable

from xjepa_jax.data.archive import Archive
from xjepa_jax.data.cores import usable_cores
from xjepa_jax.data.import_plan import ImportPlan, plan_import
from xjepa_jax.data.importing.skipped import MAX_SKIPPED, check_odd, check_skipped, skipped_lines
from xjepa_jax.data.writer import SKIPPED_FILE, ImportSummary, check_free, write_dataset
from xjepa_jax.errors import DataError, XJepaError
from xjepa_jax.paths import user_path

_SHOWN = 5  # labels shown in the summary


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
  """Add the options of every command that writes a data set."""
  parser.add_argument(
    "--out", type=user_path, required=True, help="directory of the data set to be written"
  )
  parser.add_argument("--workers", type=int, default=usable_cores(), help="processes")
  parser.add_argument("--encoding", choices=("bytes", "zlib"), default="bytes")
  parser.add_argument("--shard-mb", type=float, default=128, help="target size of a shard, MB")
  parser.add_argument("--seed", type=int, default=0, help="of whatever is drawn, such as splits")
  parser.add_argument("--dry-run", action="store_true", help="list what would be written, and end")
  parser.add_argument("--resume", action="store_true", help="continue an interrupted import")
  parser.add_argument(
    "--beam",
    metavar="OPTIONS",
    help="write shards by an Apache Beam pipeline, such as --beam='--runner=FlinkRunner'; all its "
    "machines see --src and --out under the same paths",
  )


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
  """Add the options of every command that reads an archive of images."""
  parser.add_argument(
    "--src", type=user_path, required=True, help="the archive: a directory, or a manifest's file"
  )
  add_output_arguments(parser)
  parser.add_argument(
    "--misaligned",
    choices=("refuse", "warp"),
    default="refuse",
    help="a pair whose sensors' grids differ by over half a pixel is skipped, or warped onto the "
    "first sensor's grid",
  )
  parser.add_argument(
    "--resample",
    choices=("nearest", "bilinear"),
    default="nearest",
    help="how coarser bands come to the finest grid, and how a warp interpolates",
  )
  parser.add_argument(
    "--trust-units",
    action="store_true",
    help="import although the values contradict the sensor's units",
  )
  parser.add_argument(
    "--trust-offset",
    action="store_true",
    help="import although the values seem to have another offset: archives of bright ground alone",
  )
  parser.add_argument(
    "--skip-odd",
    action="store_true",
    help="leave out pairs whose values contradict their sensors, where most are right",
  )
  parser.add_argument(
    "--max-skipped",
    type=float,
    default=MAX_SKIPPED,
    metavar="SHARE",
    help="how large a share of the pairs may fall out, from 0 to 1; more is an error",
  )


def run(open_archive: Callable[[argparse.Namespace], Archive], args: argparse.Namespace) -> int:
  """Open and import an archive, print errors as one paragraph, and return the exit status."""
  try:
    run_import(open_archive(args), args)
  except XJepaError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print("interrupted: finished shards are kept, --resume continues", file=sys.stderr)
    return 130
  return 0


def run_import(archive: Archive, args: argparse.Namespace) -> None:
  """Plan and write an archive, with progress and a summary on the terminal.

  Raises:
    DataError, WriteError: the archive cannot be imported, or the data set cannot be written.
  """
  if args.shard_mb <= 0 or args.workers < 1:
    raise DataError(f"--shard-mb {args.shard_mb}, --workers {args.workers}: both must be above 0.")
  if not 0 <= _max_skipped(args) <= 1:
    raise DataError(f"--max-skipped {_max_skipped(args):g}: expected a share from 0 to 1.")
  check_free(args.out, args.resume)  # before planning, which reads headers and a sample of pairs
  trusted = getattr(args, "trust_units", True)  # the simulation has no such option
  plan = plan_import(
    archive,
    int(args.shard_mb * 1e6),
    args.encoding,
    not trusted,
    getattr(args, "trust_offset", False),
  )
  _print_plan(plan)
  kept = plan.pairs - len(plan.unreadable)
  print("\n".join(skipped_lines(plan.lost, kept)) or "no pair is known to fall out")
  _check_units(plan, trusted)
  check_odd(plan.lost, getattr(args, "skip_odd", True))
  check_skipped(plan.lost, kept, _max_skipped(args), "give --max-skipped")
  if args.dry_run:
    print("Dry run: a sample of the pairs was read, and nothing was written.")
    return
  started = time.monotonic()
  summary = _write(plan, args)
  _print_summary(summary, args.out, time.monotonic() - started)


def _write(plan: ImportPlan, args: argparse.Namespace) -> ImportSummary:
  from tqdm import tqdm

  seconds = 0.2 if sys.stderr.isatty() else 10  # fewer lines if the output is a log
  with tqdm(total=plan.pairs, unit="pairs", desc=plan.archive.name, mininterval=seconds) as bar:

    def progress(count: int) -> None:
      bar.update(count)

    return write_dataset(
      plan,
      args.out,
      args.workers,
      args.resume,
      progress,
      args.beam,
      _max_skipped(args),
      getattr(args, "skip_odd", True),
    )


def _max_skipped(args: argparse.Namespace) -> float:
  """The option's value, or the default for the simulation, which has no such option."""
  return float(getattr(args, "max_skipped", MAX_SKIPPED))


def _check_units(plan: ImportPlan, trusted: bool) -> None:
  for remark in plan.remarks:
    print(f"Note: {remark}")
  for warning in plan.warnings:
    print(f"Warning: {warning}")
  if plan.warnings and not trusted:
    raise DataError(
      "the values contradict the sensors' descriptions, see above. Name the right product, or "
      "give --trust-units if the values are right all the same."
    )


def _print_plan(plan: ImportPlan) -> None:
  form = plan.format
  print(f"Data set {plan.archive.name!r}: {plan.pairs:,} pairs listed")
  for key, sensor in form.sensors.items():
    height, width = form.shapes[key]
    print(
      f"  {key}: {sensor.product}; {', '.join(sensor.band_names)}; {height} x {width} "
      f"{sensor.dtype}, {sensor.units}, nodata {sensor.nodata}"
    )
  for split, shards in plan.shards.items():
    pairs = sum(len(shard) for shard in shards)
    print(f"  {split}: {pairs:,} pairs in {len(shards):,} shards")
  print(f"  at most {plan.pairs * form.nbytes() / 1e6:,.1f} MB before compression")
  for note in plan.archive.notes:
    print(f"  {note}")


def _print_summary(summary: ImportSummary, out: str, seconds: float) -> None:
  pairs = sum(summary.splits.values())
  splits = ", ".join(f"{count:,} {split}" for split, count in summary.splits.items())
  print(
    f"Wrote {pairs:,} pairs ({splits}), {summary.nbytes / 1e6:,.1f} MB, to {out} "
    f"in {seconds:,.1f} s ({pairs / max(seconds, 1e-9):,.0f} pairs/s)"
  )
  if summary.labels:
    common = Counter(summary.labels).most_common(_SHOWN)
    shown = ", ".join(f"{label} ({count:,})" for label, count in common)
    print(f"{len(summary.labels)} labels, most often {shown}")
  for line in skipped_lines(summary.skipped, pairs):
    print(line)
  if summary.skipped:
    print(f"All of them, with reasons: {os.path.join(out, SKIPPED_FILE)}")
