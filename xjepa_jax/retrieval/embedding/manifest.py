"""SHA-256 of every file of a directory of embeddings; written last, it makes it whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping

from etils import epath

from xjepa_jax.errors import EmbeddingError
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


def check_files(directory: str) -> list[str]:
  """Compares every file with the manifest; returns the names of the parts, in order.

  Raises:
    EmbeddingError: there is no manifest, or a file is not what was written.
  """
  if not os.path.isdir(directory):
    raise EmbeddingError(
      f"{directory}: there is no such directory. Write one: python -m xjepa_jax.retrieval.embed."
    )
  if not os.path.exists(os.path.join(directory, MANIFEST)):
    raise EmbeddingError(
      f"{directory}: has no {MANIFEST}: it holds no embeddings, or writing them was interrupted. "
      "Run the command that wrote them again; it continues."
    )
  wrong = damage(epath.Path(directory))
  if wrong:
    raise EmbeddingError(
      f"{directory}: embeddings that cannot be trusted: {wrong}. Copy the file again from its "
      f"source, or delete it and {MANIFEST} and run the command that wrote them again."
    )
  with open(os.path.join(directory, MANIFEST), encoding="utf-8") as file:
    names = json.load(file)["files"]
  return sorted(name for name in names if _PART.fullmatch(name))
