"""PostgreSQL with pgvector, for scenes that are managed in PostgreSQL already.

There is one table, and filters are SQL conditions. An interrupted build is continued, because rows
are sent in order and every batch is one transaction.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from xjepa_jax.errors import SearchIndexError
from xjepa_jax.retrieval.embedding.files import EmbeddingFiles, table_vectors
from xjepa_jax.retrieval.indexes.base import Filter, Hits, check_query
from xjepa_jax.retrieval.indexes.filters import COLUMNS, filter_tables
from xjepa_jax.retrieval.indexes.pgvector_sql import (
  create_table,
  exact_query,
  graph_query,
  index_statements,
  where,
)

_ABOUT = "about.json"
_BATCH = 8192  # rows per transaction; an interruption keeps a batch completely or not at all
_MOST_DIMENSIONS = 4000  # limit of pgvector's graph with 16 bits per number
# Upper limit of pgvector's hnsw.ef_search.
_MOST_EF = 1000


@dataclasses.dataclass(frozen=True)
class PgvectorSettings:
  """Settings of a pgvector index.

  Attributes:
    server: connection, postgresql://user@host:port/name or key=value pairs. It has no password,
      which comes from PGPASSWORD or ~/.pgpass.
    table: prefix of the table's name; a digest of embeddings and settings follows. The index sets
      the complete name once it is built.
    m, ef_construct: edges per node of the graph (HNSW), and candidates from which they are chosen.
    ef: candidates that a search examines.
    exact: build no graph, and compute all inner products.
    build_memory: memory for building the graph; one that does not fit is built slowly.
  """

  server: str = ""
  table: str = "xjepa"
  m: int = 16
  ef_construct: int = 100
  ef: int = 100
  exact: bool = False
  build_memory: str = "1GB"


PRESETS = {"hnsw": PgvectorSettings(), "exact": PgvectorSettings(exact=True)}


class PgvectorIndex:
  """Vectors and filter columns in a table.

  Args:
    settings: settings of the index.

  Raises:
    SearchIndexError: a package is not installed, no server is named, or a password is.
  """

  backend = "pgvector"

  def __init__(self, settings: PgvectorSettings):
    try:
      import pgvector.psycopg
      import psycopg
    except ImportError as error:
      raise SearchIndexError(
        f"the back end pgvector needs psycopg and pgvector ({error}): "
        "pip install 'xjepa-jax[pgvector]'."
      ) from error
    self._psycopg: Any = psycopg
    self._register = pgvector.psycopg.register_vector
    self._settings = settings
    self._table = settings.table
    self._count = 0
    self.dimensions = 0
    self.sensors: tuple[str, ...] = ()
    self._connection: Any = None
    _check(settings, psycopg.conninfo)

  def __len__(self) -> int:
    return self._count

  def settings(self) -> Mapping[str, Any]:
    """Settings as JSON types."""
    return {**dataclasses.asdict(self._settings), "table": self._table}

  def build(self, files: EmbeddingFiles, directory: str | None = None) -> None:
    """Replaces the contents with the rows of `files`; see `Index.build`."""
    self.close()
    self.dimensions = files.description.dimensions
    if not self._settings.exact and self.dimensions > _MOST_DIMENSIONS:
      raise SearchIndexError(
        f"descriptors of {self.dimensions} numbers; pgvector's graph takes {_MOST_DIMENSIONS}. Use "
        "--preset exact, or another back end."
      )
    asked = {**dataclasses.asdict(self._settings), "of": files.fingerprint}
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    self._table = f"{self._settings.table}_{digest[:12]}"
    with self._asking() as connection:
      for statement in create_table(self._table, self.dimensions):
        connection.execute(statement)
    self.add(files)

  def add(self, files: EmbeddingFiles) -> None:
    """Appends the rows of `files`, numbered from `len(self)` on.

    Rows that are in the table already are not sent again. They are known to be the first ones,
    because rows are sent in order and each batch is one transaction.
    """
    row = self._count
    with self._asking() as connection:
      there = connection.execute(f'SELECT count(*) FROM "{self._table}"').fetchone()[0]
      for table in filter_tables(files, "embedding"):
        for start in range(0, len(table), _BATCH):
          batch = table.slice(start, _BATCH)
          missing = batch.slice(min(max(there - row, 0), len(batch)))
          if len(missing):
            self._copy(connection, missing, row + len(batch) - len(missing))
          row += len(batch)
      memory = (self._settings.build_memory,)
      connection.execute("SELECT set_config('maintenance_work_mem', %s, false)", memory)
      for statement in index_statements(self._table, self.dimensions, self._settings):
        connection.execute(statement)
      found = connection.execute(f'SELECT count(*), max(number) FROM "{self._table}"').fetchone()
      if found != (row, row - 1 if row else None):
        raise SearchIndexError(
          f"{self._settings.server}: the table {self._table} has {found[0]} rows where {row} were "
          "sent; something else writes to it. Drop it, then run the command again."
        )
    self._count = row
    self.sensors = tuple(sorted({*self.sensors, *files.description.sensors}))

  def search(self, vectors: np.ndarray, k: int, filter: Filter | None = None) -> Hits:
    """The k best rows that pass the filter; see `Index.search`."""
    vectors = check_query(self, vectors, k, filter)
    hits = Hits.none(len(vectors), k)
    among = min(k, len(self))
    if not among or not len(vectors):
      return hits
    condition, values = where(filter)
    exact = exact_query(self._table, condition)
    graph = graph_query(self._table, condition, self.dimensions)
    with self._asking() as connection:
      if not self._settings.exact:
        ef = min(max(self._settings.ef, 2 * among), _MOST_EF)
        connection.execute(f"SET hnsw.ef_search = {ef}")
        # Continues the graph search until enough rows pass the filter.
        connection.execute("SET hnsw.iterative_scan = strict_order")
      for i, vector in enumerate(vectors):
        # Twice as many candidates as hits come from the graph, and are re-ranked in 32 bits.
        asked = {**values, "query": vector, "k": among, "candidates": 2 * among}
        found: list[Any] = []
        if not self._settings.exact:
          found = connection.execute(graph, asked).fetchall()
        if len(found) < among:
          # The graph can miss rows that pass the filter; computing all products cannot.
          found = connection.execute(exact, asked).fetchall()
        for place, (row, score) in enumerate(found):
          hits.rows[i, place], hits.scores[i, place] = row, score
    return hits

  def save(self, directory: str) -> None:
    """Writes what cannot be read back from the table."""
    about = {"dimensions": self.dimensions, "sensors": self.sensors}
    with open(os.path.join(directory, _ABOUT), "w", encoding="utf-8") as file:
      json.dump(about, file)

  def load(self, directory: str) -> None:
    """Connects to the table that was built."""
    with open(os.path.join(directory, _ABOUT), encoding="utf-8") as file:
      about = json.load(file)
    self.dimensions, self.sensors = about["dimensions"], tuple(about["sensors"])
    with self._asking() as connection:
      self._count = connection.execute(f'SELECT count(*) FROM "{self._table}"').fetchone()[0]

  def close(self) -> None:
    """Closes the connection."""
    if self._connection is not None:
      self._connection.close()
      self._connection = None
    self._count, self.dimensions, self.sensors = 0, 0, ()

  @contextlib.contextmanager
  def _asking(self) -> Iterator[Any]:
    """The connection; database errors become SearchIndexErrors that say what to do."""
    try:
      if self._connection is None:
        connection = self._psycopg.connect(self._settings.server, autocommit=True)
        try:
          connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
          self._register(connection)
        except BaseException:
          connection.close()
          raise
        self._connection = connection
      yield self._connection
    except self._psycopg.Error as error:
      if self._connection is not None and self._connection.closed:
        self._connection = None
      raise SearchIndexError(
        f"PostgreSQL did not answer as expected ({str(error).strip()}). Check that the server "
        "runs, that it has the extension vector 0.8 or later, and the user's rights; then run the "
        "same command again: it continues."
      ) from error

  def _copy(self, connection: Any, table: Any, first: int) -> None:
    """Writes rows in one transaction, numbered from `first` on."""
    columns = ", ".join(("number", *COLUMNS, "embedding"))
    vectors = table_vectors(table)
    rows = table.select(list(COLUMNS)).to_pylist()
    with (
      connection.transaction(),
      connection.cursor() as cursor,
      cursor.copy(f'COPY "{self._table}" ({columns}) FROM STDIN WITH (FORMAT BINARY)') as copy,
    ):
      copy.set_types(["int8", "text", "float8", "float8", "timestamptz", "text[]", "vector"])
      for number, (row, vector) in enumerate(zip(rows, vectors, strict=True), first):
        row["labels"] = row["labels"] or []
        copy.write_row((number, *(row[name] for name in COLUMNS), vector))


def _check(settings: PgvectorSettings, conninfo: Any) -> None:
  """Raises a SearchIndexError for settings that are unusable or must not be stored in a file."""
  if not settings.server:
    raise SearchIndexError(
      "the back end pgvector needs a server: --server postgresql://user@host:5432/name."
    )
  if conninfo.conninfo_to_dict(settings.server).get("password"):
    raise SearchIndexError(
      "--server has a password, which the index would keep in a file. Leave it out, and give it as "
      "PGPASSWORD or in ~/.pgpass."
    )
  if not settings.table.isidentifier():
    raise SearchIndexError(f"pgvector's table {settings.table!r}: use letters, digits and _.")
