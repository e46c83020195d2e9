"""Another process is lost: one line and status 13, where JAX aborts with a stack of its C++.

JAX's coordination service notices a process that gives no sign of life, and its client then aborts
every other process; there is no way to be asked first (jax 0.10 to 0.12: the callback that its
client takes cannot be called from Python). So the abort is caught: what C and C++ print is kept in
a file, and the handler of SIGABRT reads there who was lost.
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
_TAIL = 20_000  # bytes of an unexpected abort that are shown
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)
_kept: list[Any] = []  # a handler that is collected crashes


@contextlib.contextmanager
def not_aborted(said: str) -> Iterator[None]:
  """While processes join: where JAX would abort this one, it ends with status 13 and one line.

  Args:
    said: the line.
  """
  stderr = os.dup(2)

  def handle(number: int) -> None:
    os.write(stderr, f"error: {said}\n".encode())
    os._exit(shutdown.LOST)

  with tempfile.TemporaryFile() as hidden:  # of C++, a stack
    os.dup2(hidden.fileno(), 2)
    before = _on_abort(handle)
    try:
      yield
    finally:
      _signal()(signal.SIGABRT, ctypes.cast(before or 0, _HANDLER))
      os.dup2(stderr, 2)
      os.close(stderr)


def notice_losses(workdir: str, lost_seconds: float) -> None:
  """Ends this process with status 13 and one line when another is lost.

  A killed process is noticed within `lost_seconds`, usually half of it, and the first one at once.
  From here on what libraries in C and C++ print goes to `workdir`/native-process-I.log;
  that of the start before is native-process-I.1.log.

  Args:
    workdir: of the run; "" keeps no log.
    lost_seconds: as `cluster.join` was told.
  """
  log = _native_log(workdir)
  stderr = _divert(log)

  def handle(number: int) -> None:
    status, untold = shutdown.leaving()
    if untold:
      os.write(stderr, f"{untold}\n".encode())
    # An error told while others wait to hear it; that a process is lost is why it was made, maybe.
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
  """Has SIGABRT handled by a function; the address of what did before."""
  handler = _HANDLER(handle)
  _kept.append(handler)
  before: int | None = _signal()(signal.SIGABRT, handler)
  return before


def _signal() -> Any:
  """C's own: Python's handlers run when C++ has returned, which it does not from an abort."""
  function = ctypes.CDLL(None).signal
  function.argtypes, function.restype = [ctypes.c_int, _HANDLER], ctypes.c_void_p
  return function


def _verdict(native: str, workdir: str, lost_seconds: float) -> tuple[int, str]:
  """Status, and what to say, by what C++ printed before it aborted."""
  if _FATAL not in native:  # a check of a library failed; its words are all there is
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
    with contextlib.suppress(FileNotFoundError):  # of the start before, which may have hung
      os.replace(path, os.path.join(workdir, f"native-process-{process()}.1.log"))
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
  except OSError:  # what is wrong with the directory is told by those who write the run into it
    with tempfile.TemporaryFile() as file:
      return os.dup(file.fileno())


def _divert(log: int) -> int:
  """Files 1 and 2 are the log from here on; Python's streams go where these went before."""
  sys.stdout.flush()
  sys.stderr.flush()
  out, err = os.dup(1), os.dup(2)
  put_in_place(guarded(out, dropping=True), guarded(err, dropping=True))
  for stream in (1, 2):
    os.dup2(log, stream)
  faulthandler.enable(sys.stderr)  # absl's went to file 2
  return err


def _read(log: int) -> str:
  size = os.fstat(log).st_size
  return os.pread(log, 1 << 20, max(0, size - (1 << 20))).decode(errors="replace")
