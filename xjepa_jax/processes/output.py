"""Standard output and standard error whose failure does not end the program's work.

A terminal may lack a character, a reader may close its pipe (`| head -1`), a disk may be full.
Characters that cannot be encoded are escaped. Output that nobody reads any more is dropped, and so
is whatever stderr does not accept, because the work does not depend on it. If stdout is the
requested result and fails for any other reason, that is a `WriteError`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TextIO

from xjepa_jax.errors import WriteError


def run_command(
  main: Callable[[], int], optional: bool = False, reports: Sequence[str] = ()
) -> NoReturn:
  """Run a command as a program, and exit with its status.

  Args:
    main: the command.
    optional: as in `guard`.
    reports: options that make the command only print what they ask for.
  """
  guard(optional and not asks_for_report(sys.argv[1:], reports))
  status: Any
  try:
    try:
      status = main()
    except SystemExit as ended:  # for example after --help
      status = ended.code
    if not status:
      check_printed()
    sys.stdout.flush()
  except WriteError as error:  # the rest of the output could not be written
    print(f"error: {error}", file=sys.stderr)
    status = 1
  sys.exit(status)


def asks_for_report(argv: Sequence[str], reports: Sequence[str] = ()) -> bool:
  """Whether a command line asks for help or for one of the reports, with one dash or two."""
  known = ("--helpfull", "--helpshort", *reports)
  for argument in argv:
    name = argument.partition("=")[0].lstrip("-")
    shortened = len(name) > 1 and any(each.startswith(f"--{name}") for each in known)
    if argument.startswith("-") and (name in ("h", "?") or shortened):
      return True
  return False


def check_printed() -> None:
  """Raise a WriteError if stdout failed to take output that was required."""
  sys.stdout.flush()
  raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
  if isinstance(raw, _Guarded) and raw.failed is not None:
    raise raw.failed


def guard(optional: bool = False) -> None:
  """Guard stdout and stderr from now on.

  Args:
    optional: drop everything that stdout does not accept, since the results are in files.
  """
  put_in_place(_guarded_stream(sys.stdout, optional), _guarded_stream(sys.stderr, True))


def guarded(descriptor: int, dropping: bool, like: TextIO | None = None) -> TextIO:
  """A guarded text stream for an open file, which it does not close.

  Args:
    descriptor: file descriptor.
    dropping: drop everything that cannot be written, not only what nobody reads.
    like: stream whose encoding and buffering to copy; None means UTF-8, line by line.
  """
  return io.TextIOWrapper(
    io.BufferedWriter(_Guarded(descriptor, dropping)),
    encoding=like.encoding if like else "utf-8",
    errors="backslashreplace",
    line_buffering=bool(getattr(like, "line_buffering", True)),
  )


def put_in_place(out: TextIO, err: TextIO) -> None:
  """Install two streams as stdout and stderr, also in logging handlers."""
  old = (sys.stderr, sys.__stderr__)
  sys.stdout, sys.stderr = out, err
  for handler in _handlers():
    if getattr(handler, "stream", None) in old:
      handler.setStream(err)


class _Guarded(io.FileIO):
  """Writes to a file until a write fails; after that to /dev/null."""

  def __init__(self, descriptor: int, dropping: bool):
    super().__init__(descriptor, "w", closefd=False)
    self._dropping = dropping
    self.failed: WriteError | None = None  # kept, because argparse swallows exceptions of a write

  def write(self, data: Any) -> int:
    try:
      return super().write(data)
    except OSError as error:
      self._give_up()
      if self._dropping or isinstance(error, BrokenPipeError):
        return memoryview(data).nbytes
      self.failed = WriteError(
        f"standard output cannot be written ({error.strerror or error}). What was printed is "
        "incomplete: make room, or choose another place, and run the same command again."
      )
      raise self.failed from error

  def _give_up(self) -> None:
    """Redirect to /dev/null, so that buffered output does not fail again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, self.fileno())
    os.close(nowhere)


def _guarded_stream(stream: TextIO | None, dropping: bool) -> TextIO:
  if stream is None:  # the parent process started this one with the stream closed
    return open(os.devnull, "w", encoding="utf-8", errors="backslashreplace")
  with contextlib.suppress(OSError, ValueError):  # no file descriptor, as in a notebook
    return guarded(stream.fileno(), dropping, stream)
  return stream


def _handlers() -> list[Any]:
  """All logging handlers that may write to stderr."""
  found: list[Any] = list(logging.getLogger().handlers)
  if "absl.logging" in sys.modules:
    found.append(sys.modules["absl.logging"].get_absl_handler().python_handler)
  for each in logging.Logger.manager.loggerDict.values():
    found += getattr(each, "handlers", [])
  return found
