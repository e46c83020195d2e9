"""A searchable archive: its index, its embeddings, and the encoder that made them.

The three are stored separately and may be replaced independently, so they are checked against each
other: the index names the embeddings that it was built from, the embeddings name their encoder, and
every answer first checks that the files are still those that were opened. Rows of one archive are
never combined with vectors of another.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import shapely

from xjepa_jax.data.description import describe
from xjepa_jax.errors import ChangedError, SearchError, XJepaError
from xjepa_jax.export import LoadedEncoder, load_encoder
from xjepa_jax.paths import StrPath
from xjepa_jax.retrieval.confidence import from_json
from xjepa_jax.retrieval.embedding.files import EmbeddingFiles, open_embeddings
from xjepa_jax.retrieval.embedding.manifest import (
  MANIFEST,
  KnownFile,
  check_unchanged,
  file_sha256,
)
from xjepa_jax.retrieval.indexes.base import Filter, Index
from xjepa_jax.retrieval.indexes.description import FILE, embeddings_directory, read_description
from xjepa_jax.retrieval.indexes.directory import open_index
from xjepa_jax.retrieval.indexes.filters import FilterColumns
from xjepa_jax.retrieval.searching.answers import Answer, Hit, Query
from xjepa_jax.retrieval.searching.feedback import combine
from xjepa_jax.retrieval.searching.pictures import TilePictures
from xjepa_jax.retrieval.searching.places import row_at
from xjepa_jax.retrieval.searching.query_image import read_query
from xjepa_jax.sensors import Sensor


def open_searcher(
  index_directory: StrPath,
  encoder_directory: StrPath | None = None,
  embeddings: StrPath | None = None,
  verify: bool = False,
) -> Searcher:
  """Open an index with the embeddings that it was built from.

  Manifests, sizes and the index's bytes are compared now; a part's bytes before it is first read.

  Args:
    index_directory: the output of `python -m xjepa_jax.retrieval.index`.
    encoder_directory: the encoder that made the embeddings, needed for queries by image and for
      confidences. None takes the one that the embeddings name; if that cannot be loaded, queries by
      id and place still work, and `without_encoder` says why.
    embeddings: the embeddings of the index, if they have been moved.
    verify: compare the bytes of all parts now.

  Raises:
    XJepaError: something is damaged, or the parts do not belong together.
  """
  index_directory = os.fspath(index_directory)
  embeddings = None if embeddings is None else os.fspath(embeddings)
  description = read_description(index_directory)
  # Recorded before the index is opened, so that a replacement in between is noticed.
  known = KnownFile(os.path.join(index_directory, FILE))
  index = open_index(index_directory, embeddings)
  described = embeddings_directory(index_directory, description)
  files = open_embeddings(embeddings or described, parts_now=verify)
  if files.fingerprint != description.fingerprint:  # replaced after the index was opened
    raise ChangedError(
      f"{files.directory}: has changed while {index_directory} was opened: start again."
    )
  if encoder_directory is not None:
    return Searcher(index, files, _that_made(files, os.fspath(encoder_directory)), known)
  named = files.description.encoder.get("path")
  if not named:
    return Searcher(index, files, None, known, f"{files.directory}: names no encoder.")
  try:
    return Searcher(index, files, _that_made(files, named), known)
  except XJepaError as error:
    return Searcher(index, files, None, known, str(error))


class Searcher:
  """Answers queries.

  Attributes:
    index: finds rows by vector.
    files: the embeddings, which describe the rows.
    encoder: encodes query images, or None; then only tiles of the archive can be queries.
    without_encoder: why there is no encoder, or "".

  Args:
    description: the index's own description file, which names all its other files.
  """

  def __init__(
    self,
    index: Index,
    files: EmbeddingFiles,
    encoder: LoadedEncoder | None,
    description: KnownFile,
    without_encoder: str = "",
  ):
    self.index = index
    self.files = files
    self.encoder = encoder
    self.without_encoder = without_encoder
    self._description = description

  def check_unchanged(self) -> None:
    """Check that the index and the embeddings have not been replaced since they were opened.

    Raises:
      ChangedError: one of them has.
    """
    check_unchanged(self._description, os.path.dirname(self._description.path))
    self.files.check_unchanged()

  @property
  def sensors(self) -> tuple[str, ...]:
    """The sensors of the archive."""
    return self.files.description.sensors

  def answer(self, queries: Sequence[Query], k: int, filter: Filter | None = None) -> list[Answer]:
    """Return, for every query, the k best rows of the archive that pass the filter.

    Args:
      queries: the queries; their own rows are not returned.
      k: largest number of hits per query.
      filter: by sensor, place, time and labels; None lets everything pass.

    Raises:
      SearchError: a query or the filter does not fit this archive, or k is not positive.
      ChangedError: the archive was replaced since it was opened.
    """
    self.check_unchanged()
    if k < 1:
      raise SearchError(f"k is {k}; ask for at least one hit.")
    if not queries:
      return []
    # Search for more than k, because a query's own rows are found too and are dropped later.
    own = max(len(query.rows) for query in queries)
    found = self.index.search(np.stack([query.vector for query in queries]), k + own, filter)
    among = self.count(filter)
    return [
      self._answer(query, rows, scores, k, filter, among)
      for query, rows, scores in zip(queries, found.rows, found.scores, strict=True)
    ]

  def count(self, filter: Filter | None) -> int:
    """Return the number of rows that pass a filter."""
    if filter is None or filter.passes_all():
      return len(self.files)
    mask = self.columns.mask(filter)
    return len(self.files) if mask is None else int(mask.sum())

  @functools.cached_property
  def shown(self) -> Mapping[str, Sensor]:
    """The sensors' display: from the encoder, or without one from the data set of pairs."""
    if self.encoder is not None:
      return {key: given.sensor for key, given in self.encoder.inputs.items()}
    source = self.files.description.source
    if source.get("kind") != "pairs":
      return {}
    try:
      return dict(describe(source["path"]).format.sensors)
    except XJepaError:
      return {}

  @functools.cached_property
  def pictures(self) -> TilePictures:
    """Pictures of the archive's tiles; crossed out where the sensor's display is unknown."""
    return TilePictures(self.files, self.shown)

  @property
  def columns(self) -> FilterColumns:
    """The filtered columns of every row: the index's, with its cached masks, where it has them."""
    held = getattr(self.index, "columns", None)
    return held if isinstance(held, FilterColumns) else self._own_columns

  @functools.cached_property
  def _own_columns(self) -> FilterColumns:
    return FilterColumns().with_rows_of(self.files)

  def query_of_rows(self, like: Sequence[int], unlike: Sequence[int] = ()) -> Query:
    """Return a query for tiles like some rows of the archive and unlike others.

    Raises:
      SearchError: there is no such row, or the examples cancel one another.
    """
    rows = (*like, *unlike)
    outside = [row for row in rows if not 0 <= row < len(self.files)]
    if outside:
      raise SearchError(f"row {outside[0]}: the archive has rows 0 to {len(self.files) - 1}.")
    vectors = self.files.vectors_of(rows)
    entries = self.files.take(like)
    sensors = {entry["sensor"] for entry in entries}
    title = ", ".join(dict.fromkeys(entry["id"] for entry in entries[:3]))
    more = f" and {len(like) - 3} more" if len(like) > 3 else ""
    return Query(
      title=title + more + (f", unlike {len(unlike)}" if unlike else ""),
      sensor=sensors.pop() if len(sensors) == 1 else "",
      vector=combine(vectors[: len(like)], vectors[len(like) :]),
      rows=tuple(rows),
      mixed=len(rows) > 1,
    )

  def query_of_id(self, id: str, sensor: str | None = None) -> Query:
    """Return a query by the id of a tile of the archive.

    Raises:
      SearchError: no tile has the id, or tiles of several sensors have it and none was named.
    """
    rows = self.files.find(id, sensor)
    of = f" of sensor {sensor!r}" if sensor else ""
    if not rows:
      raise SearchError(f"no tile{of} has the id {id!r} in {self.files.directory}.")
    if len(rows) > 1:
      found = sorted({str(entry["sensor"]) for entry in self.files.take(rows)})
      raise SearchError(
        f"{len(rows)} tiles{of} have the id {id!r}, of {', '.join(found)}: name the query's sensor."
      )
    return self.query_of_rows(rows)

  def query_of_place(self, longitude: float, latitude: float, sensor: str | None = None) -> Query:
    """Return a query by the tile at a place, in degrees of EPSG:4326.

    Raises:
      SearchError: the coordinates are out of range, no tile contains the place, or tiles of several
        sensors do and none was named.
    """
    mask = self.columns.mask(Filter(sensors=(sensor,)) if sensor else None)
    rows = np.arange(len(self.files)) if mask is None else np.flatnonzero(mask)
    longitudes, latitudes = self.columns.centres
    row = row_at(self.files, longitude, latitude, rows, longitudes[rows], latitudes[rows])
    return self.query_of_rows([row])

  def query_of_image(
    self,
    path: StrPath,
    sensor: str | None = None,
    offset: float | None = None,
    trust_units: bool = False,
    told: Mapping[str, Sequence[str]] | None = None,
    nodata: Mapping[str, float | None] | None = None,
  ) -> Query:
    """Return a query by an image file; see `query_image.read_query`.

    Raises:
      SearchError: there is no encoder, or the file fits none of its sensors or is in other units.
      ImageError: the file cannot be read.
    """
    path = os.fspath(path)
    if self.encoder is None:
      why = f" {self.without_encoder}" if self.without_encoder else ""
      raise SearchError(
        f"{path}: to ask with an image, name the encoder that made the embeddings: --encoder.{why}"
      )
    image = read_query(path, self.encoder.inputs, sensor, offset, trust_units, told, nodata)
    head = self.files.description.encoder["head"]
    # The values were judged by `read_query`, as the user wished, so they are not judged again.
    (vector,) = self.encoder.describe({image.sensor: image.values[None]}, head, trust_units=True)
    notes = f" ({'; '.join(image.notes)})" if image.notes else ""
    return Query(os.path.basename(path) + notes, image.sensor, vector, image=image.values)

  def _answer(
    self,
    query: Query,
    rows: np.ndarray,
    scores: np.ndarray,
    k: int,
    filter: Filter | None,
    among: int,
  ) -> Answer:
    # An index fills up with -1 where fewer rows pass the filter.
    kept = (rows >= 0) & ~np.isin(rows, query.rows)
    rows, scores = rows[kept][:k], scores[kept][:k]
    entries = self.files.take(rows)
    worth = self._confidence(query, entries, scores, filter)
    hits = tuple(
      _hit(rank, entry, float(score), confidence)
      for rank, (entry, score, confidence) in enumerate(zip(entries, scores, worth, strict=True), 1)
    )
    return Answer(query, hits, among)

  def _confidence(
    self,
    query: Query,
    entries: Sequence[Mapping[str, Any]],
    scores: np.ndarray,
    filter: Filter | None,
  ) -> list[float | None]:
    """Return confidences of hits of other sensors than the query's, where fitted, or None.

    They were fitted on queries by one image; scores of several examples together mean something
    else.
    """
    found: list[float | None] = [None] * len(entries)
    if self.encoder is None or query.mixed:
      return found
    fitted = self.encoder.description.get("confidence", {}).get(
      self.files.description.encoder["head"], {}
    )
    for sensor in {entry["sensor"] for entry in entries}:
      described = fitted.get(f"{query.sensor}->{sensor}")
      if described is None:
        continue
      direction = from_json(described)
      places = [place for place, entry in enumerate(entries) if entry["sensor"] == sensor]
      # The probability depends on how many scenes of this sensor compete under the filter.
      answers = self.count(dataclasses.replace(filter or Filter(), sensors=(sensor,)))
      for place, value in zip(places, direction.of(scores[places], answers), strict=True):
        found[place] = float(value)
    return found


