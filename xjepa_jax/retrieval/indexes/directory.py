"""The directory of an index: written beside its place and renamed, checked whole when opened.

An index is derived: whatever is wrong with one, the command that built it builds it again.
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
_THREADS = 4  # hashlib lets go of the interpreter's lock


def open_index(directory: StrPath, embeddings: StrPath | None = None) -> Index:
  """Opens an index for searching.

  Args:
    directory: that `build_index` wrote.
    embeddings: where the embeddings lie that it was built from, if not where they lay then.

  Raises:
    SearchIndexError: it is unfinished, a file is damaged (named), the embeddings are no longer
      those it was built from, or its back end is missing; the message says how to rebuild it.
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
  """Builds the index of a directory of embeddings; an index that was there before is replaced.

  Until it is whole, `directory` is as it was. Killed at any moment, calling it again does the rest.
  One process at a time builds it.

  Args:
    files: the embeddings.
    directory: of the index; new, or that of an index.
    backend: a key of `BACKENDS`.
    settings: of the back end.

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
  """Whether the directory holds just the index that `build_index` would write, undamaged."""
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
  """Whether a directory is absent, empty, or one of an index, damaged or not."""
  if not os.path.lexists(directory):
    return True
  return os.path.isdir(directory) and (
    not os.listdir(directory) or os.path.exists(os.path.join(directory, FILE))
  )


def check_index_files(directory: str, description: IndexDescription) -> None:
  """Compares size and SHA-256 of every file of an index.

  Raises:
    SearchIndexError: one is missing or was changed; it is named.
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
    SearchIndexError: they are not there, or are others.
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
  """Puts all files on the disk before the name says that they are there."""
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
    os.rename(directory, old)
  os.rename(building, directory)
  shutil.rmtree(old, ignore_errors=True)
