"""SHA-256 checksums of a checkpoint's files, because Orbax loads flipped bits without an error.

The manifest is part of the checkpoint and is written before the checkpoint gets its final name, so
no finished checkpoint lacks one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

from xjepa_jax.paths import missing_right

MANIFEST = "manifest.json"
# Orbax writes these at the top of a checkpoint on commit, after the manifest.
_LATER = ("_CHECKPOINT_METADATA", "commit_success.txt")
SMALL = 1 << 20  # bytes; files up to this size are read in full when a directory is opened
_THREADS = 8  # hashlib releases the interpreter lock, so threads hash in parallel


def write_manifest(directory: epath.Path) -> None:
  """Write the size and SHA-256 of every file below a directory to its `manifest.json`.

  Raises:
    OSError: a file cannot be read, or the manifest cannot be written.
  """
  names = sorted(_names(directory))
  with ThreadPoolExecutor(_THREADS) as pool:
    digests = list(pool.map(lambda name: _digest(directory / name), names))
  files = {
    name: {"bytes": size, "sha256": digest}
    for name, (size, digest) in zip(names, digests, strict=True)
  }
  (directory / MANIFEST).write_text(json.dumps({"files": files}, indent=1))


def damage(
  directory: epath.Path,
  most_bytes: int | None = None,
  edited: Collection[str] = (),
  spare: Collection[str] = (),
) -> str:
  """Describe in words what is wrong with a checkpoint's files; "" if nothing is.

  Args:
    directory: the directory of one checkpoint.
    most_bytes: for files larger than this only the size is compared; None reads all files.
    edited: files that people may have changed since; they only have to exist.
    spare: files that are not needed; they are skipped where this user may not read them.

  Raises:
    RightsError: this user may not read a file, so its state is unknown.
  """
  try:
    files = json.loads((directory / MANIFEST).read_text())["files"]
    expected = {str(name): (int(f["bytes"]), str(f["sha256"])) for name, f in files.items()}
  except FileNotFoundError:
    return f"it has no {MANIFEST}"
  except PermissionError as error:
    raise missing_right(directory / MANIFEST) from error
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    return f"{MANIFEST} cannot be read ({type(error).__name__}: {error})"

  def of_file(item: tuple[str, tuple[int, str]]) -> str:
    name, (size, digest) = item
    try:
      found = (directory / name).stat().length
      if name in edited:
        return ""
      if found != size:
        return f"{name} has {found} bytes and had {size} when it was written"
      if (most_bytes is None or size <= most_bytes) and _digest(directory / name)[1] != digest:
        return f"{name} has other bytes than were written (SHA-256 differs)"
    except PermissionError as error:
      if name not in spare:
        raise missing_right(directory / name) from error
    except OSError as error:
      return f"{name} cannot be read ({error.strerror or type(error).__name__})"
    return ""

  with ThreadPoolExecutor(_THREADS) as pool:
    return next((found for found in pool.map(of_file, expected.items()) if found), "")


def _names(directory: epath.Path, below: str = "") -> Any:
  for path in directory.iterdir():
    name = f"{below}{path.name}"
    if path.is_dir():
      yield from _names(path, f"{name}/")
    elif name != MANIFEST and name not in _LATER:
      yield name


def _digest(path: epath.Path) -> tuple[int, str]:
  size, digest = 0, hashlib.sha256()
  with path.open("rb") as file:
    while block := file.read(1 << 20):
      size += len(block)
      digest.update(block)
  return size, digest.hexdigest()
