"""SHA-256 of every file of a directory of embeddings; written last, it makes it whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping

from etils import epath

from xjepa_jax.errors import EmbeddingError
from xjepa_jax.paths import check_reachable, missing_right
from xjepa_jax.training.manifest import MANIFEST, damage

PARTS = "parts"
_PART = re.compile(rf"{PARTS}/part-\d{{5,}}\.parquet")


def part_name(number: int) -> str:
  """A part's path in the directory."""
  return f"{PARTS}/part-{number:05d}.parquet"


def digest(content: bytes) -> dict[str, int | str]:
  """What the manifest holds of a file of this content."""
  return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def file_sha256(path: str) -> str:
  """The SHA-256 of a file's bytes."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_bytes(files: Mapping[str, Mapping[str, int | str]]) -> bytes:
  """The content of `manifest.json`: name -> what `digest` says of it."""
  content = {"files": {name: dict(files[name]) for name in sorted(files)}}
  return (json.dumps(content, indent=1) + "\n").encode()


def check_files(directory: str, parts: bool = True) -> dict[str, str]:
  """Compares every file with the manifest.

  Args:
    directory: of embeddings.
    parts: False compares the sizes of parts alone; whoever reads one calls `check_file` before.

  Returns:
    The names of the parts in their order, and the SHA-256 of each.

  Raises:
    EmbeddingError: there is no manifest, or a file is not what was written.
    RightsError: this user may not read a file.
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
  wrong = damage(epath.Path(directory), None if parts else 0)  # of more than 0 bytes the size
  if wrong:
    raise _untrusted(directory, wrong)
  with open(os.path.join(directory, MANIFEST), encoding="utf-8") as file:
    files = {name: str(each["sha256"]) for name, each in json.load(file)["files"].items()}
  if not parts:
    for name in files:
      if not _PART.fullmatch(name):
        check_file(directory, name, files[name])
  return {name: files[name] for name in sorted(files) if _PART.fullmatch(name)}


def check_file(directory: str, name: str, sha256: str) -> None:
  """Compares the bytes of a file of a directory of embeddings with its SHA-256.

  Raises:
    EmbeddingError: they are others than were written, or cannot be read.
    RightsError: this user may not read them.
  """
  try:
    if file_sha256(os.path.join(directory, name)) != sha256:
      raise _untrusted(directory, f"{name} has other bytes than were written (SHA-256 differs)")
  except PermissionError as error:
    raise missing_right(os.path.join(directory, name)) from error
  except OSError as error:
    raise _untrusted(directory, f"{name} cannot be read ({error.strerror})") from error


def _untrusted(directory: str, wrong: str) -> EmbeddingError:
  return EmbeddingError(
    f"{directory}: embeddings that cannot be trusted: {wrong}. Copy the file again from its "
    f"source, or delete it and {MANIFEST} and run the command that wrote them again."
  )
