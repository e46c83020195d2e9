"""Standard output and error that may fail without ending what is being done.

A terminal may lack a letter, a reader may go (`| head -1`), a disk may be full. Letters that
cannot be written are escaped. What nobody reads any more is dropped, and so is whatever stderr
does not take, for work goes on without it. Where stdout is what was asked for, and does not take
it for another reason, that is an error in words.
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
  """Runs a command as a program, and ends with its status.

  Args:
    main: the command.
    optional: as `guard` has it.
    reports: options with which the command prints what was asked for and does nothing else.
  """
  guard(optional and not asks_for_report(sys.argv[1:], reports))
  status: Any
  try:
    try:
      status = main()
    except SystemExit as ended:  # after a help, among others
      status = ended.code
    if not status:
      check_printed()
    sys.stdout.flush()
  except WriteError as error:  # the rest of what was printed did not find room
    print(f"error: {error}", file=sys.stderr)
    status = 1
  sys.exit(status)


def asks_for_report(argv: Sequence[str], reports: Sequence[str] = ()) -> bool:
  """Whether a command line asks for its help, or for one of some reports, with one dash or two."""
  known = ("--helpfull", "--helpshort", *reports)
  for argument in argv:
    name = argument.partition("=")[0].lstrip("-")
    shortened = len(name) > 1 and any(each.startswith(f"--{name}") for each in known)
    if argument.startswith("-") and (name in ("h", "?") or shortened):
      return True
  return False


def check_printed() -> None:
  """Raises a WriteError if stdout did not take all that was printed, and had to."""
  sys.stdout.flush()
  raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
  if isinstance(raw, _Guarded) and raw.failed is not None:
    raise raw.failed


def guard(optional: bool = False) -> None:
  """From here on, what is printed may fail.

  Args:
    optional: whatever stdout does not take is dropped too: the program writes its results to files.
  """
  put_in_place(_guarded_stream(sys.stdout, optional), _guarded_stream(sys.stderr, True))


def guarded(descriptor: int, dropping: bool, like: TextIO | None = None) -> TextIO:
  """A text stream onto an open file, which it does not close.

  Args:
    descriptor: of the file.
    dropping: whatever it does not take is dropped, and not only what nobody reads.
    like: a stream of whose encoding and buffering it is; None is UTF-8, line by line.
  """
  return io.TextIOWrapper(
    io.BufferedWriter(_Guarded(descriptor, dropping)),
    encoding=like.encoding if like else "utf-8",
    errors="backslashreplace",
    line_buffering=bool(getattr(like, "line_buffering", True)),
  )


def put_in_place(out: TextIO, err: TextIO) -> None:
  """Makes two streams stdout and stderr, of handlers of logging too."""
  old = (sys.stderr, sys.__stderr__)
  sys.stdout, sys.stderr = out, err
  for handler in _handlers():
    if getattr(handler, "stream", None) in old:
      handler.setStream(err)


class _Guarded(io.FileIO):
  """Writes to a file until that fails; then to nowhere."""

  def __init__(self, descriptor: int, dropping: bool):
    super().__init__(descriptor, "w", closefd=False)
    self._dropping = dropping
    self.failed: WriteError | None = None  # argparse drops what a write raises

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
    """What is still buffered must not fail again when the program ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, self.fileno())
    os.close(nowhere)


def _guarded_stream(stream: TextIO | None, dropping: bool) -> TextIO:
  if stream is None:  # closed by whoever started the program
    return open(os.devnull, "w", encoding="utf-8", errors="backslashreplace")
  with contextlib.suppress(OSError, ValueError):  # no file of the system, such as a notebook's
    return guarded(stream.fileno(), dropping, stream)
  return stream


def _handlers() -> list[Any]:
  """Every handler of logging that may write to stderr."""
  found: list[Any] = list(logging.getLogger().handlers)
  if "absl.logging" in sys.modules:
    found.append(sys.modules["absl.logging"].get_absl_handler().python_handler)
  for each in logging.Logger.manager.loggerDict.values():
    found += getattr(each, "handlers", [])
  return found
