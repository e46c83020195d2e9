"""The page as static files: the same page, its pictures, and hits that were found beforehand.

index.html, page/       the page
archive.json            as the server has it, and which tiles can be asked with
all-tiles.json          every tile that is shown
pictures/ROW.png
hits/ROW.json           sensor -> [row, score, confidence] of its best, best first
plane.json              the descriptor space on a plane
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

from xjepa_jax.errors import WriteError
from xjepa_jax.paths import StrPath
from xjepa_jax.serve.archive import Archive
from xjepa_jax.serve.asking import Question
from xjepa_jax.serve.ground import spread
from xjepa_jax.serve.page_files import INDEX, PAGE, page_files, vendored


@dataclasses.dataclass(frozen=True)
class Exported:
  """What was written: tiles shown, tiles with their hits, and bytes."""

  tiles: int
  queries: int
  bytes: int


def export_page(archive: Archive, directory: StrPath, queries: int | None, k: int) -> Exported:
  """Writes the page for a server of files.

  Args:
    archive: that is shown.
    directory: new, or empty.
    queries: tiles that can be asked with, spread over the archive; None for all.
    k: hits of each, of every sensor.

  Raises:
    WriteError: the directory has something in it, or cannot be written.
    SearchError: a tile cannot be asked with.
  """
  directory = os.fspath(directory)
  if os.path.isdir(directory) and os.listdir(directory):
    raise WriteError(f"{directory}: is not empty. Name a new directory.")
  out = _Output(directory)
  rows = _asked(archive, queries)
  shown = set(rows)
  for row in rows:
    hits = {sensor: _hits(archive, row, sensor, k) for sensor in archive.sensors}
    shown.update(hit[0] for found in hits.values() for hit in found)
    out.json(f"hits/{row}.json", hits)
  tiles = sorted(shown)
  for row in tiles:
    out.write(f"pictures/{row}.png", archive.draw(row))
  out.json("all-tiles.json", archive.tiles(tiles))
  plane = archive.plane_json()
  plane["points"] = [point for point in plane["points"] if point[0] in shown]
  out.json("plane.json", plane)
  for path in page_files():
    out.copy(path, f"page/{path}")
  out.copy(INDEX, INDEX)
  still = {"live": False, "vendored": vendored(), "queries": rows, "uploads": []}
  out.json("archive.json", {**archive.describe(), **still, "count": len(tiles), "k": k})
  return Exported(len(tiles), len(rows), out.bytes)


def _asked(archive: Archive, most: int | None) -> list[int]:
  """Whole places, so that a scene can be asked for from each of its sensors."""
  places = archive.ground.places
  count = len(archive.files)
  if most is None or most >= count:
    return list(range(count))
  taken = spread(len(places), max(round(len(places) * most / count), 1))
  found: list[int] = places.rows_of(taken).tolist()
  return found


def _hits(archive: Archive, row: int, sensor: str, k: int) -> list[list[Any]]:
  answer = archive.ask(Question(like=(row,), sensor=sensor, k=k))
  return [
    [hit.row, round(hit.score, 4), None if hit.confidence is None else round(hit.confidence, 4)]
    for hit in answer.hits
  ]


class _Output:
  """A directory that is written, and how many bytes it has."""

  def __init__(self, directory: str):
    self._directory = directory
    self.bytes = 0

  def write(self, name: str, content: bytes) -> None:
    path = os.path.join(self._directory, *name.split("/"))
    try:
      os.makedirs(os.path.dirname(path), exist_ok=True)
      with open(path, "wb") as file:
        file.write(content)
    except OSError as error:
      raise WriteError(f"{path}: cannot be written ({error.strerror}).") from error
    self.bytes += len(content)

  def json(self, name: str, content: Any) -> None:
    text = json.dumps(content, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    self.write(name, text.encode())

  def copy(self, name: str, to: str) -> None:
    with open(os.path.join(PAGE, *name.split("/")), "rb") as file:
      self.write(to, file.read())
