"""Handling of a lost process: one line and exit status 13, instead of JAX's abort with C++ stacks.

JAX's coordination service notices a process without heartbeats, and its client then aborts every
other process. There is no way to intervene before (jax 0.10 to 0.12: the callback that the client
accepts cannot be called from Python). The abort itself is therefore caught: the output of C and C++
is diverted to a file, and the handler of SIGABRT reads there which process was lost.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from xjepa_jax.processes import shutdown
from xjepa_jax.processes.barriers import process, processes
from xjepa_jax.processes.locking import let_go_of_all
from xjepa_jax.processes.log import note, note_end
from xjepa_jax.processes.output import guarded, put_in_place

_FATAL = "JAX distributed service detected fatal errors"
_SILENT = re.compile(r"stopped sending heartbeats\):\s*([\d,\s]+)")
_TAIL = 20_000  # bytes of the native log that are shown after an unexpected abort
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)
_kept: list[Any] = []  # references to handlers: calling one that was garbage-collected crashes


@contextlib.contextmanager
def not_aborted(said: str) -> Iterator[None]:
  """Within the block, an abort by JAX while processes join becomes status 13 and one line.

  Args:
    said: the line.
  """
  stderr = os.dup(2)

  def handle(number: int) -> None:
    os.write(stderr, f"error: {said}\n".encode())
    os._exit(shutdown.LOST)

  with tempfile.TemporaryFile() as hidden:  # takes the stack trace that C++ prints
    os.dup2(hidden.fileno(), 2)
    before = _on_abort(handle)
    try:
      yield
    finally:
      _signal()(signal.SIGABRT, ctypes.cast(before or 0, _HANDLER))
      os.dup2(stderr, 2)
      os.close(stderr)


def notice_losses(workdir: str, lost_seconds: float) -> None:
  """From now on, end this process with status 13 and one line when another process is lost.

  A killed process is noticed within `lost_seconds`, usually in half that time; the loss of the
  first one is noticed at once. Also from now on, output of C and C++ libraries goes to
  `workdir`/native-process-I.log; the log of the previous start is native-process-I.1.log.

  Args:
    workdir: directory of the run; with "" no log is kept.
    lost_seconds: as given to `cluster.join`.
  """
  log = _native_log(workdir)
  stderr = _divert(log)

  def handle(number: int) -> None:
    status, untold = shutdown.leaving()
    if untold:
      os.write(stderr, f"{untold}\n".encode())
    # This process was about to end with an error of its own while others waited for it; that error
    # may only be a consequence of the lost process.
    native = _read(log)
    if status is None or (status == 1 and _SILENT.search(native)):
      status, said = _verdict(native, workdir, lost_seconds)
      note(said.rstrip(), "error")
      os.write(stderr, said.encode())
    note_end(status)
    let_go_of_all()
    os._exit(status)

  _on_abort(handle)


def _on_abort(handle: Callable[[int], None]) -> int | None:
  """Handle SIGABRT by a function; return the address of the previous handler."""
  handler = _HANDLER(handle)
  _kept.append(handler)
  before: int | None = _signal()(signal.SIGABRT, handler)
  return before


def _signal() -> Any:
  """C's `signal`: Python runs its handlers only after C++ returns, which an abort never does."""
  function = ctypes.CDLL(None).signal
  function.argtypes, function.restype = [ctypes.c_int, _HANDLER], ctypes.c_void_p
  return function


def _verdict(native: str, workdir: str, lost_seconds: float) -> tuple[int, str]:
  """Exit status and message, from what C++ printed before it aborted."""
  if _FATAL not in native:  # an assertion in some library; its output is all there is to show
    return 134, f"{native[-_TAIL:]}\nprocess {process()} of {processes()} aborted\n"
  found = _SILENT.search(native)
  numbers = [int(number) for number in re.findall(r"\d+", found[1])] if found else [0]
  lost = [number for number in numbers if number != process()] or [0]
  named = ", ".join(map(str, lost))
  many = f"process {named}" if len(lost) == 1 else f"processes {named}"
  was = "was" if len(lost) == 1 else "were"
  how = f"gave no sign of life for {lost_seconds:g} s" if found else "closed its connection"
  return shutdown.LOST, (
    f"error: {many} of {processes()} {was} lost ({how}), noticed by process {process()}; the same "
    f"command continues from {_last_checkpoint(workdir)}\n"
  )


def _last_checkpoint(workdir: str) -> str:
  with contextlib.suppress(Exception), open(f"{workdir}/progress.json", encoding="utf-8") as file:
    return f"the checkpoint of step {int(json.load(file)['step'])}"
  return "the last checkpoint"


def _native_log(workdir: str) -> int:
  path = os.path.join(workdir, f"native-process-{process()}.log")
  try:
    if not workdir or "://" in workdir:
      raise OSError("no directory of this machine")
    os.makedirs(workdir, exist_ok=True)
    # Keep the log of the previous start, which may have hung.
    with contextlib.suppress(FileNotFoundError):
      os.replace(path, os.path.join(workdir, f"native-process-{process()}.1.log"))
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
  except OSError:  # problems with the directory are reported where the run's files are written
    with tempfile.TemporaryFile() as file:
      return os.dup(file.fileno())


def _divert(log: int) -> int:
  """Redirect file descriptors 1 and 2 to the log; Python's streams keep their old destinations."""
  sys.stdout.flush()
  sys.stderr.flush()
  out, err = os.dup(1), os.dup(2)
  put_in_place(guarded(out, dropping=True), guarded(err, dropping=True))
  for stream in (1, 2):
    os.dup2(log, stream)
  faulthandler.enable(sys.stderr)  # absl had enabled it for file descriptor 2
  return err


def _read(log: int) -> str:
  size = os.fstat(log).st_size
  return os.pread(log, 1 << 20, max(0, size - (1 << 20))).decode(errors="replace")
