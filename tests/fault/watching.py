"""What other processes do with files, told by the system as it happens (inotify, Linux alone)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
from collections.abc import Callable
from pathlib import Path

_EVENT = struct.Struct("iIII")  # watch, mask, cookie, bytes of the name that follows
_MODIFY, _MOVED_TO, _OPEN, _CREATE, _IS_DIRECTORY = 0x2, 0x80, 0x20, 0x100, 0x40000000
_KINDS = {_MODIFY: "written", _MOVED_TO: "named", _OPEN: "opened", _CREATE: "made"}
_NONBLOCK = 0o4000
Event = tuple[str, str]  # one of the kinds, and the path below the folder watched


class Watch:
  """Events in a folder and in those below it.

  Files that were there when a new folder was noticed count as made.
  """

  def __init__(self, folder: Path, skip: Callable[[str], bool] = lambda path: False):
    """Begins to watch.

    Args:
      folder: that is there.
      skip: whether to leave out a folder, by its path below that one; those below it too.
    """
    self._system = ctypes.CDLL(None, use_errno=True)
    self._descriptor = self._system.inotify_init1(_NONBLOCK)
    if self._descriptor < 0:
      raise OSError(ctypes.get_errno(), "inotify_init1")
    self._folder = folder
    self._skip = skip
    self._places: dict[int, str] = {}
    self._made: list[Event] = []
    self._add("")
    self._made.clear()

  def events(self, seconds: float) -> list[Event]:
    """What has happened since the last call; waits for something for so long at most."""
    found, self._made = self._made, []
    if not found:
      select.select([self._descriptor], [], [], max(seconds, 0))
    try:
      content = os.read(self._descriptor, 1 << 20)
    except BlockingIOError:
      return found
    at = 0
    while at < len(content):
      number, mask, _, length = _EVENT.unpack_from(content, at)
      at += _EVENT.size
      name = content[at : at + length].rstrip(b"\0").decode()
      at += length
      kind = next((word for bit, word in _KINDS.items() if mask & bit), "")
      if kind and name and number in self._places:
        path = os.path.join(self._places[number], name)
        found.append((kind, path))
        if mask & _IS_DIRECTORY and kind == "made":
          self._add(path)
    return found

  def close(self) -> None:
    os.close(self._descriptor)

  def __enter__(self) -> Watch:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def _add(self, path: str) -> None:
    """Watches a folder and those in it; what is not there any more is left."""
    if self._skip(path):
      return
    mask = _MODIFY | _MOVED_TO | _OPEN | _CREATE
    number = self._system.inotify_add_watch(
      self._descriptor, os.fsencode(self._folder / path), ctypes.c_uint32(mask)
    )
    if number < 0:
      return
    self._places[number] = path
    with contextlib.suppress(FileNotFoundError):
      for entry in sorted(os.scandir(self._folder / path), key=lambda each: each.name):
        below = os.path.join(path, entry.name)
        self._made.append(("made", below))
        if entry.is_dir():
          self._add(below)
