"""Named barriers and notes between processes, each with a time-out.

Both go through JAX's coordination service, over the network of the hosts. A barrier of devices,
such as `multihost_utils.sync_global_devices`, has neither name nor time-out: where one process is
missing the others hang. JAX has no public call for these, so this module, and no other, uses its
client.
"""

from __future__ import annotations

from typing import Any

from xjepa_jax.errors import LostError

_ROOT = "xjepa_jax/"  # of all notes of this program


def connected() -> bool:
  """Whether this process has joined others."""
  return _client() is not None


def process() -> int:
  """This process's number, from 0; asks no device, so that it may be called before any."""
  return int(_state().process_id or 0) if connected() else 0


def processes() -> int:
  """How many there are."""
  return int(_state().num_processes or 1) if connected() else 1


def is_first() -> bool:
  """Whether this process is the one that tells people and writes what all have in common."""
  return process() == 0


def wait_for_all(name: str, seconds: float) -> None:
  """Waits until all processes have come here. A process that is alone has.

  Args:
    name: of the place; all processes come to the same ones in the same order.
    seconds: to wait at most.

  Raises:
    LostError: not all came in time, or a process is gone.
  """
  if not connected():
    return
  try:
    _client().wait_at_barrier(f"{_ROOT}{name}", int(seconds * 1000))
  except Exception as error:  # JAX has no class of its own for these
    raise LostError(
      f"process {process()} of {processes()} waited {seconds:g} s at {name!r} and not all others "
      f"came ({_first_line(error)}). Look at what the others say, and start all again."
    ) from error


def publish(key: str, value: str) -> None:
  """Leaves a note for the other processes; a later one of the same key replaces it."""
  _client().key_value_set(_ROOT + key, value, allow_overwrite=True)


def published(folder: str) -> dict[str, str]:
  """All notes whose keys begin with "folder/", by the rest of the key."""
  prefix = f"{_ROOT}{folder}/"
  return {
    key.rpartition(prefix)[2]: value for key, value in _client().key_value_dir_get(prefix) or ()
  }


def wait_for_note(key: str, seconds: float) -> str:
  """The note of a key, as soon as it is there.

  Raises:
    LostError: it did not come in time, or the process that keeps all notes is gone.
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

  # Without JAX there are no other processes, and a command's help need not import it.
  distributed: Any = sys.modules.get("jax._src.distributed")
  return getattr(distributed, "global_state", None)


def _client() -> Any:
  return getattr(_state(), "client", None)


def _first_line(error: Exception) -> str:
  return (str(error).splitlines() or [""])[0][:200]
