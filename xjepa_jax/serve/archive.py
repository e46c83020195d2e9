"""The archive as the page sees it: what it holds, its tiles' pictures, and answers to queries.

Requests are served from several threads, but an index and its files serve one query at a time, so
everything that touches them takes one lock.
"""

from __future__ import annotations

import functools
import io
import logging
import os
import threading
from collections.abc import Sequence

import numpy as np
from PIL import Image

from xjepa_jax.data.pictures import picture
from xjepa_jax.errors import ChangedError, SearchError, XJepaError
from xjepa_jax.retrieval.indexes.base import Filter
from xjepa_jax.retrieval.searching.answers import Answer, Query
from xjepa_jax.retrieval.searching.feedback import combine
from xjepa_jax.retrieval.searching.searcher import Searcher
from xjepa_jax.serve.asking import Question
from xjepa_jax.serve.ground import Ground, spread
from xjepa_jax.serve.space import Plane, plane
from xjepa_jax.serve.tiles import Json, tile_json

_LOG = logging.getLogger(__name__)
_SIDE = 256  # pixels; the longest side of a picture
_UNKNOWN = 190  # grey level for a sensor that nothing says how to show
_PICTURES = 1024  # pictures kept in memory, a few kB each


class Archive:
  """A searcher, and what else the page needs; safe to use from several threads."""

  def __init__(self, searcher: Searcher):
    self.searcher = searcher
    self.files = searcher.files
    self.ground = Ground(searcher.files)
    self._pictures = searcher.pictures
    self._lock = threading.Lock()  # an index and its files serve one query at a time
    self._kept = functools.lru_cache(_PICTURES)(self._found)

  @property
  def version(self) -> str:
    """Changes with the archive, so an address that contains it may be cached for ever."""
    return self.files.fingerprint[:16]

  @property
  def sensors(self) -> tuple[str, ...]:
    """The sensors of the archive."""
    return self.searcher.sensors

  def summary(self) -> str:
    """Return a line for the terminal."""
    placed = "" if self.ground.bounds else ", without coordinates"
    found = f"{len(self.files):,} tiles of {', '.join(self.sensors)}{placed}"
    if self.searcher.encoder is None:
      found += f"; nothing can be uploaded, for {self.searcher.without_encoder}"
    return found

  def describe(self) -> Json:
    """Return what the page has to know before it shows anything."""
    description = self.files.description
    encoder = self.searcher.encoder
    return {
      "count": len(self.files),
      "sensors": list(self.sensors),
      "bounds": self.ground.bounds,
      "dated": self._dated,
      "dimensions": description.dimensions,
      "encoder": description.encoder.get("name", ""),
      "head": description.encoder.get("head", ""),
      "name": os.path.basename(str(description.source.get("path", "")).rstrip("/")),
      "version": self.version,
      "uploads": list(encoder.inputs) if encoder else [],
    }

  def tiles(self, rows: Sequence[int] | np.ndarray) -> list[Json]:
    """Return tiles by row number.

    Raises:
      SearchError: there is no such row.
    """
    for row in rows:
      self._check(row)
    with self._lock:
      entries = self.files.take(rows)
    return [tile_json(entry) for entry in entries]

  def views(self, row: int) -> list[Json]:
    """Return all tiles that share a tile's id, that tile first.

    Raises:
      SearchError: there is no such row.
    """
    (tile,) = self.tiles([row])
    others = [other for other in self.ground.rows_of_place(row) if other != row]
    return [tile, *self.tiles(others[:32])]

  def start(self, count: int, sensor: str = "", turn: int = 0) -> list[Json]:
    """Return tiles to start from, spread over the archive; different ones for every `turn`.

    Raises:
      SearchError: the archive has no such sensor.
    """
    if sensor and sensor not in self.sensors:
      raise SearchError(f"sensor {sensor!r}: the archive has {', '.join(self.sensors)}.")
    mask = self.searcher.columns.mask(Filter(sensors=(sensor,)) if sensor else None)
    rows = np.arange(len(self.files)) if mask is None else np.flatnonzero(mask)
    return self.tiles(rows[spread(len(rows), count, turn)])

  def ask(self, question: Question, upload: Query | None = None) -> Answer:
    """Answer a question; `upload` is the query of the upload that it names, if any.

    Raises:
      SearchError: it cannot be answered.
    """
    with self._lock:
      query = self._query(question, upload)
      filter = question.filter(self.sensors, query.sensor)
      return self.searcher.answer([query], question.k, filter)[0]

  def query_of_upload(
    self,
    path: str,
    sensor: str | None = None,
    offset: float | None = None,
    trust_units: bool = False,
  ) -> tuple[Query, bytes]:
    """Return an image file's query, and its picture as PNG; for the arguments see `read_query`.

    Raises:
      XJepaError: the file cannot be read or does not fit the encoder, or there is no encoder.
    """
    encoder = self.searcher.encoder
    if encoder is None:
      raise SearchError("nothing can be uploaded: the encoder of this archive is not there.")
    with self._lock:
      query = self.searcher.query_of_image(path, sensor, offset, trust_units)
    assert query.image is not None
    return query, _png(picture(encoder.inputs[query.sensor].sensor, query.image))

  @functools.cached_property
  def plane(self) -> Plane:
    """The descriptor space projected onto a plane."""
    with self._lock:
      return plane(self.files, self.ground.places)

  def plane_json(self) -> Json:
    """Return the plane as JSON: per row a point, with its id and the number of its sensor."""
    shown = self.plane
    tiles = self.tiles(shown.rows)
    numbers = {sensor: number for number, sensor in enumerate(self.sensors)}
    return {
      "share": round(shown.share, 4),
      "points": [
        [tile["row"], round(float(x), 4), round(float(y), 4), numbers[tile["sensor"]], tile["id"]]
        for tile, (x, y) in zip(tiles, shown.points, strict=True)
      ],
    }

  def warm(self) -> None:
    """Run one query, so that the first user does not wait for compilation."""
    if len(self.files):
      self.ask(Question(like=(0,)))

  def close(self) -> None:
    """Close files."""
    self._pictures.close()
    self.searcher.index.close()

  def draw(self, row: int) -> bytes:
    """Return a tile as PNG, crossed out where its image no longer exists.

    Raises:
      ChangedError: its image is not the one that its vector was computed from.
      SearchError: there is no such row.
    """
    try:
      return self._found(row)
    except (ChangedError, SearchError):
      raise
    except XJepaError:
      return self._crossed_out(row)

  def picture(self, row: int) -> tuple[bytes, bool]:
    """Return a tile as PNG from the cache, and whether it shows the tile's image.

    It does not if the image no longer exists or is a different one; the tile is then crossed out.

    Raises:
      SearchError: there is no such row.
    """
    try:
      return self._kept(row), True
    except SearchError:
      raise
    except XJepaError as error:
      _LOG.warning("no picture of %s", error)
      return self._crossed_out(row), False

  def _found(self, row: int) -> bytes:
    self._check(row)
    with self._lock:
      (entry,) = self.files.take([row])
      if entry["sensor"] not in self.searcher.shown:
        return _png(np.full((64, 64, 3), _UNKNOWN, np.uint8))
      return _png(self._pictures.found(row))

  def _crossed_out(self, row: int) -> bytes:
    with self._lock:
      return _png(self._pictures.crossed_out(row))

  def _check(self, row: int) -> None:
    """Check a row before it becomes a 64-bit number, in which not every requested row fits."""
    if not 0 <= row < len(self.files):
      raise SearchError(f"there is no such tile: row {row} of {len(self.files):,}.")

  def _query(self, question: Question, upload: Query | None) -> Query:
    if upload is None:
      return self.searcher.query_of_rows(question.like, question.unlike)
    if not (question.like or question.unlike):
      return upload
    rows = (*question.like, *question.unlike)
    for row in rows:
      self._check(row)
    unlike = self.files.vectors_of(question.unlike) if question.unlike else None
    positive = np.stack([upload.vector, *self.searcher.files.vectors_of(question.like)])
    entries = self.files.take(question.like)
    same = all(entry["sensor"] == upload.sensor for entry in entries)
    vector = combine(positive, unlike)
    return Query(upload.title, upload.sensor if same else "", vector, rows, mixed=True)

  @functools.cached_property
  def _dated(self) -> bool:
    for table in self.files.tables(columns=["datetime"]):
      if table["datetime"].null_count < len(table):
        return True
    return False


def _png(values: np.ndarray) -> bytes:
  image = Image.fromarray(np.ascontiguousarray(values, np.uint8))
  if max(image.size) > _SIDE:
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
  file = io.BytesIO()
  image.save(file, "PNG")
  return file.getvalue()
