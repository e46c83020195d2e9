"""Embeds an archive: python -m xjepa_jax.retrieval.embed --encoder DIR --archive PATH --out DIR

Writes a directory of GeoParquet that `xjepa_jax.retrieval.embedding.files` and other tools read.
After an interruption the same command continues where it stopped. Several processes can share an
archive with --process and --processes; together they write the same bytes as a single process.
Heavy modules are imported inside the functions, which keeps --help fast.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

from xjepa_jax.errors import EmbeddingError, OptionError, XJepaError
from xjepa_jax.paths import user_path
from xjepa_jax.processes.devices import check_devices
from xjepa_jax.processes.output import run_command

_BATCH = {"cpu": 16}  # rows per device and call; accelerators need more to be busy
_ACCELERATOR_BATCH = 256
_VERSIONS = ("python", "xjepa-jax", "jax", "jaxlib", "numpy")  # and pyarrow: bytes depend on them
_SHOWN = 5  # skipped images printed; skipped.csv lists all


def main(argv: list[str] | None = None) -> int:
  """Embeds an archive; returns the exit status."""
  argv = sys.argv[1:] if argv is None else argv
  args = _parser().parse_args(argv)
  try:
    if args.beam is not None:
      _embed_by_beam(args, argv)
    # After Beam all parts are finished, and this only describes the directory.
    embed(args)
  except XJepaError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print("interrupted: finished parts are kept, the same command continues", file=sys.stderr)
    return 130
  return 0


def embed(args: argparse.Namespace) -> None:
  """Embeds the archive that the command line names.

  Raises:
    XJepaError: the encoder, the archive or the output directory is not usable.
  """
  import jax

  from xjepa_jax.export import load_encoder
  from xjepa_jax.retrieval.embedding.archives import collect
  from xjepa_jax.retrieval.embedding.progress import Progress
  from xjepa_jax.retrieval.embedding.run import finish, write_parts

  check_devices()
  process, processes = _share(args)
  encoder = load_encoder(args.encoder)
  sensors = {key: given.sensor for key, given in encoder.inputs.items()}
  archive = collect(args.archive, _archive_options(args, sensors))
  plan = _plan(args, encoder, archive)
  _print_plan(plan, sensors)
  progress = Progress(args.out, plan.settings, process, plan.tiles.items)
  # Every `processes`-th part belongs to this process; those finished and intact are skipped.
  todo = [
    number
    for number in range(process, len(plan.parts), processes)
    if progress.finished(number) is None
  ]
  judges: dict[str, Any] = {}
  if todo:
    try:
      judges = _judged(args, plan, _judges(args, sensors, archive.kind))
    except XJepaError:
      # Nothing has been written yet, so the directory is free for other settings.
      progress.release()
      raise
  started = time.monotonic()
  count = sum(plan.parts[number][1] - plan.parts[number][0] for number in todo)
  devices = len(jax.local_devices())
  _with_bar(
    count,
    lambda done: write_parts(
      plan,
      progress,
      encoder,
      todo,
      plan.options.batch * devices,
      args.readers,
      done,
      judges,
      args.skip_odd,
    ),
  )
  seconds = time.monotonic() - started
  description = finish(plan, progress, args.licence)
  if todo:
    print(f"{count:,} tiles in {seconds:,.1f} s ({count / max(seconds, 1e-9):,.0f} tiles/s)")
  if description is None and processes == 1:
    raise EmbeddingError(
      f"{args.out}: a part is not what was written a moment ago. See whether the disk is sound and "
      "no other program writes there; the same command makes that part again."
    )
  if description is None:
    print(
      f"{args.out}: this process has finished, parts of others are missing or damaged. Whoever "
      "finishes last describes the directory; if none did, the same command continues."
    )
    return
  _print_left_out(args.out)
  print(f"{description.count:,} rows of {', '.join(description.sensors)} in {args.out}")


def _embed_by_beam(args: argparse.Namespace, argv: list[str]) -> None:
  """Runs each share of the archive in a Beam worker; the caller then only describes the directory.

  Raises:
    OptionError, WriteError: see `run_pieces`.
  """
  from xjepa_jax.data.beam import run_pieces

  if args.process is not None or (args.processes or 0) < 1:
    raise OptionError("--beam: give --processes, into how many shares it is cut, and no --process.")
  shares = [(argv, number) for number in range(args.processes)]
  run_pieces(_embed_share, shares, args.beam)
  args.processes = None


def _embed_share(share: tuple[list[str], int]) -> None:
  argv, number = share
  args = _parser().parse_args([*argv, f"--process={number}"])
  embed(args)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m xjepa_jax.retrieval.embed",
    description="Describe every tile of an archive with a trained encoder, as GeoParquet.",
    epilog="example: python -m xjepa_jax.retrieval.embed --encoder runs/optical_sar/encoder "
    "--archive scenes/ --sensor optical --out embeddings",
  )
  add = parser.add_argument
  add("--encoder", type=user_path, required=True, help="directory of an exported encoder")
  add(
    "--archive",
    type=user_path,
    required=True,
    help="a data set of pairs; a folder of images; a .csv or .parquet table of images; a STAC "
    "catalog, item, item collection or stac-geoparquet",
  )
  add("--out", type=user_path, required=True, help="directory to be written, or to be continued")
  add("--head", help="of the encoder; its default one if not given")
  add("--quantisation", choices=("float32", "float16", "int8"), default="float16")
  repeated: dict[str, Any] = {"action": "append", "default": []}
  add(
    "--sensor",
    metavar="KEY[=PATTERN]",
    help="one of the encoder's, whose images are embedded; in a folder, of files that match: "
    "* stays within a folder, **/ is any number of folders ('s1/**/*.tif')",
    **repeated,
  )
  add("--split", help="of pairs or of a table; may be repeated; all if not given", **repeated)
  add(
    "--bands", metavar="KEY=B04,B03", help="the bands that files hold, in their order", **repeated
  )
  add(
    "--offset",
    metavar="KEY=VALUE",
    help="of the files' stored values, such as -1000 for Sentinel-2 from baseline 04.00 on, if it "
    "is not the encoder's",
    **repeated,
  )
  add("--nodata", metavar="KEY=VALUE", help="the stored value for not seen, or none", **repeated)
  add(
    "--time",
    metavar="tag:NAME|REGEX",
    default="",
    help="where files tell their time of acquisition: tag:TIFFTAG_DATETIME, or a regular "
    r"expression for their paths with one group, such as '_(\d{8}T\d{6})'",
  )
  add("--stride", type=int, help="pixels from tile to tile; the encoder's image size if not given")
  add(
    "--min-valid",
    type=float,
    help="leave out tiles of which a smaller fraction was seen (images: 0.5, pairs: 0)",
  )
  add("--no-geometry", action="store_true", help="embed without coordinates")
  add("--allow-outside", action="store_true", help="let paths leave the archive's folder")
  add(
    "--skip-odd",
    action="store_true",
    help="leave out tiles whose values contradict the sensor's units, where most are right",
  )
  add(
    "--any-resolution",
    action="store_true",
    help="embed images whose pixels are of another size on the ground than the sensor's",
  )
  add("--trust-units", action="store_true", help="embed values that contradict the sensor's units")
  add(
    "--trust-offset",
    action="store_true",
    help="embed values that seem to have another offset: archives of bright ground alone",
  )
  add("--part-rows", type=int, default=16384, help="tiles of a part (16384)")
  add("--batch", type=int, help="tiles that a device computes at once (CPU: 16, others: 256)")
  add("--readers", type=int, default=4, help="threads that read (4)")
  add("--process", type=int, help="number of this process, from 0, of --processes")
  add("--processes", type=int, help="processes that share the archive")
  add(
    "--beam",
    metavar="OPTIONS",
    help="embed --processes shares by an Apache Beam pipeline, such as "
    "--beam='--runner=FlinkRunner'; all its machines see --encoder, --archive and --out under the "
    "same paths",
  )
  add("--licence", default="other", help="SPDX identifier, for collection.json (other)")
  return parser


def _share(args: argparse.Namespace) -> tuple[int, int]:
  """This process's number and the number of processes; from JAX unless the options give them."""
  if (args.process is None) != (args.processes is None):
    raise OptionError("--process and --processes belong together; give both or none.")
  if args.process is not None:
    if not 0 <= args.process < args.processes:
      raise OptionError(
        f"--process {args.process} --processes {args.processes}: expected 0 <= process < processes."
      )
    return args.process, args.processes
  import jax

  return jax.process_index(), jax.process_count()


