"""The manifest of a directory of embeddings, with the SHA-256 of every file.

It is written last, so a directory with a manifest is complete. `KnownFile` detects files that are
replaced while they are open.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping

from etils import epath

from xjepa_jax.errors import ChangedError, EmbeddingError
from xjepa_jax.paths import check_reachable, missing_right
from xjepa_jax.training.manifest import MANIFEST, damage

PARTS = "parts"
_PART = re.compile(rf"{PARTS}/part-\d{{5,}}\.parquet")


def part_name(number: int) -> str:
  """Path of a part within the directory."""
  return f"{PARTS}/part-{number:05d}.parquet"


def digest(content: bytes) -> dict[str, int | str]:
  """The manifest entry of a file with this content."""
  return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def file_sha256(path: str) -> str:
  """SHA-256 of a file's bytes."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_bytes(files: Mapping[str, Mapping[str, int | str]]) -> bytes:
  """The content of `manifest.json`, from name -> `digest` of the file."""
  content = {"files": {name: dict(files[name]) for name in sorted(files)}}
  return (json.dumps(content, indent=1) + "\n").encode()


def check_files(directory: str, parts: bool = True) -> tuple[KnownFile, dict[str, KnownFile]]:
  """Compares every file with the manifest.

  Args:
    directory: directory of embeddings.
    parts: False compares only the sizes of parts; then `check_file` has to be called before a part
      is read.

  Returns:
    The manifest, and the parts by name in order.

  Raises:
    EmbeddingError: there is no manifest, or a file is not what was written.
    RightsError: the user may not read a file.
  """
  check_reachable(os.path.join(directory, MANIFEST))
  if not os.path.isdir(directory):
    raise EmbeddingError(
      f"{directory}: there is no such directory. Write one: python -m xjepa_jax.retrieval.embed."
    )
  if not os.path.exists(os.path.join(directory, MANIFEST)):
    raise EmbeddingError(
      f"{directory}: has no {MANIFEST}: it holds no embeddings, or writing them was interrupted. "
      "Run the command that wrote them again; it continues."
    )
  try:
    manifest = KnownFile(os.path.join(directory, MANIFEST))
  except PermissionError as error:
    raise missing_right(os.path.join(directory, MANIFEST)) from error
  except OSError as error:
    raise _untrusted(directory, f"{MANIFEST} cannot be read ({error.strerror})") from error
  wrong = damage(epath.Path(directory), None if parts else 0)  # files above 0 bytes: size only
  if wrong:
    raise _untrusted(directory, wrong)
  with open(os.path.join(directory, MANIFEST), encoding="utf-8") as file:
    files = {name: str(each["sha256"]) for name, each in json.load(file)["files"].items()}
  known = {name: KnownFile(os.path.join(directory, name), files[name]) for name in sorted(files)}
  for name, each in known.items():
    if parts:
      each.trust()  # just compared
    elif not _PART.fullmatch(name):
      check_file(directory, name, each)
  check_unchanged(manifest, directory)
  return manifest, {name: each for name, each in known.items() if _PART.fullmatch(name)}


def check_file(directory: str, name: str, file: KnownFile) -> None:
  """Compares the bytes of a file in a directory of embeddings with its SHA-256.

  Raises:
    EmbeddingError: the bytes are not those that were written, or cannot be read.
    RightsError: the user may not read them.
  """
  try:
    if not file.is_same():
      raise _untrusted(directory, f"{name} has other bytes than were written (SHA-256 differs)")
  except PermissionError as error:
    raise missing_right(os.path.join(directory, name)) from error
  except OSError as error:
    raise _untrusted(directory, f"{name} cannot be read ({error.strerror})") from error


class KnownFile:
  """A file with a known SHA-256, however often it is opened again.

  The bytes are compared again whenever size, modification time or inode differ from the last
  comparison, because a file may be replaced while a server reads it.
  """

  def __init__(self, path: str, sha256: str = ""):
    """Records the file; without `sha256`, reads it to compute one.

    Args:
      path: path of the file.
      sha256: its SHA-256; "" takes that of its present bytes.

    Raises:
      OSError: the file cannot be read.
    """
    self.path = path
    self._stamp = None if sha256 else self._found()
    self.sha256 = sha256 or file_sha256(path)

  def trust(self) -> None:
    """Records that the present bytes have been compared. Raises OSError."""
    self._stamp = self._found()

  def was_compared(self) -> bool:
    """Whether the file looks unchanged since its bytes were compared; reads no bytes."""
    with contextlib.suppress(OSError):
      return self._found() == self._stamp
    return False

  def is_same(self) -> bool:
    """Whether the bytes match the known SHA-256. Raises OSError."""
    found = self._found()
    if found == self._stamp:
      return True
    if file_sha256(self.path) != self.sha256:
      return False
    self._stamp = found
    return True

  def _found(self) -> tuple[int, int, int]:
    found = os.stat(self.path)
    return found.st_size, found.st_mtime_ns, found.st_ino


def check_unchanged(file: KnownFile, directory: str) -> None:
  """Raises a ChangedError if an open directory was replaced, which shows in the file that names all
  others: it has changed or is gone."""
  try:
    if file.is_same():
      return
    how = "is another one"
  except OSError as error:
    how = f"cannot be read any more ({error.strerror})"
  raise ChangedError(
    f"{directory}: has changed since it was opened: {file.path} {how}. What was read before does "
    "not go with what is there now: start again."
  )


def _untrusted(directory: str, wrong: str) -> EmbeddingError:
  return EmbeddingError(
    f"{directory}: embeddings that cannot be trusted: {wrong}. Copy the file again from its "
    f"source, or delete it and {MANIFEST} and run the command that wrote them again."
  )
