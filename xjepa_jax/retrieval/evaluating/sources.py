"""Sources of an evaluation: exported encoders, embedding directories, and other models' files.

All become `SceneVectors`, so that one protocol measures them alike. Given a data set of pairs, its
splits and labels replace those of the source.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Sequence

from xjepa_jax.errors import EvaluationError
from xjepa_jax.paths import user_path
from xjepa_jax.retrieval.evaluating.encoder_vectors import encoder_vectors
from xjepa_jax.retrieval.evaluating.pair_batches import pair_names
from xjepa_jax.retrieval.evaluating.vector_files import Columns, read_vectors
from xjepa_jax.retrieval.scene_vectors import SceneVectors, VectorRows, described_by, gather

# A name has no "/", so that a path with "=" is not taken apart.
_FORM = re.compile(r"(?:(?P<name>[^=/,]+)=)?(?P<paths>.+)", re.DOTALL)
_OF_SENSOR = re.compile(r"(?P<sensor>\w[\w-]*):(?P<path>.+)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Reading:
  """Options for reading sources.

  Attributes:
    pairs: directory of the data set that encoders describe, and that provides splits and labels;
      "" for none.
    splits: splits of the queries and of the archive.
    head: head of encoders; None for their default.
    columns: column names in files.
  """

  pairs: str
  splits: tuple[str, ...]
  head: str | None = None
  columns: Columns = Columns()

  @functools.cached_property
  def known(self) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Pair id -> (split, labels)."""
    return pair_names(self.pairs, self.splits)


@dataclasses.dataclass(frozen=True)
class Source:
  """One source of an evaluation.

  Attributes:
    name: name in the table.
    paths: paths as given.
    kind: "encoder", "embeddings" or "file".
    scenes: its vectors.
    prefixes: lengths that its vectors were trained to be cut to, in addition to the whole.
    taken: description of the file columns that hold the vectors.
  """

  name: str
  paths: tuple[str, ...]
  kind: str
  scenes: SceneVectors
  prefixes: tuple[int, ...] = ()
  taken: str = ""


def read_source(given: str, reading: Reading) -> Source:
  """Reads `[NAME=]PATH[,PATH...]`; a file without a sensor column is given as `SENSOR:PATH`.

  Raises:
    EvaluationError: the paths cannot be combined, or a data set is needed.
    ExportError, EmbeddingError, TableError, DataError: the contents of a path cannot be read.
  """
  match = _FORM.fullmatch(given)
  paths = tuple(user_path(path.strip()) for path in match["paths"].split(",")) if match else ()
  if match is None or not all(paths):
    raise EvaluationError(f"source {given!r}: expected [NAME=]PATH[,PATH...].")
  name = match["name"] or os.path.basename(os.path.normpath(paths[0])) or paths[0]
  kinds = {_kind(path) for path in paths}
  if "encoder" in kinds and len(paths) > 1:
    raise EvaluationError(f"source {given!r}: an encoder stands alone; give each as a source.")
  if kinds == {"encoder"}:
    return _of_encoder(name, paths[0], reading)
  parts = [_rows(path, reading.columns) for path in paths]
  scenes = gather(name, parts)
  if reading.pairs:
    scenes = described_by(scenes, reading.known, name)
  taken = "; ".join(dict.fromkeys(part.taken for part in parts if part.taken))
  kind = "embeddings" if kinds == {"embeddings"} else "file"
  return Source(name, paths, kind, scenes, taken=taken)


def _kind(path: str) -> str:
  if os.path.isfile(os.path.join(path, "encoder.json")):
    return "encoder"
  if os.path.isdir(path):
    return "embeddings"
  return "file"


def _of_encoder(name: str, path: str, reading: Reading) -> Source:
  from xjepa_jax.export import load_encoder

  if not reading.pairs:
    raise EvaluationError(f"{path}: an encoder needs pairs to describe; give --pairs DIRECTORY.")
  encoder = load_encoder(path, predictor=True)
  head = encoder.head if reading.head is None else reading.head
  scenes = encoder_vectors(encoder, reading.pairs, reading.splits, head)
  return Source(name, (path,), "encoder", scenes, encoder.prefixes(head))


def _rows(path: str, columns: Columns) -> VectorRows:
  if _kind(path) == "embeddings":
    return _of_directory(path)
  # The name of an existing file may contain a colon.
  match = None if os.path.exists(path) else _OF_SENSOR.fullmatch(path)
  if match:
    return read_vectors(user_path(match["path"]), columns, match["sensor"])
  return read_vectors(path, columns)


def _of_directory(path: str) -> VectorRows:
  import numpy as np

  from xjepa_jax.retrieval.embedding.files import open_embeddings

  files = open_embeddings(path)
  ids: list[str] = []
  sensors: list[str] = []
  labels: list[tuple[str, ...]] = []
  for table in files.tables(columns=["id", "sensor", "labels"]):
    ids += table.column("id").to_pylist()
    sensors += table.column("sensor").to_pylist()
    labels += [tuple(each or ()) for each in table.column("labels").to_pylist()]
  return VectorRows(ids, sensors, [""] * len(ids), labels, np.asarray(files.vectors()))


def splits_of(pairs: Sequence[tuple[str, str]]) -> tuple[str, ...]:
  """The distinct splits of queries and archive, from (queries, archive) of several protocols."""
  return tuple(dict.fromkeys(split for both in pairs for split in both))