def _judged(args: argparse.Namespace, plan: Any, judges: dict[str, Any]) -> dict[str, Any]:
  """Judges the units of a sample; returns the judges for all other tiles, none if trusted.

  Raises:
    EmbeddingError: the values contradict the encoder's sensors.
    ArchiveError: none of a sensor's tiles can be used.
  """
  from xjepa_jax.retrieval.embedding.sampling import contradictions

  reader = plan.archive.reader()
  try:
    wrong = contradictions(plan.tiles, reader, judges, plan.options.min_valid)
  finally:
    reader.close()
  for remark in wrong.remarks:
    print(f"Note: {remark}")
  for sentence in (*wrong.of_all, *wrong.odd):
    print(f"Warning: {sentence}")
  if args.trust_units:
    return {}
  if wrong.odd and not args.skip_odd:
    raise EmbeddingError(
      f"{args.archive}: some values contradict the encoder's sensors, see above. Correct these "
      "images, give --skip-odd to leave out their tiles, or --trust-units if the values are "
      "right all the same."
    )
  if wrong.of_all:
    raise EmbeddingError(
      f"{args.archive}: the values contradict the encoder's sensors, see above. Embed the "
      "product that it was trained with (--offset if only an offset differs), or give "
      "--trust-units if the values are right all the same."
    )
  return wrong.judges


