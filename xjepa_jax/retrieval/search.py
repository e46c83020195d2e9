"""Searches an archive: python -m xjepa_jax.retrieval.search --index DIR --image FILE

A query by id or place needs only the stored embeddings; a query by image needs the encoder. Heavy
modules are imported inside the functions, which keeps --help fast.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from xjepa_jax.errors import OptionError, WriteError, XJepaError
from xjepa_jax.paths import user_path
from xjepa_jax.processes.output import run_command

_FORMATS = ("table", "json", "geojson", "csv")


def main(argv: list[str] | None = None) -> int:
  """Answers queries; returns the exit status."""
  args = _parser().parse_args(argv)
  try:
    search(args)
  except XJepaError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    return 130
  return 0


def search(args: argparse.Namespace) -> None:
  """Runs the queries of the command line and writes the hits.

  Raises:
    XJepaError: a query or a file is not usable.
  """
  from xjepa_jax.retrieval.searching.formats import FORMATS
  from xjepa_jax.retrieval.searching.searcher import open_searcher

  wanted = _filter(args)
  _check_one_way(args)
  searcher = open_searcher(args.index, args.encoder, args.embeddings, args.verify)
  queries = _queries(args, searcher)
  answers = searcher.answer(queries, args.k, wanted)
  if searcher.encoder is None:  # after answering: what stops the encoder may stop answering too
    print(f"Note: hits have no confidence, for {searcher.without_encoder}", file=sys.stderr)
  _put(FORMATS[args.format](answers), args.out)
  if args.gallery or args.explain:
    _draw(args, searcher, answers)


class _Parser(argparse.ArgumentParser):
  """A parser that takes -7.2e-04 and ids such as -a as values; all options begin with "--"."""

  def _parse_optional(self, arg_string: str) -> Any:
    # argparse takes an argument that begins with a dash for an option, unless it is a plain number.
    if arg_string[:1] == "-" != arg_string[1:2] and arg_string not in self._option_string_actions:
      return None
    return super()._parse_optional(arg_string)


def _parser() -> argparse.ArgumentParser:
  parser = _Parser(
    prog="python -m xjepa_jax.retrieval.search",
    description="Find the scenes of an archive that are like a query, in any of its sensors.",
    epilog="example: python -m xjepa_jax.retrieval.search --index index --id scene-0042 "
    "--query-sensor radar --sensor optical --gallery hits.png",
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add(
    "--index", type=user_path, required=True, help="what python -m xjepa_jax.retrieval.index wrote"
  )
  add("--embeddings", type=user_path, help="of which the index is, if they were moved")
  add("--encoder", type=user_path, help="that made the embeddings; the one they name if not given")
  add(
    "--verify",
    action="store_true",
    help="compare the bytes of all embeddings first, not only of the parts that are read",
  )
  asked = parser.add_argument_group("what is asked, one of")
  asked.add_argument(
    "--image",
    nargs="+",
    type=user_path,
    metavar="FILE",
    help=".tif, .png or .npy; a query each",
  )
  asked.add_argument(
    "--id",
    nargs="+",
    metavar="ID",
    help="of a tile of the archive; a query each. One that begins with two dashes: --id=--a",
  )
  asked.add_argument(
    "--at", nargs=2, type=float, metavar=("LONGITUDE", "LATITUDE"), help="the tile at a place"
  )
  asked.add_argument(
    "--batch",
    type=user_path,
    metavar="TABLE",
    help="a query a row of a .csv or .parquet; columns image or id, and sensor if needed",
  )
  asked.add_argument(
    "--like", nargs="+", metavar="ID", help="tiles that are, all together, one query"
  )
  add("--unlike", nargs="+", default=[], metavar="ID", help="with --like: tiles not wanted")
  add("--query-sensor", metavar="KEY", help="of the query, where it is not clear")
  add(
    "--offset", type=float, help="of an image's stored values, such as -1000 for Sentinel-2 from "
    "baseline 04.00 on, if it is not the encoder's",
  )  # fmt: skip
  add(
    "--bands", action="append", default=[], metavar="KEY=B04,B03",
    help="which of a sensor's bands image files hold, in their order, - for one that is not its",
  )  # fmt: skip
  add(
    "--nodata", action="append", default=[], metavar="KEY=VALUE",
    help="the stored value for not seen in image files, nan, or none",
  )  # fmt: skip
  add("--trust-units", action="store_true", help="ask with values that contradict the units")
  passed = parser.add_argument_group("what may be found")
  passed.add_argument("--sensor", nargs="+", default=[], metavar="KEY", help="of these sensors")
  passed.add_argument(
    "--bbox", nargs=4, type=float, metavar=("WEST", "SOUTH", "EAST", "NORTH"),
    help="centre in this box, degrees; west > east crosses the antimeridian",
  )  # fmt: skip
  passed.add_argument(
    "--time",
    nargs=2,
    metavar=("FROM", "TO"),
    help="ISO 8601, UTC if no zone is given; a date without a time is the whole day at both ends; "
    '".." is open',
  )
  passed.add_argument("--label", nargs="+", default=[], metavar="NAME", help="any of these labels")
  add("--k", type=int, default=10, help="hits of a query (10)")
  add("--format", choices=_FORMATS, default="table")
  add("--out", type=user_path, metavar="FILE", help="where to write them; printed if not given")
  add("--gallery", type=user_path, metavar="FILE.png", help="also draw the hits")
  add(
    "--explain",
    type=user_path,
    metavar="FILE.png",
    help="also draw which patches of the query and its best hit match",
  )
  return parser


def _check_one_way(args: argparse.Namespace) -> None:
  ways = [way for way in ("image", "id", "at", "batch", "like") if getattr(args, way) is not None]
  if len(ways) != 1:
    named = " and ".join(f"--{way}" for way in ways) or "none"
    raise OptionError(f"expected one of --image, --id, --at, --batch and --like, found {named}.")
  if args.unlike and ways != ["like"]:
    raise OptionError("--unlike belongs to --like: name what is wanted too.")


def _filter(args: argparse.Namespace) -> Any:
  from xjepa_jax.retrieval.indexes.base import Filter
  from xjepa_jax.retrieval.searching.time_range import time_range

  return Filter(
    sensors=tuple(args.sensor),
    bbox=tuple(args.bbox) if args.bbox else None,
    time=time_range(*args.time) if args.time else None,
    labels=tuple(args.label),
  )


def _queries(args: argparse.Namespace, searcher: Any) -> list[Any]:
  sensor = args.query_sensor
  if args.image:
    return [_of_image(args, searcher, path, sensor) for path in args.image]
  if args.id:
    return [searcher.query_of_id(each, sensor) for each in args.id]
  if args.at:
    return [searcher.query_of_place(*args.at, sensor)]
  if args.like:
    like, unlike = (
      [row for each in ids for row in searcher.query_of_id(each, sensor).rows]
      for ids in (args.like, args.unlike)
    )
    return [searcher.query_of_rows(like, unlike)]
  return _batch(args, searcher)


def _of_image(args: argparse.Namespace, searcher: Any, path: str, sensor: str | None) -> Any:
  from xjepa_jax.data.importing.sensor_options import nodata_values, told_bands

  sensors = searcher.encoder.inputs if searcher.encoder else {}
  if not sensors:  # the call below raises an error that says what is missing
    return searcher.query_of_image(path, sensor)
  bands, nodata = told_bands(args, sensors), nodata_values(args, sensors)
  return searcher.query_of_image(path, sensor, args.offset, args.trust_units, bands, nodata)


def _batch(args: argparse.Namespace, searcher: Any) -> list[Any]:
  """The queries of a --batch table; image paths are relative to the table's folder."""
  import os

  from xjepa_jax.data.tables import OF_SPREADSHEETS, cell_text, read_columns, read_rows

  folder = os.path.dirname(os.path.abspath(args.batch))
  queries = []
  columns = read_columns(args.batch, OF_SPREADSHEETS)
  if not {"image", "id"} & set(columns):
    raise OptionError(
      f"{args.batch}: has no column 'image' or 'id'; its columns are {', '.join(columns)}."
    )
  for where, row in read_rows(args.batch, columns, {"image", "id", "sensor"}, OF_SPREADSHEETS):
    image, name, sensor = (cell_text(row, column) for column in ("image", "id", "sensor"))
    sensor = sensor or args.query_sensor
    if bool(image) == bool(name):
      raise OptionError(f"{args.batch}: {where} needs an image or an id, not both.")
    if image:
      path = os.path.join(folder, image)
      queries.append(_of_image(args, searcher, path, sensor))
    else:
      queries.append(searcher.query_of_id(name, sensor))
  if not queries:
    raise OptionError(f"{args.batch}: has no row, so nothing is asked. Give it a query a row.")
  return queries


def _put(text: str, path: str | None) -> None:
  if path is None:
    print(text, end="" if text.endswith("\n") else "\n")
    return
  try:
    with open(path, "w", encoding="utf-8") as file:
      file.write(text)
  except OSError as error:
    raise WriteError(f"{path}: cannot be written ({error.strerror}).") from error


def _draw(args: argparse.Namespace, searcher: Any, answers: Sequence[Any]) -> None:
  from xjepa_jax.retrieval.searching.drawing import draw_explanation, draw_gallery

  if args.gallery:
    draw_gallery(args.gallery, searcher, answers)
  if args.explain:
    draw_explanation(args.explain, searcher, answers[0])


if __name__ == "__main__":
  run_command(main)
