"""The description of an index, stored as `index.json` in its directory with its own checksum.

It names the embeddings that the index was built from, by path and by the SHA-256 of their manifest,
and the size and SHA-256 of each of the index's files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from xjepa_jax.errors import SearchIndexError
from xjepa_jax.paths import missing_right

FORMAT = "xjepa_jax index 1"
FILE = "index.json"
REBUILD = "Rebuild it: python -m xjepa_jax.retrieval.index --embeddings {embeddings} --out {out}"
_CHECKSUM = "sha256"  # key of the checksum over the rest of the file


@dataclasses.dataclass(frozen=True)
class IndexDescription:
  """An index.

  Attributes:
    backend: name of the back end.
    requested: settings as requested.
    settings: the same, completed by what the index chose itself.
    embeddings: path of the directory that it was built from, relative to the index's.
    fingerprint: SHA-256 of that directory's manifest.
    count: number of rows.
    dimensions: number of dimensions, K.
    sensors: sorted keys of the sensors that have rows.
    files: name -> "bytes" and "sha256" of each of the index's files.
    versions: versions of the packages that wrote it.
  """

  backend: str
  requested: Mapping[str, Any]
  settings: Mapping[str, Any]
  embeddings: str
  fingerprint: str
  count: int
  dimensions: int
  sensors: tuple[str, ...]
  files: Mapping[str, Mapping[str, Any]]
  versions: Mapping[str, str]

  def to_json(self) -> str:
    """The text of the file, including its checksum."""
    content = {"format": FORMAT, **dataclasses.asdict(self)}
    return json.dumps({**content, _CHECKSUM: _checksum(content)}, indent=1) + "\n"


def read_description(directory: str) -> IndexDescription:
  """Reads the `index.json` of a directory.

  Raises:
    SearchIndexError: there is none, it is damaged, or it is of another version.
  """
  path = os.path.join(directory, FILE)
  rebuild = REBUILD.format(embeddings="EMBEDDINGS", out=directory)
  try:
    with open(path, encoding="utf-8") as file:
      content = json.load(file)
    checksum, found = content.pop(_CHECKSUM), content["format"]
  except FileNotFoundError:
    raise SearchIndexError(
      f"{directory}: has no {FILE}, so it is no index, or building it was interrupted. {rebuild}"
    ) from None
  except PermissionError as error:
    raise missing_right(path) from error
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise SearchIndexError(
      f"{path}: cannot be read ({type(error).__name__}: {error}). {rebuild}"
    ) from error
  if checksum != _checksum(content):
    raise SearchIndexError(f"{path}: has other bytes than were written. {rebuild}")
  if found != FORMAT:
    raise SearchIndexError(f"{path}: format {found!r}, expected {FORMAT!r}. {rebuild}")
  content.pop("format")
  return IndexDescription(**{**content, "sensors": tuple(content["sensors"])})


def embeddings_directory(directory: str, description: IndexDescription) -> str:
  """The path of the embeddings that the index in `directory` was built from."""
  return os.path.normpath(os.path.join(directory, description.embeddings))


def _checksum(content: Mapping[str, Any]) -> str:
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
