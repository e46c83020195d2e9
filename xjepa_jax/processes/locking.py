"""A lock that lets one command at a time write to a directory.

On one host, the operating system's lock of a file (flock) decides. It is released with the process
that holds it, however that ends, so the file of a killed process is simply taken over. The file
also names the holder, for users and for shared file systems: flock may not reach other hosts, so a
process on another host only starts once the file is gone. A process removes the file when it ends
normally.
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

_held: dict[str, int] = {}  # path -> file descriptor, for the locks of this process


@contextlib.contextmanager
def holding(path: str, what: str) -> Iterator[None]:
  """Hold the lock of this path within a `with` block.

  Args:
    path: path of the lock file, in an existing directory.
    what: what the lock protects, such as "the working directory runs/a".

  Raises:
    InUseError: a running process of this host holds it, or one of another host may; or there is a
      directory at the path of the lock file.
    OSError: the file cannot be created.
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
  """Release all locks in a process that exits without leaving its `with` blocks; never raises."""
  for path in list(_held):
    with contextlib.suppress(OSError):
      _let_go(path)


def _open(path: str) -> tuple[int, bool]:
  """Open the lock file, and return whether no process of this host has locked it.

  Retries if the file was removed between opening and locking it: a lock on a file that no longer
  has a name would exclude nobody.
  """
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
  except OSError:  # the file system lacks flock: go by the process number in the file
    found = _content(handle)
    return not (found.get("host") == socket.gethostname() and _lives(found.get("pid")))
  return True


def _lives(pid: Any) -> bool:
  try:
    os.kill(int(pid), 0)
  except (ProcessLookupError, TypeError, ValueError):
    return False
  except PermissionError:  # the process exists but belongs to another user
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
  # Rewritten in place: a new file would not carry the lock of this one.
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
  """Whether a lock file is of this host, or of an earlier start of this Slurm job. Before Slurm
  requeues a job, it has ended the job's processes, on whichever host they ran."""
  me = _me()
  return found.get("host") == me["host"] or (me["job"] != "" and found.get("job") == me["job"])


def _content(handle: int) -> dict[str, Any]:
  """The content of the lock file; {} if it is new, or was truncated while being written."""
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
