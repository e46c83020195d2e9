"""Tracks which parts of a directory are finished, with one record per part written after the part.

A part counts as finished if its record is readable and intact (it holds a SHA-256 of the rest of
itself), and if the part's bytes match those that the record states. Records are kept when the
directory is complete, so that of all parts only one that is damaged later is computed again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from xjepa_jax.data.storage import writing_failed
from xjepa_jax.data.unicode_names import shown
from xjepa_jax.errors import EmbeddingError
from xjepa_jax.retrieval.embedding.items import Item, LeftOut
from xjepa_jax.retrieval.embedding.manifest import PARTS, digest, file_sha256, part_name
from xjepa_jax.retrieval.embedding.part import open_part
from xjepa_jax.retrieval.embedding.plan import differences, in_words, of_the_archive

RECORDS = "records"
_SETTINGS = f"{RECORDS}/settings.json"
# Writes are repeated if another process, sweeping at the end, removed the temporary file.
_TRIES = 3


@dataclasses.dataclass(frozen=True)
class PartRecord:
  """The record of a finished part.

  Attributes:
    file: size and SHA-256 of the part.
    rows: number of rows.
    bounds: west, south, east, north, or None.
    times: first and last time, ISO 8601, or None.
    left_out: the part's tiles that have no row.
  """

  file: Mapping[str, int | str]
  rows: int
  bounds: tuple[float, float, float, float] | None
  times: tuple[str, str] | None
  left_out: tuple[LeftOut, ...]


def record_name(number: int) -> str:
  """Path of a record within the directory."""
  return f"{RECORDS}/part-{number:05d}.json"


class Progress:
  """The state of an output directory, which several processes may be writing.

  Args:
    directory: created if missing.
    settings: settings of this command.
    process: number of this process, used in the names of unfinished files.
    images: images of the archive, to name those that changed since the directory was begun.

  Raises:
    EmbeddingError: the directory holds something else, or embeddings with other settings or of
      other images.
    WriteError: it cannot be created.
  """

  def __init__(
    self,
    directory: str,
    settings: Mapping[str, Any],
    process: int,
    images: Sequence[Item] = (),
  ):
    self.directory = directory
    self._process = process
    try:
      self._claim(settings, images)
    except OSError as error:
      raise writing_failed(directory, error) from error

  def path(self, name: str) -> str:
    """Path of a file in the directory."""
    return os.path.join(self.directory, name)

  def write(self, name: str, content: bytes) -> None:
    """Writes a file atomically, replacing anything that a killed process left behind.

    Raises:
      OSError: it cannot be written.
    """
    path = self.path(name)
    head, tail = os.path.split(path)
    temporary = os.path.join(head, f".{tail}.{self._process}.tmp")
    for trial in range(_TRIES):
      with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
      try:
        os.replace(temporary, path)
        return
      except FileNotFoundError:  # another process finished just now, and its sweep removed the file
        if trial == _TRIES - 1:
          raise

  def finish_part(self, number: int, content: bytes, record: PartRecord) -> None:
    """Writes a part, and then its record."""
    self.write(part_name(number), content)
    # The record is written after the part, so it never names one that is missing.
    described = {**dataclasses.asdict(record), "file": digest(content)}
    described["sha256"] = _checksum(described)
    self.write(record_name(number), (json.dumps(described, indent=1) + "\n").encode())

  def finished(self, number: int) -> PartRecord | None:
    """The record of a part whose bytes match it, or None."""
    record = self.record(number)
    if record is None:
      return None
    with contextlib.suppress(OSError):
      path = self.path(part_name(number))
      if (
        os.path.getsize(path) == record.file["bytes"] and file_sha256(path) == record.file["sha256"]
      ):
        return record
    return None

  def record(self, number: int) -> PartRecord | None:
    """The intact record of a part, without looking at the part's bytes; None if there is none."""
    try:
      with open(self.path(record_name(number)), encoding="utf-8") as file:
        content = json.load(file)
      if content.pop("sha256") != _checksum(content):
        return None
      return PartRecord(
        file=dict(content["file"]),
        rows=int(content["rows"]),
        bounds=tuple(content["bounds"]) if content["bounds"] else None,
        times=tuple(content["times"]) if content["times"] else None,
        left_out=tuple(LeftOut(**each) for each in content["left_out"]),
      )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
      return None

  def sweep(self, parts: int) -> None:
    """Removes leftovers of killed processes; to be called when all parts are finished."""
    expected = {
      PARTS: {os.path.basename(part_name(number)) for number in range(parts)},
      RECORDS: {os.path.basename(record_name(number)) for number in range(parts)}
      | {os.path.basename(_SETTINGS)},
    }
    for folder, names in expected.items():
      for name in set(os.listdir(self.path(folder))) - names:
        _remove(self.path(f"{folder}/{name}"))
    for name in os.listdir(self.directory):
      if name.startswith(".") and name.endswith(".tmp"):
        _remove(self.path(name))

  def release(self) -> None:
    """Gives up a directory without any part yet, so that it can be begun with other settings."""
    made = [*os.listdir(self.path(PARTS)), *os.listdir(self.path(RECORDS))]
    if made != [os.path.basename(_SETTINGS)]:
      return
    _remove(self.path(_SETTINGS))
    for folder in (self.path(PARTS), self.path(RECORDS), self.directory):
      with contextlib.suppress(OSError):
        os.rmdir(folder)

  def settings_digest(self) -> tuple[str, dict[str, int | str]]:
    """Name of the settings file, and its size and SHA-256."""
    with open(self.path(_SETTINGS), "rb") as file:
      return _SETTINGS, digest(file.read())

  def records_digest(self, number: int) -> tuple[str, dict[str, int | str]]:
    """Name of a part's record, and its size and SHA-256."""
    with open(self.path(record_name(number)), "rb") as file:
      return record_name(number), digest(file.read())

  def _claim(self, settings: Mapping[str, Any], images: Sequence[Item]) -> None:
    stored = self._settings()
    if stored is None:
      held = sorted(os.listdir(self.directory)) if os.path.isdir(self.directory) else []
      # A process killed before it wrote the settings leaves empty folders, which may be taken over.
      foreign = [name for name in held if name not in (PARTS, RECORDS)]
      if foreign:
        raise EmbeddingError(
          f"{self.directory}: holds {foreign[0]} and no embeddings of this version that could be "
          "continued. Choose an --out of its own."
        )
      for folder in (PARTS, RECORDS):
        os.makedirs(self.path(folder), exist_ok=True)
      self.write(_SETTINGS, (json.dumps(settings, indent=1, sort_keys=True) + "\n").encode())
      return
    if other := differences(stored, settings):
      if of_the_archive(other):
        raise self._of_other_images(str(settings["archive"]["path"]), images, other)
      raise EmbeddingError(
        f"{self.directory}: holds embeddings made with other settings: {in_words(other)}. Choose "
        "another --out, or the settings it was begun with, or delete it."
      )
    os.makedirs(self.path(PARTS), exist_ok=True)

  def _of_other_images(
    self, archive: str, images: Sequence[Item], other: Mapping[str, tuple[Any, Any]]
  ) -> EmbeddingError:
    """The error for an archive whose images changed since the directory was begun."""
    now = {(each.sensor, each.source): each.digest for each in images}
    then = self._digests()
    changed = [key for key in then if key in now and now[key] != then[key]]
    gone = [key for key in then if key not in now]
    found = []
    if "tiles.count" in other:
      found.append("it had {:,} tiles and has {:,}".format(*other["tiles.count"]))
    for keys, what in ((changed, "are other ones now"), (gone, "are not among them any more")):
      if keys:
        found.append(
          f"{len(keys):,} of the {len(then):,} images whose rows are finished {what}, such as "
          f"{shown(min(keys)[1])}"
        )
    if not found:
      found.append("an image, its place, its time or its labels differ")
    return EmbeddingError(
      f"{self.directory}: was begun with other images than {archive} has now: "
      f"{'; '.join(found)}. Rows of both would be mixed. Put the images of then back, or choose "
      f"them as then (--sensor, --split), or embed all of them again: delete {self.directory}, or "
      "name another --out."
    )

  def _digests(self) -> dict[tuple[str, str], str]:
    """(sensor, source) -> digest of the images whose rows are finished."""
    found: dict[tuple[str, str], str] = {}
    columns = ["sensor", "source", "source_digest"]
    for name in sorted(os.listdir(self.path(PARTS))) if os.path.isdir(self.path(PARTS)) else ():
      # A damaged part is ignored here; it will be computed again, or refused when it is read.
      with contextlib.suppress(OSError, pa.ArrowException, KeyError):
        with open_part(self.path(f"{PARTS}/{name}")) as part:
          rows = part.read(columns=columns).to_pydict()
        pairs = zip(rows["sensor"], rows["source"], strict=True)
        found.update(zip(pairs, rows["source_digest"], strict=True))
    return found

  def _settings(self) -> dict[str, Any] | None:
    try:
      with open(self.path(_SETTINGS), encoding="utf-8") as file:
        content = json.load(file)
    except FileNotFoundError:
      return None
    except (OSError, ValueError) as error:
      raise EmbeddingError(
        f"{self.path(_SETTINGS)}: cannot be read ({error}). Delete {self.directory} and start "
        "again."
      ) from error
    return content if isinstance(content, dict) else {}


def _checksum(record: Mapping[str, Any]) -> str:
  """SHA-256 of a record's content, independent of the JSON layout."""
  return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _remove(path: str) -> None:
  with contextlib.suppress(OSError):
    os.unlink(path)


def bounding(
  bounds: Sequence[tuple[float, float, float, float] | None],
) -> tuple[float, float, float, float] | None:
  """The smallest box that contains all boxes, or None if there is none."""
  known = [each for each in bounds if each is not None]
  if not known:
    return None
  west, south, east, north = zip(*known, strict=True)
  return min(west), min(south), max(east), max(north)
