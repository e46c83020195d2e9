"""One part: a table of descriptors as Parquet, whose checksums are compared when it is read."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP = 4096  # rows: what a search reads to show one hit
_LEVEL = 3  # of zstd: vectors do not compress, higher levels only cost time


def part_bytes(table: pa.Table) -> bytes:
  """A part's file; equal tables give equal bytes (with one version of pyarrow).

  Pages have CRC32 checksums, which Parquet leaves out by default: without them one flipped bit in
  thirty is noticed.
  """
  file = io.BytesIO()
  plain = [path for path in _leaves(table.schema) if _plain(path, table.schema)]
  counted = [path for path in _leaves(table.schema) if _counted(path)]
  pq.write_table(
    table,
    file,
    row_group_size=ROW_GROUP,
    compression="zstd",
    compression_level=_LEVEL,
    use_dictionary=[path for path in _leaves(table.schema) if path not in plain],
    write_statistics=counted,
    write_page_checksum=True,
  )
  return file.getvalue()


def open_part(path: str) -> pq.ParquetFile:
  """A part that compares the checksum of every page it reads."""
  return pq.ParquetFile(path, page_checksum_verification=True)


def _leaves(schema: pa.Schema) -> list[str]:
  """Parquet's names of the columns that hold values."""
  return [path for field in schema for path in _below(field.name, field.type)]


def _below(name: str, kind: Any) -> list[str]:
  if pa.types.is_struct(kind):
    return [path for field in kind for path in _below(f"{name}.{field.name}", field.type)]
  if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
    return _below(f"{name}.list.element", kind.value_type)
  return [name]


def _plain(path: str, schema: pa.Schema) -> bool:
  """Values that hardly ever repeat; a dictionary of them would be built in vain."""
  if path.startswith("embedding."):  # int8 has 256 values and takes a byte each in a dictionary
    return not pa.types.is_int8(schema.field("embedding").type.value_type)
  return path in ("id", "embedding_scale", "geometry", "footprint") or path.startswith(
    ("bbox.", "centre_")
  )


def _counted(path: str) -> bool:
  """Columns whose lowest and highest values let a reader leave row groups out."""
  return path in ("id", "sensor", "datetime", "timestamp", "source") or path.startswith(
    ("bbox.", "centre_")
  )