def _that_made(files: EmbeddingFiles, directory: str) -> LoadedEncoder:
  """Load the encoder in a directory, if it made the embeddings.

  Raises:
    ExportError, RightsError: it cannot be loaded.
    SearchError: it is a different encoder.
  """
  named = files.description.encoder
  encoder = load_encoder(directory)
  found = file_sha256(os.path.join(directory, MANIFEST))
  if found != named["sha256"]:
    raise SearchError(
      f"{directory}: is not the encoder that made {files.directory} ({named['name']}, manifest "
      f"{named['sha256'][:12]}; found {found[:12]}). Name that one, or embed the archive again."
    )
  return encoder


def _hit(rank: int, entry: Mapping[str, Any], score: float, confidence: float | None) -> Hit:
  footprint = entry.get("footprint")
  return Hit(
    rank=rank,
    row=int(entry["row"]),
    id=entry["id"],
    sensor=entry["sensor"],
    score=score,
    confidence=confidence,
    longitude=entry["centre_lon"],
    latitude=entry["centre_lat"],
    footprint=shapely.geometry.mapping(shapely.from_wkb(footprint)) if footprint else None,
    time=entry["datetime"],
    source=entry["source"],
    window=entry["window"],
    labels=tuple(entry["labels"] or ()),
    valid_fraction=entry["valid_fraction"],
  )
