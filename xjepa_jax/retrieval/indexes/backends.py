"""The four back ends by name, and the conversion of JSON settings to theirs.

Back ends are imported only when one is made, so that --help is fast and only the packages of the
back end in use have to be installed.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Mapping
from typing import Any

from xjepa_jax.errors import SearchIndexError, did_you_mean
from xjepa_jax.retrieval.indexes.base import Index

# name -> module, index class, settings class; imported on demand.
BACKENDS = {
  "exact": ("exact", "ExactIndex", "ExactSettings"),
  "faiss": ("faiss_index", "FaissIndex", "FaissSettings"),
  "qdrant": ("qdrant_index", "QdrantIndex", "QdrantSettings"),
  "pgvector": ("pgvector_index", "PgvectorIndex", "PgvectorSettings"),
}
# name -> presets, the default first; a test checks that the modules have the same.
PRESETS = {
  "exact": ("exact", "approximate"),
  "faiss": ("rabitq7", "sq8", "rabitq", "flat"),
  "qdrant": ("hnsw", "int8", "exact"),
  "pgvector": ("hnsw", "exact"),
}


def make_index(backend: str, settings: Mapping[str, Any]) -> Index:
  """Makes an empty index.

  Args:
    backend: a key of `BACKENDS`.
    settings: the settings that differ from the defaults of the class.

  Raises:
    SearchIndexError: a setting is unknown or of the wrong type, or a package is missing.
  """
  module, index_class, settings_class = _classes(backend)
  kind = getattr(module, settings_class)
  fields = {field.name: field for field in dataclasses.fields(kind)}
  for name, value in settings.items():
    if name not in fields:
      raise SearchIndexError(
        f"the back end {backend} has no setting {name!r}; there are {', '.join(fields)}."
        + did_you_mean(name, fields)
      )
    field = fields[name]
    factory = field.default_factory
    default = field.default if factory is dataclasses.MISSING else factory()
    # An integer may stand for a float. Otherwise types are compared exactly, because a bool is an
    # int in Python.
    number = isinstance(default, float) and type(value) is int
    if not number and type(value) is not type(default):
      raise SearchIndexError(
        f"setting {name!r} of the back end {backend} is {value!r}; expected a "
        f"{type(default).__name__} such as {json.dumps(default)}."
      )
  index: Index = getattr(module, index_class)(kind(**settings))
  return index


def preset_settings(backend: str, preset: str | None) -> dict[str, Any]:
  """All settings of a preset; None selects the back end's first.

  Raises:
    SearchIndexError: there is no preset of that name.
  """
  presets = _classes(backend)[0].PRESETS
  preset = preset or next(iter(presets))
  if preset not in presets:
    raise SearchIndexError(
      f"the back end {backend} has no preset {preset!r}; there are {', '.join(presets)}."
    )
  return dataclasses.asdict(presets[preset])


def _classes(backend: str) -> tuple[Any, str, str]:
  if backend not in BACKENDS:
    raise SearchIndexError(f"no back end {backend!r}; there are {', '.join(BACKENDS)}.")
  module, index_class, settings_class = BACKENDS[backend]
  return importlib.import_module(f"{__package__}.{module}"), index_class, settings_class
