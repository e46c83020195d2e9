"""The directory of an index: written under another name, renamed when complete, checked on opening.

An index is derived data, so the remedy for any damage is to run the command that built it again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from xjepa_jax.errors import SearchIndexError
from xjepa_jax.paths import StrPath, missing_right
from xjepa_jax.processes.locking import holding
from xjepa_jax.retrieval.embedding.files import EmbeddingFiles
from xjepa_jax.retrieval.embedding.manifest import MANIFEST, file_sha256
from xjepa_jax.retrieval.indexes.backends import make_index
from xjepa_jax.retrieval.indexes.base import Index
from xjepa_jax.retrieval.indexes.description import (
  FILE,
  REBUILD,
  IndexDescription,
  embeddings_directory,
  read_description,
)
from xjepa_jax.versions import versions

_BUILDING, _OLD, _LOCK = ".building", ".old", ".lock"
_THREADS = 4  # threads can hash in parallel because hashlib releases the GIL


def open_index(directory: StrPath, embeddings: StrPath | None = None) -> Index:
  """Opens an index for searching.

  Args:
    directory: directory that `build_index` wrote.
    embeddings: location of the embeddings that it was built from, if they have been moved since.

  Raises:
    SearchIndexError: the index is unfinished, a file (which the message names) is damaged, the
      embeddings have changed, or the back end is missing; the message says how to rebuild it.
  """
  directory = os.fspath(directory)
  embeddings = None if embeddings is None else os.fspath(embeddings)
  description = read_description(directory)
  check_source(directory, description, embeddings)
  check_index_files(directory, description)
  index = make_index(description.backend, description.settings)
  index.load(directory)
  if len(index) != description.count or index.dimensions != description.dimensions:
    index.close()
    raise SearchIndexError(
      f"{directory}: holds {len(index)} vectors of {index.dimensions} numbers where {FILE} says "
      f"{description.count} of {description.dimensions}. {_rebuild(directory, description)}"
    )
  return index


def build_index(
  files: EmbeddingFiles, directory: StrPath, backend: str, settings: Mapping[str, Any]
) -> IndexDescription:
  """Builds the index of a directory of embeddings, replacing any index that is there.

  `directory` stays as it was until the new index is complete. If the process is killed, calling
  this again finishes the work. Only one process at a time can build it.

  Args:
    files: the embeddings.
    directory: directory of the index; new, or that of an index.
    backend: a key of `BACKENDS`.
    settings: settings of the back end.

  Raises:
    SearchIndexError: the directory holds something else, or the back end cannot build.
    InUseError: another process is building it.
    OSError: it cannot be written.
  """
  directory = os.fspath(directory)
  directory = os.path.normpath(directory)
  if not replaceable(directory):
    raise SearchIndexError(
      f"{directory}: holds something that is no index. Give --out a new directory."
    )
  os.makedirs(os.path.dirname(directory) or ".", exist_ok=True)
  with holding(directory + _LOCK, f"the index {directory}"):
    return _build(files, directory, backend, settings)


def _build(
  files: EmbeddingFiles, directory: str, backend: str, settings: Mapping[str, Any]
) -> IndexDescription:
  building = directory + _BUILDING
  # Leftovers of a killed build cannot be used.
  shutil.rmtree(building, ignore_errors=True)
  os.makedirs(building)
  index = make_index(backend, settings)
  try:
    index.build(files, building)
    index.save(building)
    description = IndexDescription(
      backend=backend,
      requested=dict(settings),
      settings=dict(index.settings()),
      embeddings=os.path.relpath(files.directory, directory),
      fingerprint=files.fingerprint,
      count=len(index),
      dimensions=index.dimensions,
      sensors=index.sensors,
      files=_digests(building),
      versions=versions(),
    )
  finally:
    index.close()
  with open(os.path.join(building, FILE), "w", encoding="utf-8") as file:
    file.write(description.to_json())
  _sync(building)
  _replace(building, directory)
  return description


def is_current(
  directory: StrPath, files: EmbeddingFiles, backend: str, settings: Mapping[str, Any]
) -> bool:
  """Whether the directory holds, undamaged, the index that `build_index` would write."""
  directory = os.fspath(directory)
  try:
    description = read_description(directory)
    check_index_files(directory, description)
  except SearchIndexError:
    return False
  return (description.fingerprint, description.backend, dict(description.requested)) == (
    files.fingerprint,
    backend,
    dict(settings),
  )


def replaceable(directory: str) -> bool:
  """Whether a directory is absent, empty, or that of an index, damaged or not."""
  if not os.path.lexists(directory):
    return True
  return os.path.isdir(directory) and (
    not os.listdir(directory) or os.path.exists(os.path.join(directory, FILE))
  )


def check_index_files(directory: str, description: IndexDescription) -> None:
  """Compares size and SHA-256 of every file of an index.

  Raises:
    SearchIndexError: a file is missing or has changed; the message names it.
  """

  def wrong(item: tuple[str, Mapping[str, Any]]) -> str:
    name, expected = item
    path = os.path.join(directory, name)
    try:
      if os.path.getsize(path) != expected["bytes"]:
        return f"{path}: has {os.path.getsize(path)} bytes, {expected['bytes']} were written"
      if file_sha256(path) != expected["sha256"]:
        return f"{path}: has other bytes than were written (SHA-256 differs)"
    except PermissionError as error:
      raise missing_right(path) from error
    except OSError as error:
      return f"{path}: cannot be read ({error.strerror})"
    return ""

  with ThreadPoolExecutor(_THREADS) as pool:
    for found in pool.map(wrong, description.files.items()):
      if found:
        raise SearchIndexError(f"{found}. {_rebuild(directory, description)}")


def check_source(
  directory: str, description: IndexDescription, embeddings: str | None = None
) -> None:
  """Compares the manifest of the embeddings with the one that the index was built from.

  Raises:
    SearchIndexError: the embeddings are missing, or have changed.
  """
  where = embeddings or embeddings_directory(directory, description)
  manifest = os.path.join(where, MANIFEST)
  try:
    fingerprint = file_sha256(manifest)
  except PermissionError as error:
    raise missing_right(manifest) from error
  except OSError:
    raise SearchIndexError(
      f"{directory}: was built from the embeddings in {where}, which are not there ({manifest} "
      "cannot be read). If they were moved, say where they are with --embeddings; if they are "
      "being written, let that finish."
    ) from None
  if fingerprint != description.fingerprint:
    raise SearchIndexError(
      f"{directory}: was built from other embeddings than {where} holds now; its rows would name "
      f"the wrong scenes. {_rebuild(directory, description, where)}"
    )


def _rebuild(directory: str, description: IndexDescription, embeddings: str | None = None) -> str:
  where = embeddings or embeddings_directory(directory, description)
  return f"{REBUILD.format(embeddings=where, out=directory)} --backend {description.backend}"


def _digests(directory: str) -> dict[str, dict[str, Any]]:
  names = sorted(
    os.path.relpath(os.path.join(folder, name), directory)
    for folder, _, names in os.walk(directory)
    for name in names
  )
  found = {}
  for name in names:
    path = os.path.join(directory, name)
    found[name] = {"bytes": os.path.getsize(path), "sha256": file_sha256(path)}
  return found


def _sync(directory: str) -> None:
  """Flushes all files to disk, so that they are there before the directory gets its name."""
  for folder, _, names in os.walk(directory):
    for path in (folder, *(os.path.join(folder, name) for name in names)):
      handle = os.open(path, os.O_RDONLY)
      try:
        os.fsync(handle)
      finally:
        os.close(handle)


def _replace(building: str, directory: str) -> None:
  old = directory + _OLD
  shutil.rmtree(old, ignore_errors=True)
  if os.path.lexists(directory):
    # A rename cannot replace a directory that is not empty.
    os.rename(directory, old)
  os.rename(building, directory)
  shutil.rmtree(old, ignore_errors=True)