def _judges(args: argparse.Namespace, sensors: Any, kind: str) -> dict[str, Any]:
  from xjepa_jax.data.units import Judge

  files = kind != "pairs"  # pairs take nodata and offset from the data set's description
  return {
    key: Judge(
      sensor,
      f"--nodata {key}=" * files,
      f"Give --offset {key}={{offset}}" * files,
      "--trust-offset",
      not args.trust_offset,
    )
    for key, sensor in sensors.items()
  }


def _archive_options(args: argparse.Namespace, sensors: Any) -> Any:
  from xjepa_jax.data.importing.sensor_options import key_values, nodata_values
  from xjepa_jax.retrieval.embedding.archives import ArchiveOptions
  from xjepa_jax.retrieval.embedding.folder import EVERYTHING

  patterns = [text.partition("=") for text in args.sensor]
  bands = key_values(args.bands, "--bands", sensors)
  return ArchiveOptions(
    sensors=sensors,
    patterns={key: pattern if equals else EVERYTHING for key, equals, pattern in patterns},
    splits=tuple(args.split),
    bands={key: [name.strip() for name in names.split(",")] for key, names in bands.items()},
    offset=_numbers(key_values(args.offset, "--offset", sensors)),
    nodata=nodata_values(args, sensors),
    allow_outside=args.allow_outside,
    time=args.time,
    geometry=not args.no_geometry,
    any_resolution=args.any_resolution,
  )


def _numbers(given: dict[str, str]) -> dict[str, float]:
  found = {}
  for key, text in given.items():
    try:
      found[key] = float(text)
    except ValueError:
      raise OptionError(f"--offset {key}={text}: expected a number.") from None
  return found


