"""SQL of the pgvector back end. Table names come from checked settings; all else is bound.

Statements that create anything can be repeated, so that an interrupted build continues.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from xjepa_jax.retrieval.indexes.base import Filter


def create_table(table: str, dimensions: int) -> Iterator[str]:
  """Statements that create the table if it does not exist."""
  yield (
    f'CREATE TABLE IF NOT EXISTS "{table}" (number bigint PRIMARY KEY, sensor text NOT NULL, '
    "centre_lon float8, centre_lat float8, datetime timestamptz, labels text[] NOT NULL, "
    f"embedding vector({dimensions}) NOT NULL)"
  )


def index_statements(table: str, dimensions: int, settings: Any) -> Iterator[str]:
  """Statements that index the filter columns, and the vectors unless the search is exact.

  The graph holds 16-bit numbers, half the bytes; its best candidates are re-ranked in 32 bits.
  """
  for name, how in (
    ("sensor", "btree (sensor)"),
    ("place", "btree (centre_lon, centre_lat)"),
    ("datetime", "btree (datetime)"),
    ("labels", "gin (labels)"),
  ):
    yield f'CREATE INDEX IF NOT EXISTS "{table}_{name}" ON "{table}" USING {how}'
  if not settings.exact:
    yield (
      f'CREATE INDEX IF NOT EXISTS "{table}_graph" ON "{table}" USING hnsw '
      f"((embedding::halfvec({dimensions})) halfvec_ip_ops) "
      f"WITH (m = {int(settings.m)}, ef_construction = {int(settings.ef_construct)})"
    )
  yield f'ANALYZE "{table}"'


def where(filter: Filter | None) -> tuple[str, dict[str, Any]]:
  """A filter as an SQL condition, and the values that it binds."""
  conditions = ["true"]
  values: dict[str, Any] = {}
  if filter is None:
    return conditions[0], values
  if filter.sensors:
    conditions.append("sensor = ANY(%(sensors)s)")
    values["sensors"] = list(filter.sensors)
  if filter.labels:
    conditions.append("labels && %(labels)s")
    values["labels"] = list(filter.labels)
  if filter.bbox is not None:
    west, south, east, north = filter.bbox
    either = "AND" if west <= east else "OR"  # OR for a box across the antimeridian
    conditions.append(
      f"(centre_lon >= %(west)s {either} centre_lon <= %(east)s) "
      "AND centre_lat BETWEEN %(south)s AND %(north)s"
    )
    values.update(west=west, south=south, east=east, north=north)
  if filter.time is not None:
    conditions.append("datetime IS NOT NULL")
    for name, operator, bound in zip(("start", "end"), (">=", "<"), filter.time, strict=True):
      if bound is not None:
        conditions.append(f"datetime {operator} %({name})s")
        values[name] = bound
  return " AND ".join(conditions), values


def exact_query(table: str, condition: str) -> str:
  """Numbers and scores of the k best rows, from all inner products."""
  return (
    f'SELECT number, -(embedding <#> %(query)s) FROM "{table}" WHERE {condition} '
    "ORDER BY embedding <#> %(query)s, number LIMIT %(k)s"
  )


def graph_query(table: str, condition: str, dimensions: int) -> str:
  """Numbers and scores of the k best rows among the graph's candidates."""
  # MATERIALIZED keeps the planner from merging the two queries, so the graph is used.
  half = f"halfvec({dimensions})"
  return (
    f'WITH near AS MATERIALIZED (SELECT number, embedding FROM "{table}" WHERE {condition} '
    f"ORDER BY embedding::{half} <#> %(query)s::{half} LIMIT %(candidates)s) "
    "SELECT number, -(embedding <#> %(query)s) FROM near "
    "ORDER BY embedding <#> %(query)s, number LIMIT %(k)s"
  )
