"""The page as static files: the same page, its pictures, and hits computed in advance.

index.html, page/       the page
archive.json            as from the server, and which tiles can be queried
all-tiles.json          every tile that is shown
pictures/ROW.png
hits/ROW.json           sensor -> [row, score, confidence] of its best hits, best first
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
  """What was written: number of tiles shown, number of tiles with their hits, and bytes."""

  tiles: int
  queries: int
  bytes: int


def export_page(archive: Archive, directory: StrPath, queries: int | None, k: int) -> Exported:
  """Write the page for any static file server.

  Args:
    archive: the archive to show.
    directory: a new or empty directory.
    queries: number of tiles that can be queried, spread over the archive; None for all.
    k: number of hits per tile and sensor.

  Raises:
    WriteError: the directory is not empty, or cannot be written.
    SearchError: a tile cannot be queried.
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
  # Only exported tiles can be opened from the plot.
  plane["points"] = [point for point in plane["points"] if point[0] in shown]
  out.json("plane.json", plane)
  for path in page_files():
    out.copy(path, f"page/{path}")
  out.copy(INDEX, INDEX)
  still = {"live": False, "vendored": vendored(), "queries": rows, "uploads": []}
  out.json("archive.json", {**archive.describe(), **still, "count": len(tiles), "k": k})
  return Exported(len(tiles), len(rows), out.bytes)


def _asked(archive: Archive, most: int | None) -> list[int]:
  """Choose whole places, so that a scene can be queried from each of its sensors."""
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
  """A directory that is being written, and the number of bytes in it."""

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
