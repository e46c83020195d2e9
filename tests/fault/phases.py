"""What a run is doing, by the files that it opens, writes and names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from tests.fault.watching import Event

RUN, PAIRS = "run", "pairs"  # folders of a run and of its data set, below the one that is watched
IMPORT, REPORT = "import", "report"
PHASES = (IMPORT, "restore", "steps", "save", "evaluation", REPORT, "first step", "start")
_CHECKPOINT = re.compile(rf"{RUN}/checkpoints/(\d+)")
_SHARD = re.compile(rf"{PAIRS}/\w+-(train|validation|test)\.tfrecord-\d+-of-\d+")


def is_beside_the_point(path: str) -> bool:
  """Folders that need not be watched: what is in a checkpoint being saved, and such."""
  within = path.removeprefix(f"{RUN}/")
  if within.startswith("checkpoints/"):
    return not _CHECKPOINT.fullmatch(path)
  return within.startswith(("tensorboard", "compiled", "report", "encoder", "logs"))


class Phase:
  """The phase of one process, from its start.

  A save goes on beside steps, and counts while its directory has a temporary name; an evaluation
  that begins meanwhile is still that save. An evaluation may come before the first step, which
  ends when its loss is written. What follows the last validation is the report.
  """

  def __init__(self) -> None:
    self._doing = "start"
    self._stepped = False
    self._saving: set[str] = set()

  @property
  def name(self) -> str:
    return "save" if self._saving else self._doing

  def follow(self, events: list[Event]) -> Iterator[str]:
    """Takes note of events; yields the phase after each."""
    for kind, path in events:
      self._note(kind, path)
      yield self.name

  def _note(self, kind: str, path: str) -> None:
    folder, name = os.path.split(path)
    if folder == f"{RUN}/checkpoints":
      if kind == "made" and "tmp" in name:
        self._saving.add(name.partition(".")[0])
      elif kind == "named":
        self._saving.discard(name)
    elif kind == "made" and path.startswith(f"{PAIRS}/.partial"):
      self._doing = IMPORT
    elif kind == "named" and path == f"{PAIRS}/dataset_info.json":
      self._doing = "start"
    elif kind == "opened" and self._doing == "start" and _CHECKPOINT.fullmatch(folder):
      self._doing = "restore"
    elif path == f"{RUN}/metrics.jsonl":
      if self._doing == "restore":
        self._doing = "start"
      elif kind == "written" and self._doing in ("first step", "evaluation"):
        self._stepped = self._stepped or self._doing == "first step"
        self._doing = "steps" if self._stepped else "first step"
    elif kind == "opened" and (shard := _SHARD.fullmatch(path)):
      self._open_shard(shard[1])

  def _open_shard(self, split: str) -> None:
    if split == "test":
      self._doing = REPORT
    elif self._doing != REPORT and split == "validation":
      self._doing = "evaluation"
    elif self._doing in ("start", "restore"):
      self._doing = "first step"
