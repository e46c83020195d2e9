"""A part: a table of descriptors as a Parquet file whose page checksums are verified on reading.

Encodings are chosen per column: no dictionary where values hardly repeat, and statistics only where
they let a reader skip row groups.
"""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP = 4096  # rows; the least that a search has to read to show one hit
_LEVEL = 3  # zstd level: vectors hardly compress, so higher levels only cost time


def part_bytes(table: pa.Table) -> bytes:
  """The bytes of a part's file; equal tables give equal bytes (with one version of pyarrow).

  Pages carry CRC32 checksums, which Parquet omits by default. Without them only one in thirty
  flipped bits is noticed.
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
  """Opens a part such that the checksum of every page is verified when it is read."""
  return pq.ParquetFile(path, page_checksum_verification=True)


def _leaves(schema: pa.Schema) -> list[str]:
  """Parquet paths of the columns that hold values."""
  return [path for field in schema for path in _below(field.name, field.type)]


def _below(name: str, kind: Any) -> list[str]:
  if pa.types.is_struct(kind):
    return [path for field in kind for path in _below(f"{name}.{field.name}", field.type)]
  if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
    return _below(f"{name}.list.element", kind.value_type)
  return [name]


def _plain(path: str, schema: pa.Schema) -> bool:
  """Whether values hardly ever repeat, so that a dictionary would be built for nothing."""
  if path.startswith("embedding."):  # int8 has only 256 values, one byte each in a dictionary
    return not pa.types.is_int8(schema.field("embedding").type.value_type)
  return path in ("id", "embedding_scale", "geometry", "footprint") or path.startswith(
    ("bbox.", "centre_")
  )


def _counted(path: str) -> bool:
  """Whether the column's minimum and maximum can help a reader skip row groups."""
  return path in ("id", "sensor", "datetime", "timestamp", "source") or path.startswith(
    ("bbox.", "centre_")
  )