def _plan(args: argparse.Namespace, encoder: Any, archive: Any) -> Any:
  import importlib.metadata
  import os

  import jax
  import numpy as np

  from xjepa_jax.retrieval.embedding.listing import list_tiles, parts_of
  from xjepa_jax.retrieval.embedding.manifest import MANIFEST, file_sha256
  from xjepa_jax.retrieval.embedding.plan import Options, Plan, settings_of
  from xjepa_jax.versions import versions

  head = args.head or encoder.head
  if head not in encoder.heads:
    raise OptionError(f"--head {head}: the encoder has {', '.join(encoder.heads)}.")
  # Pairs are not tiled; a stride of 0 takes a single tile from the middle.
  stride = args.stride if archive.tiled else 0
  batch = args.batch
  if batch is None:
    batch = _BATCH.get(jax.default_backend(), _ACCELERATOR_BATCH)
  minimum = args.min_valid if args.min_valid is not None else 0.5 * archive.tiled
  given_stride = 1 if args.stride is None else args.stride
  if min(args.part_rows, batch, args.readers, given_stride) < 1 or not 0 <= minimum <= 1:
    raise OptionError(
      "--part-rows, --batch, --readers and --stride have to be above 0, --min-valid from 0 to 1."
    )
  sizes = {key: (given.height, given.width) for key, given in encoder.inputs.items()}
  tiles = list_tiles(archive.items, sizes, stride, not args.no_geometry)
  options = Options(
    head=head,
    quantisation=args.quantisation,
    min_valid=minimum,
    part_rows=args.part_rows,
    batch=batch,
    geometry=bool(np.isfinite(tiles.longitude).any()),
  )
  path = os.path.abspath(args.encoder)
  described = {
    "name": "/".join(path.rstrip("/").split("/")[-2:]),
    "path": path,
    "sha256": file_sha256(os.path.join(path, MANIFEST)),
    "head": head,
  }
  found = {name: version for name, version in versions().items() if name in _VERSIONS}
  found["pyarrow"] = importlib.metadata.version("pyarrow")
  settings = settings_of(archive, tiles, described, options, stride, jax.default_backend(), found)
  return Plan(
    archive, tiles, parts_of(tiles, args.part_rows), described, encoder.heads[head], options,
    {**settings, "licence": args.licence, **({"trusted": True} if args.trust_units else {})}, found,
  )  # fmt: skip


def _print_plan(plan: Any, sensors: Any) -> None:
  tiles = plan.tiles
  counts: dict[str, int] = {}
  for start, stop in plan.parts:
    key = tiles.items[tiles.item[start]].sensor
    counts[key] = counts.get(key, 0) + stop - start
  place = "with" if plan.options.geometry else "without"
  print(
    f"{plan.archive.path}: {len(tiles):,} tiles {place} coordinates, of {len(tiles.items):,} "
    f"images, in {len(plan.parts):,} parts"
  )
  for key, count in counts.items():
    print(f"  {key}: {count:,} tiles; {sensors[key].product}")
  for note in plan.archive.notes:
    print(f"  {note}")


def _print_left_out(out: str) -> None:
  import os

  from xjepa_jax.data.plain_text import from_spreadsheet, one_line
  from xjepa_jax.data.tables import read_cells
  from xjepa_jax.retrieval.embedding.run import SKIPPED

  path = os.path.join(out, SKIPPED)
  rows: Sequence[list[str]] = [cells for _, cells in read_cells(path)][1:]
  if rows:
    print(f"{len(rows):,} left out; all of them, with reasons: {path}")
  for cells in rows[:_SHOWN]:
    print(one_line("  {} ({}): {}".format(*map(from_spreadsheet, (cells[0], *cells[2:4])))))


def _with_bar(count: int, run: Any) -> None:
  from tqdm import tqdm

  seconds = 0.2 if sys.stderr.isatty() else 10  # a log file needs only an occasional line
  with tqdm(total=count, unit="tiles", desc="embed", mininterval=seconds, disable=not count) as bar:
    run(bar.update)


if __name__ == "__main__":
  run_command(main, optional=True)
