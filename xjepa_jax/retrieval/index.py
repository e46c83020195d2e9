"""Makes embeddings searchable: python -m xjepa_jax.retrieval.index --embeddings DIR --out DIR

The index is derived data: this command can rebuild it at any time, and after an interruption the
same command ends with the same index. `indexes/directory.py` opens it. Heavy modules are imported
inside the functions, which keeps --help fast.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from typing import Any

from xjepa_jax.errors import SearchIndexError, XJepaError
from xjepa_jax.paths import user_path
from xjepa_jax.processes.output import run_command

# Same as in indexes/backends.py, which a test checks: importing that module here would slow --help.
_BACKENDS = ("exact", "faiss", "qdrant", "pgvector")
_EXACT_UP_TO = 1_000_000  # vectors; up to here computing every inner product is fast
_STRAY = 0.003  # a measured recall this far below the target still counts as reaching it


def main(argv: list[str] | None = None) -> int:
  """Builds an index; returns 1 if that failed, else 0."""
  args = _arguments(argv)
  try:
    _run(args)
  except XJepaError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  except OSError as error:
    print(f"error: {args.out}: the index cannot be written ({error}).", file=sys.stderr)
    return 1
  return 0


def _run(args: argparse.Namespace) -> None:
  from xjepa_jax.retrieval.embedding.files import open_embeddings
  from xjepa_jax.retrieval.indexes.backends import preset_settings
  from xjepa_jax.retrieval.indexes.directory import build_index, is_current

  files = open_embeddings(args.embeddings)
  if not len(files):
    raise SearchIndexError(f"{args.embeddings}: holds no rows, so there is nothing to search.")
  backend = args.backend or _chosen(len(files))
  settings = {**preset_settings(backend, args.preset), **_settings(args, backend)}
  if not args.rebuild and is_current(args.out, files, backend, settings):
    print(f"{args.out}: is the {backend} index of these embeddings already.")
    return
  start = time.monotonic()
  description = build_index(files, args.out, backend, settings)
  size = sum(file["bytes"] for file in description.files.values())
  print(
    f"{args.out}: {backend} index of {description.count:,} vectors of "
    f"{description.dimensions} numbers, {size / 1e6:,.1f} MB, in {time.monotonic() - start:.1f} s. "
    f"Settings: {json.dumps(dict(description.settings))}"
  )
  for direction, recall in description.settings.get("recalls", {}).items():
    wanted = description.settings["recall"]
    if recall < wanted - _STRAY:
      print(
        f"Warning: of the true ten best, {recall:.1%} are found ({direction}) where {wanted:.0%} "
        "were asked for, however many lists are looked at. Another preset may store vectors more "
        "finely; flat finds all."
      )


def _chosen(count: int) -> str:
  """The default back end for this many vectors; prints which it is and why."""
  if count <= _EXACT_UP_TO:
    print(f"Back end exact, for {count:,} vectors are no more than {_EXACT_UP_TO:,}.")
    return "exact"
  if importlib.util.find_spec("faiss"):
    print(f"Back end faiss, for {count:,} vectors are more than {_EXACT_UP_TO:,}.")
    return "faiss"
  print(
    f"Back end exact, for faiss is not installed. With {count:,} vectors it would answer in a "
    "fraction of the time: pip install 'xjepa-jax[search]', and the same command again."
  )
  return "exact"


def _settings(args: argparse.Namespace, backend: str) -> dict[str, Any]:
  """Settings from the --config file, overridden by those given as options."""
  found: dict[str, Any] = {}
  if args.config:
    try:
      with open(args.config, "rb") as file:
        found = json.load(file)  # reading bytes lets json detect a byte-order mark
    except (OSError, ValueError) as error:
      raise SearchIndexError(
        f"--config {args.config}: cannot be read as JSON ({error}). Expected an object of settings."
      ) from error
    if not isinstance(found, dict):
      raise SearchIndexError(f"--config {args.config}: expected a JSON object of settings.")
  if args.server:
    if backend not in ("qdrant", "pgvector"):
      raise SearchIndexError(f"--server: the back end {backend} has none; it is a directory.")
    found["server"] = args.server
  return found


def _arguments(argv: list[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog="python -m xjepa_jax.retrieval.index",
    description="Build the index of a directory of embeddings.",
    epilog="example: python -m xjepa_jax.retrieval.index --embeddings embeddings --out index "
    "--backend faiss",
  )
  parser.add_argument(
    "--embeddings", type=user_path, required=True, help="directory that embed wrote"
  )
  parser.add_argument(
    "--out",
    type=user_path,
    required=True,
    help="directory of the index, new or to be replaced",
  )
  parser.add_argument(
    "--backend",
    choices=_BACKENDS,
    help="exact: every product; faiss: in this process, most of the best; qdrant: a server, or a "
    "directory without one; pgvector: PostgreSQL (exact up to a million vectors, faiss beyond)",
  )
  parser.add_argument(
    "--preset",
    help="exact: exact, approximate; faiss: rabitq7, sq8, rabitq, flat; qdrant: hnsw, int8, exact; "
    "pgvector: hnsw, exact (the first)",
  )
  parser.add_argument(
    "--config",
    type=user_path,
    metavar="JSON",
    help="file of settings that replace some of the preset's",
  )
  parser.add_argument(
    "--server",
    help="qdrant: its address, key in QDRANT_API_KEY; pgvector: a connection such as "
    "postgresql://user@host/name, password in PGPASSWORD",
  )
  parser.add_argument(
    "--rebuild", action="store_true", help="even if the index is there and undamaged"
  )
  return parser.parse_args(argv)


if __name__ == "__main__":
  run_command(main, optional=True)
