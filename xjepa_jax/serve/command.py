"""The command line of the search page: serve it, or write it as static files.

Heavy modules are imported only when they are needed, so that --help and wrong options do not wait
for JAX.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from typing import TYPE_CHECKING

from xjepa_jax.errors import OptionError, XJepaError
from xjepa_jax.paths import user_path

if TYPE_CHECKING:
  from xjepa_jax.serve.archive import Archive

_MEGABYTE = 2**20


def main(argv: list[str] | None = None) -> int:
  """Serve until interrupted, or export; return the exit status."""
  args = _parser().parse_args(argv)
  try:
    if args.export is not None:
      return _export(args)
    return _serve(args)
  except XJepaError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    return 130


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m xjepa_jax.serve",
    description="Search an archive in a browser, by a click on a tile or by an image.",
    epilog="example: python -m xjepa_jax.serve --index runs/index --encoder runs/first/encoder",
  )
  parser.add_argument("--index", type=user_path, required=True, help="directory of the index")
  parser.add_argument(
    "--embeddings", type=user_path, help="of which the index is, if they were moved"
  )
  parser.add_argument(
    "--encoder",
    type=user_path,
    help="that made the embeddings, to ask by upload (the one that they name)",
  )
  parser.add_argument(
    "--host",
    default="127.0.0.1",
    help="address to listen on; any but this machine's own asks for a token (127.0.0.1)",
  )
  parser.add_argument(
    "--public-url",
    metavar="URL",
    default="",
    help="what people open where that is another address, through a proxy or ssh -L: "
    "https://archive.example/search/",
  )
  parser.add_argument("--port", type=int, default=8080, help="0 takes a free one (8080)")
  parser.add_argument(
    "--max-upload-mb", type=float, default=64, help="largest file that may be uploaded (64)"
  )
  parser.add_argument(
    "--max-upload-pixels",
    type=int,
    default=2**24,
    help="most pixels x bands that an upload may declare (16,777,216)",
  )
  parser.add_argument(
    "--export", type=user_path, metavar="DIR", help="write the page as static files, and end"
  )
  parser.add_argument(
    "--export-queries",
    type=int,
    metavar="N",
    help="tiles of the export that can be asked with, spread over the archive (all)",
  )
  parser.add_argument(
    "--export-hits", type=int, default=24, metavar="K", help="hits of each and each sensor (24)"
  )
  return parser


def _open(args: argparse.Namespace) -> Archive:
  from xjepa_jax.retrieval.searching.searcher import open_searcher
  from xjepa_jax.serve.archive import Archive

  return Archive(open_searcher(args.index, args.encoder, args.embeddings))


def _export(args: argparse.Namespace) -> int:
  for option, value in (("queries", args.export_queries), ("hits", args.export_hits)):
    if value is not None and value < 1:
      raise OptionError(f"--export-{option} {value}: expected 1 or more.")
  from xjepa_jax.serve.static_export import export_page

  archive = _open(args)
  written = export_page(archive, args.export, args.export_queries, args.export_hits)
  print(
    f"Wrote {args.export}: {written.tiles:,} tiles, {written.queries:,} of them with their hits, "
    f"{written.bytes / 1e6:.1f} MB.\n"
    f"It is static: python -m http.server --directory {args.export} --bind 127.0.0.1"
  )
  return 0


def _serve(args: argparse.Namespace) -> int:
  if args.max_upload_mb <= 0 or args.max_upload_pixels < 1:
    raise OptionError("--max-upload-mb and --max-upload-pixels: both must be above 0.")
  try:
    import uvicorn

    from xjepa_jax.serve.app import create_app
  except ImportError as error:
    raise OptionError(
      f"the page needs {error.name}: pip install 'xjepa-jax[serve,search]'"
    ) from error
  from xjepa_jax.serve.security import Access, is_loopback, public_url
  from xjepa_jax.serve.uploads import Limits

  public = public_url(args.public_url) if args.public_url else ""
  listening = listen(args.host, args.port)
  with listening:
    archive = _open(args)
    access = Access.for_host(args.host, listening.getsockname()[1], public)
    limits = Limits(int(args.max_upload_mb * _MEGABYTE), args.max_upload_pixels)
    app = create_app(archive, access, limits)
    archive.warm()
    print(f"{archive.summary()}\n{access.address()}   (Ctrl-C ends)", flush=True)
    if public:
      print(f"Listening on {access.listening}, where the proxy or tunnel has to lead.", flush=True)
    elif not is_loopback(args.host):
      print(
        "Whoever has this address can search and upload. It is not encrypted: on a network that "
        "you do not trust, put a proxy with TLS in front, and give --public-url.",
        flush=True,
      )
    config = uvicorn.Config(
      app,
      log_level="warning",
      access_log=False,
      server_header=False,
      proxy_headers=False,  # clients could otherwise claim another address
      limit_concurrency=128,
      timeout_keep_alive=15,
      timeout_graceful_shutdown=3,
      ws="none",
    )
    uvicorn.Server(config).run(sockets=[listening])
  return 0


def listen(host: str, port: int) -> socket.socket:
  """Return a listening socket, so that a port in use is reported before anything is loaded."""
  if not 0 <= port <= 65535:
    raise OptionError(f"--port {port}: expected 0 to 65535.")
  try:
    family, _, _, _, address = socket.getaddrinfo(
      host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return socket.create_server(address[:2], family=family)
  except OSError as error:
    raise OptionError(
      f"--host {host} --port {port}: cannot listen there ({os.strerror(error.errno or 0)}). "
      "Another server may have the port: choose one with --port."
      if not isinstance(error, socket.gaierror)
      else f"--host {host}: there is no such address."
    ) from error
