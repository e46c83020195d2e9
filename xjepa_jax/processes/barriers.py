"""Named barriers, and a key-value store shared between processes, both with time-outs.

Both use JAX's coordination service, which runs over the hosts' network. A barrier of devices, such
as `multihost_utils.sync_global_devices`, has neither a name nor a time-out: if one process is
missing, the others hang. JAX has no public API for the service, so this module, and no other,
accesses its client.
"""

from __future__ import annotations

from typing import Any

from xjepa_jax.errors import LostError

_ROOT = "xjepa_jax/"  # prefix of all keys of this program


def connected() -> bool:
  """Whether this process has joined others."""
  return _client() is not None


def process() -> int:
  """This process's number, from 0. Queries no device, so it may be called before JAX has any."""
  return int(_state().process_id or 0) if connected() else 0


def processes() -> int:
  """The number of processes of this run."""
  return int(_state().num_processes or 1) if connected() else 1


def is_first() -> bool:
  """Whether this process is the one that prints for the user and writes the shared files."""
  return process() == 0


def wait_for_all(name: str, seconds: float) -> None:
  """Wait until all processes have reached this barrier. Returns at once in a single process.

  Args:
    name: name of the barrier; all processes reach the same ones in the same order.
    seconds: longest time to wait.

  Raises:
    LostError: not all processes arrived in time, or one is lost.
  """
  if not connected():
    return
  try:
    _client().wait_at_barrier(f"{_ROOT}{name}", int(seconds * 1000))
  except Exception as error:  # JAX has no exception class of its own for these
    raise LostError(
      f"process {process()} of {processes()} waited {seconds:g} s at {name!r} and not all others "
      f"came ({_first_line(error)}). Look at what the others say, and start all again."
    ) from error


def publish(key: str, value: str) -> None:
  """Store a value for the other processes; a later one under the same key replaces it."""
  _client().key_value_set(_ROOT + key, value, allow_overwrite=True)


def published(folder: str) -> dict[str, str]:
  """All stored values with keys "folder/REST", by REST."""
  prefix = f"{_ROOT}{folder}/"
  return {
    key.rpartition(prefix)[2]: value for key, value in _client().key_value_dir_get(prefix) or ()
  }


def wait_for_note(key: str, seconds: float) -> str:
  """Wait for a key to be stored, and return its value.

  Raises:
    LostError: it was not stored in time, or the process that holds the store is lost.
  """
  try:
    return str(_client().blocking_key_value_get(_ROOT + key, int(seconds * 1000)))
  except Exception as error:
    raise LostError(
      f"process {process()} of {processes()} waited {seconds:g} s for {key!r} of another process "
      f"({_first_line(error)}). Look at what the others say, and start all again."
    ) from error


def _state() -> Any:
  import sys

  # If JAX is not imported there are no other processes, and a command's --help need not import it.
  distributed: Any = sys.modules.get("jax._src.distributed")
  return getattr(distributed, "global_state", None)


def _client() -> Any:
  return getattr(_state(), "client", None)


def _first_line(error: Exception) -> str:
  return (str(error).splitlines() or [""])[0][:200]
