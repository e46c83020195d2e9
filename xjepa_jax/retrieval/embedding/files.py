"""Reads a directory of embeddings.

No bytes are used before they have been compared with their SHA-256. The comparison is repeated for
every part that is read, before and after reading, because a part may be replaced while it is open.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from xjepa_jax.errors import EmbeddingError
from xjepa_jax.paths import StrPath
from xjepa_jax.retrieval.embedding.description import (
  DESCRIPTION,
  EmbeddingDescription,
  description_from_json,
)
from xjepa_jax.retrieval.embedding.manifest import (
  KnownFile,
  check_file,
  check_files,
  check_unchanged,
)
from xjepa_jax.retrieval.embedding.part import open_part
from xjepa_jax.retrieval.embedding.quantisation import restore
from xjepa_jax.retrieval.embedding.schema import part_schema

_VECTOR = ("embedding", "embedding_scale")
_GROUPS_KEPT = 32  # row groups that `take` caches: the hits of a query lie close together
_THREADS = 8  # threads can hash in parallel because hashlib releases the GIL


def open_embeddings(directory: StrPath, parts_now: bool = True) -> EmbeddingFiles:
  """Opens a directory that `python -m xjepa_jax.retrieval.embed` wrote.

  Args:
    directory: directory of embeddings.
    parts_now: compare the bytes of all parts now. False compares only sizes, and the bytes of a
      part before its first row or column is read, because a single query needs only a few parts.

  Raises:
    EmbeddingError: the directory is unfinished, a file (which the message names) is damaged, or its
      parts do not match its description.
  """
  directory = os.fspath(directory)
  manifest, parts = check_files(directory, parts_now)
  path = os.path.join(directory, DESCRIPTION)
  try:
    with open(path, encoding="utf-8") as file:
      description = description_from_json(file.read(), path)
  except OSError as error:
    raise EmbeddingError(f"{path}: cannot be read ({error.strerror}).") from error
  files = EmbeddingFiles(directory, description, manifest, parts)
  files.check_unchanged()
  return files


class EmbeddingFiles:
  """The rows of a directory of embeddings, numbered in the order of parts, then of rows.

  Attributes:
    directory: path of the directory, as given.
    description: its `EmbeddingDescription`.
    fingerprint: SHA-256 of its manifest, which covers all its files.

  Args:
    manifest: manifest of the directory.
    parts: name -> file of each part, in order.
  """

  def __init__(
    self,
    directory: str,
    description: EmbeddingDescription,
    manifest: KnownFile,
    parts: Mapping[str, KnownFile],
  ):
    self.directory = directory
    self.description = description
    self.fingerprint = manifest.sha256
    self._manifest = manifest
    self._parts = list(parts.items())
    self._paths = [part.path for part in parts.values()]
    # (part, row group) of every row group in the directory; `_ends` has where its rows end.
    self._groups: list[tuple[int, int]] = []
    sizes: list[int] = []
    self._schema = part_schema(
      description.dimensions,
      description.quantisation,
      description.georeferenced,
      description.digests,
    )
    for number, path in enumerate(self._paths):
      with _reading(path), open_part(path) as part:
        if not part.schema_arrow.equals(self._schema, check_metadata=False):
          raise EmbeddingError(f"{path}: its columns are not those that {DESCRIPTION} describes.")
        groups = range(part.num_row_groups)
        self._groups += [(number, group) for group in groups]
        sizes += [part.metadata.row_group(group).num_rows for group in groups]
    self._ends = list(itertools.accumulate(sizes))
    self._kept: collections.OrderedDict[int, pa.Table] = collections.OrderedDict()
    if len(self) != description.count:
      raise EmbeddingError(
        f"{directory}: its parts hold {len(self)} rows, {DESCRIPTION} says {description.count}."
      )

  def check_unchanged(self) -> None:
    """Raises a ChangedError if the directory has been replaced since it was opened."""
    check_unchanged(self._manifest, self.directory)

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  def tables(self, rows: int = 65536, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """All rows in order, in tables of at most `rows`; `columns` by name, or None for all."""
    self._compare(range(len(self._paths)))
    for number, path in enumerate(self._paths):
      with self._unreplaced(number), _reading(path), open_part(path) as part:
        for batch in part.iter_batches(rows, columns=None if columns is None else list(columns)):
          yield pa.Table.from_batches([batch])

  def vectors(self) -> np.ndarray:
    """(N, K) float32 of unit length, the vectors of all rows."""
    found = np.empty((len(self), self.description.dimensions), np.float32)
    at = 0
    for table in self.tables(columns=self._vector_columns()):
      found[at : at + len(table)] = table_vectors(table)
      at += len(table)
    return found

  def vectors_of(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """(len(rows), K) float32 of unit length, for row numbers in the given order."""
    found = np.empty((len(rows), self.description.dimensions), np.float32)
    for group, places, numbers in self._located(rows):
      table = self._read(group, self._vector_columns())
      found[places] = table_vectors(table.take(pa.array(numbers)))
    return found

  def take(self, rows: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
    """Whole rows without the embedding, for row numbers in the given order.

    Returns:
      One dictionary per row, column -> value; geometries are WKB, times are aware datetimes.

    Raises:
      IndexError: there is no such row.
    """
    found: list[dict[str, Any]] = [{}] * len(rows)
    for group, places, numbers in self._located(rows):
      for place, row in zip(places, self._described(group).take(pa.array(numbers)).to_pylist(),
                            strict=True):  # fmt: skip
        found[place] = {"row": int(rows[place]), **row}
    return found

  def find(self, id: str, sensor: str | None = None) -> list[int]:
    """Row numbers with this id, for one sensor or for all; empty if there is none."""
    names = self._names
    found = pc.equal(names["id"], id)
    if sensor is not None:
      found = pc.and_(found, pc.equal(names["sensor"], sensor))
    return [int(row) for row in np.flatnonzero(found.to_numpy(zero_copy_only=False))]

  @functools.cached_property
  def _names(self) -> pa.Table:
    tables = list(self.tables(columns=["id", "sensor"]))
    if tables:
      return pa.concat_tables(tables).combine_chunks()
    return pa.table({"id": pa.array([], pa.string()), "sensor": pa.array([], pa.string())})

  def _vector_columns(self) -> list[str]:
    return list(_VECTOR[: 2 if self.description.quantisation == "int8" else 1])

  def _located(self, rows: Any) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields a row group, the positions in `rows` that fall into it, and the numbers within it."""
    numbers = np.asarray(rows, np.int64).reshape(-1)
    outside = numbers[(numbers < 0) | (numbers >= len(self))]
    if len(outside):
      raise IndexError(f"row {outside[0]} of {len(self)}")
    groups = np.searchsorted(self._ends, numbers, side="right")
    for group in np.unique(groups):
      places = np.flatnonzero(groups == group)
      start = self._ends[group - 1] if group else 0
      yield int(group), places, numbers[places] - start

  def _described(self, group: int) -> pa.Table:
    """A row group without the embedding, from a cache of the most recently used ones."""
    if group not in self._kept:
      names = [name for name in self._schema.names if name not in _VECTOR]
      self._kept[group] = self._read(group, names)
      if len(self._kept) > _GROUPS_KEPT:
        self._kept.popitem(last=False)
    self._kept.move_to_end(group)
    return self._kept[group]

  def _compare(self, parts: Iterable[int]) -> None:
    """Compares the bytes of those parts whose present state has not been compared yet.

    Page checksums alone are not enough: a flipped bit in a page header can make rows disappear.

    Raises:
      ChangedError: the directory now holds other embeddings.
      EmbeddingError: the directory is the same, but a part has other bytes than were written.
    """

    def compare(part: tuple[str, KnownFile]) -> None:
      check_file(self.directory, *part)

    changed = [part for part in map(self._parts.__getitem__, parts) if not part[1].was_compared()]
    if not changed:
      return
    try:
      with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(compare, changed))
    except EmbeddingError:
      # If the whole directory was replaced, that explains the difference, and not damage.
      self.check_unchanged()
      raise

  @contextlib.contextmanager
  def _unreplaced(self, number: int) -> Iterator[None]:
    """Guarantees that what is read of a part inside has the bytes that were compared."""
    self._compare([number])
    yield
    self._compare([number])

  def _read(self, group: int, columns: list[str]) -> pa.Table:
    number, inner = self._groups[group]
    path = self._paths[number]
    with self._unreplaced(number), _reading(path), open_part(path) as part:
      return part.read_row_group(inner, columns=columns)


def table_vectors(table: pa.Table) -> np.ndarray:
  """(n, K) float32 of unit length from the columns `embedding` and `embedding_scale`."""
  stored = table.column("embedding").combine_chunks()
  if isinstance(stored, pa.ChunkedArray):  # combine_chunks keeps a table without rows chunked
    stored = pa.array([], stored.type)
  size = stored.type.list_size
  values = stored.flatten().to_numpy(zero_copy_only=False).reshape(-1, size)
  scale = None
  if "embedding_scale" in table.column_names:
    scale = table.column("embedding_scale").to_numpy()
  return restore(values, scale)


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
  """Adds the name of the part to any error from reading it."""
  try:
    yield
  except (OSError, pa.ArrowException) as error:
    raise EmbeddingError(
      f"{path}: the part cannot be read ({str(error).splitlines()[0]}). Copy it again from its "
      "source, or embed the archive again."
    ) from error
