"""Bytes at the end of a file: given to the system when the call returns, or an error names it."""

from __future__ import annotations

from io import FileIO

from xjepa_jax.errors import TrainingError


def open_to_append(path: str) -> FileIO:
  """The file, without a buffer whose content could be lost, or fail again when it is closed.

  Raises:
    OSError: it cannot be made or opened.
  """
  return open(path, "ab", buffering=0)


def append(file: FileIO, data: bytes) -> None:
  """Writes all of the data.

  Raises:
    TrainingError: the disk is full, or is no longer there.
  """
  left = memoryview(data)
  try:
    while left:
      left = left[file.write(left) :]
  except OSError as error:
    raise TrainingError(
      f"{file.name!s}: cannot be written ({error.strerror or error}). Checkpoints that were "
      "finished are intact: make room, or mend the disk, and start again with the same command."
    ) from error
