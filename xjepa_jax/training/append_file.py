"""Unbuffered appending to a file: bytes reach the system at once, or an error names the file."""

from __future__ import annotations

from io import FileIO

from xjepa_jax.errors import TrainingError


def open_to_append(path: str) -> FileIO:
  """Open a file for appending, without a buffer.

  A buffer's content could be lost, or could fail to be written a second time at close.

  Raises:
    OSError: the file cannot be created or opened.
  """
  return open(path, "ab", buffering=0)


def append(file: FileIO, data: bytes) -> None:
  """Write all of the data.

  Raises:
    TrainingError: the disk is full, or is no longer available.
  """
  left = memoryview(data)
  try:
    while left:  # an unbuffered write may take only a part of the data
      left = left[file.write(left) :]
  except OSError as error:
    raise TrainingError(
      f"{file.name!s}: cannot be written ({error.strerror or error}). Checkpoints that were "
      "finished are intact: make room, or mend the disk, and start again with the same command."
    ) from error
