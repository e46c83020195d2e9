"""Writes existing vectors, such as those of another model, as a directory of embeddings.

The manifest is written last, so an interrupted write never looks complete.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping

import pyarrow as pa

from xjepa_jax.data import storage
from xjepa_jax.paths import StrPath
from xjepa_jax.retrieval.embedding.description import DESCRIPTION, EmbeddingDescription
from xjepa_jax.retrieval.embedding.manifest import (
  MANIFEST,
  PARTS,
  digest,
  manifest_bytes,
  part_name,
)
from xjepa_jax.retrieval.embedding.part import part_bytes


def write_embeddings(
  directory: StrPath, description: EmbeddingDescription, parts: Iterable[pa.Table]
) -> None:
  """Writes tables as a directory of embeddings, for example with another model's vectors.

  Args:
    directory: created if missing.
    description: description of the rows.
    parts: tables from `part_table`, one per part.

  Raises:
    OSError: the directory cannot be written.
  """
  directory = os.fspath(directory)
  os.makedirs(os.path.join(directory, PARTS), exist_ok=True)
  files: dict[str, Mapping[str, int | str]] = {}
  named = ((part_name(number), part_bytes(table)) for number, table in enumerate(parts))
  for name, content in itertools.chain(named, [(DESCRIPTION, description.to_json().encode())]):
    storage.write_file(os.path.join(directory, name), content)
    files[name] = digest(content)
  storage.write_file(os.path.join(directory, MANIFEST), manifest_bytes(files))
