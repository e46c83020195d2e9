"""A directory that one command at a time writes into.

On one host the system's lock of a file counts (flock): it goes with the process that holds it,
however that ends, so what a killed one left is taken over. The file says who holds it, for people,
and for file systems that hosts share: such a lock need not reach another host, so there the file
has to be gone before a process of another host begins. A process removes it when it ends by
itself.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

from xjepa_jax.errors import InUseError

_held: dict[str, int] = {}  # path -> descriptor, of this process


@contextlib.contextmanager
def holding(path: str, what: str) -> Iterator[None]:
  """Nothing else holds the lock of this path inside.

  Args:
    path: of the lock's file, in a directory that is there.
    what: it stands for, such as "the working directory runs/a".

  Raises:
    InUseError: a living process of this host has it, or one of another host may have it; or a
      directory is where the file has to be.
    OSError: the file cannot be made.
  """
  handle, free = _open(path)
  try:
    _claim(handle, free, path, what)
  except BaseException:
    os.close(handle)
    raise
  _held[path] = handle
  try:
    yield
  finally:
    _let_go(path)


def let_go_of_all() -> None:
  """For a process that ends without leaving its blocks; nothing is raised."""
  for path in list(_held):
    with contextlib.suppress(OSError):
      _let_go(path)


def _open(path: str) -> tuple[int, bool]:
  """The file, not one that is just being removed, and whether no process of this host has it."""
  while True:
    try:
      handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except IsADirectoryError as error:
      raise InUseError(
        f"{path}: is a directory, where the file of a lock has to be. Remove it, or move it away."
      ) from error
    free = _lock(handle)
    with contextlib.suppress(FileNotFoundError):
      if os.path.samestat(os.fstat(handle), os.stat(path)):
        return handle, free
    os.close(handle)


def _lock(handle: int) -> bool:
  try:
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except OSError:  # a file system without such locks: by the number of the process, then
    found = _content(handle)
    return not (found.get("host") == socket.gethostname() and _lives(found.get("pid")))
  return True


def _lives(pid: Any) -> bool:
  try:
    os.kill(int(pid), 0)
  except (ProcessLookupError, TypeError, ValueError):
    return False
  except PermissionError:  # it is another user's
    return True
  return True


def _claim(handle: int, free: bool, path: str, what: str) -> None:
  found = _content(handle)
  if not free:
    raise InUseError(
      f"{what} is in use by {_named(found)}, which is running. Wait for its end or stop it, or "
      "choose another directory."
    )
  if found and not _is_ours(found):
    raise InUseError(
      f"{what} was in use by {_named(found)}, and it cannot be told from here whether that still "
      f"runs. If it does not, remove {path} and start again."
    )
  os.ftruncate(handle, 0)
  os.pwrite(handle, json.dumps(_me()).encode() + b"\n", 0)


def _me() -> dict[str, Any]:
  return {
    "host": socket.gethostname(),
    "pid": os.getpid(),
    "job": os.environ.get("SLURM_JOB_ID", ""),
    "began": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
  }


def _is_ours(found: dict[str, Any]) -> bool:
  """Whether what a lock says is of this host, or of an earlier start of this Slurm job: of one that
  queued again, Slurm has ended the processes before, on whichever host they ran."""
  me = _me()
  return found.get("host") == me["host"] or (me["job"] != "" and found.get("job") == me["job"])


def _content(handle: int) -> dict[str, Any]:
  """What the file says; {} of one that is new, or was cut short when it was made."""
  try:
    found = json.loads(os.pread(handle, 4096, 0))
  except ValueError:
    return {}
  return found if isinstance(found, dict) else {}


def _named(found: dict[str, Any]) -> str:
  if not found:
    return "another process"
  return f"process {found.get('pid')} on {found.get('host')} (began {found.get('began')})"


def _let_go(path: str) -> None:
  handle = _held.pop(path)
  try:
    with contextlib.suppress(FileNotFoundError):
      if os.path.samestat(os.fstat(handle), os.stat(path)):
        os.unlink(path)
  finally:
    os.close(handle)
