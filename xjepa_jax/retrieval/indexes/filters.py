"""The columns that filters use, for back ends that have none of their own.

They are stored beside the vectors as Parquet with page checksums. A filter becomes a mask over
rows, and the masks of the latest filters are cached.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from xjepa_jax.retrieval.embedding.files import EmbeddingFiles
from xjepa_jax.retrieval.indexes.base import Filter

COLUMNS = ("sensor", "centre_lon", "centre_lat", "datetime", "labels")
_SCHEMA = pa.schema(
  [
    ("sensor", pa.string()),
    ("centre_lon", pa.float64()),
    ("centre_lat", pa.float64()),
    ("datetime", pa.timestamp("us", tz="UTC")),
    ("labels", pa.list_(pa.string())),
  ]
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MASKS_KEPT = 8  # the web page searches many times with the same filter


class FilterColumns:
  """Sensor, centre, time and labels of N rows, and masks of the rows that pass a filter."""

  def __init__(self, table: pa.Table | None = None):
    self._table = _SCHEMA.empty_table() if table is None else table
    # A cache per instance, since one on the class would keep every instance alive.
    self._mask = functools.lru_cache(_MASKS_KEPT)(self._compute)

  @classmethod
  def read(cls, path: str) -> FilterColumns:
    """Reads what `write` wrote."""
    return cls(pq.read_table(path, page_checksum_verification=True))

  def write(self, path: str) -> None:
    """Writes a Parquet file."""
    pq.write_table(
      self._table,
      path,
      compression="zstd",
      use_dictionary=["sensor", "datetime", "labels.list.element"],
      use_byte_stream_split=["centre_lon", "centre_lat"],
      write_page_checksum=True,
    )

  def __len__(self) -> int:
    return len(self._table)

  def sensors(self) -> tuple[str, ...]:
    """Sorted keys of the sensors that have rows."""
    return tuple(sorted(pc.unique(self._table["sensor"]).to_pylist()))

  def with_rows_of(self, files: EmbeddingFiles) -> FilterColumns:
    """These rows followed by those of `files`."""
    return FilterColumns(pa.concat_tables([self._table, *filter_tables(files)]).combine_chunks())

  def by_sensor(self) -> dict[str, np.ndarray]:
    """Sensor -> (N,) bool, its rows."""
    return {key: self._mask(Filter(sensors=(key,))) for key in self.sensors()}

  def mask(self, filter: Filter | None) -> np.ndarray | None:
    """(N,) bool, read-only, the rows that pass; None if all do."""
    if filter is None or filter.passes_all():
      return None
    return self._mask(filter)

  def _compute(self, filter: Filter) -> np.ndarray:
    passes = np.ones(len(self), bool)
    if filter.sensors:
      passes &= _bool(pc.is_in(self._table["sensor"], pa.array(filter.sensors)))
    if filter.bbox is not None:
      longitude, latitude = self.centres
      inside = np.zeros(len(self), bool)
      for west, south, east, north in filter.boxes():  # comparisons with NaN are false
        inside |= (
          (longitude >= west) & (longitude <= east) & (latitude >= south) & (latitude <= north)
        )
      passes &= inside
    if filter.time is not None:
      times, known = self._times
      passes &= known
      start, end = filter.time
      if start is not None:
        passes &= times >= microseconds(start)
      if end is not None:
        passes &= times < microseconds(end)
    if filter.labels:
      names, rows = self._labels
      wanted = _bool(pc.is_in(names, pa.array(filter.labels)))
      labelled = np.zeros(len(self), bool)
      labelled[rows[wanted]] = True
      passes &= labelled
    passes.flags.writeable = False
    return passes

  @functools.cached_property
  def centres(self) -> tuple[np.ndarray, np.ndarray]:
    """(N,) longitudes and (N,) latitudes, degrees; NaN where unknown."""
    return self._table["centre_lon"].to_numpy(), self._table["centre_lat"].to_numpy()

  @functools.cached_property
  def _times(self) -> tuple[np.ndarray, np.ndarray]:
    times = self._table["datetime"]
    return pc.fill_null(times.cast(pa.int64()), 0).to_numpy(), _bool(pc.is_valid(times))

  @functools.cached_property
  def _labels(self) -> tuple[pa.Array, np.ndarray]:
    """All labels of all rows, and the row of each label."""
    labels = self._table["labels"]
    return pc.list_flatten(labels), pc.list_parent_indices(labels).to_numpy()


def filter_tables(files: EmbeddingFiles, *more: str) -> Iterator[pa.Table]:
  """Tables of the filter columns and of `more`; a row without a centre has nulls."""
  for table in files.tables(columns=[*COLUMNS, *more]):
    schema = pa.schema([*_SCHEMA, *(table.schema.field(name) for name in more)])
    yield table.select(schema.names).cast(schema).replace_schema_metadata(None)


def microseconds(time: datetime) -> int:
  """Microseconds since 1970, as in an Arrow timestamp."""
  return (time - _EPOCH) // timedelta(microseconds=1)


def _bool(values: pa.ChunkedArray | pa.Array) -> np.ndarray:
  return pc.fill_null(values, False).to_numpy(zero_copy_only=False)
