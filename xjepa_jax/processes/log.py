"""What a process says, as JSON lines for programs; people read the same on stderr.

  {"time": "2026-05-04T03:00:00.123+00:00", "level": "info", "process": 1, "step": 120,
   "message": "Continuing runs/a after step 120"}

A file a process, `process-I.jsonl`, which every start goes on with. It holds what is told people,
also where only the first process tells it, what libraries warn of, and with which status the
process ended. A line may have more keys, whose values are numbers or texts. Lines are written
whole, and nothing here ever ends a run.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
from collections.abc import Mapping

_opened: _Lines | None = None
_step: int | None = None


def open_log(directory: str, process: int) -> None:
  """From here on this process's notes are kept; to be closed, by `close_log` or by another one.

  Args:
    directory: of the logs, made if it is not there.
    process: this one's number.

  Raises:
    OSError: the file cannot be made or written.
  """
  global _opened
  close_log()
  os.makedirs(directory, exist_ok=True)
  _opened = _Lines(f"{directory}/process-{process}.jsonl", process)
  logging.getLogger().addHandler(_opened)


def close_log() -> None:
  """Ends what `open_log` began; nothing where nothing is open."""
  global _opened, _step
  if _opened is not None:
    logging.getLogger().removeHandler(_opened)
    _opened.close()
  _opened = _step = None


def at(step: int) -> None:
  """The step that notes are of from here on: how many are done."""
  global _step
  _step = step


def note(message: str, level: str = "info", more: Mapping[str, float | str] | None = None) -> None:
  """A line of the log, where one is open; may be called by any thread, and while a process ends.

  Args:
    message: for people.
    level: "info", "warning" or "error".
    more: other keys of the line.
  """
  if (opened := _opened) is not None:  # another thread may close it
    opened.write(message, level, more or {})


def note_end(status: int) -> None:
  """The last line of a process that ends by itself."""
  note(f"ends with status {status}", "error" if status else "info")


class _Lines(logging.Handler):
  """Appends lines, each by one call of the system, so that a kill cannot cut one short."""

  def __init__(self, path: str, process: int):
    super().__init__(logging.WARNING)
    self._process = process
    self._cut = False
    self._file = open(path, "a+b", buffering=0)  # noqa: SIM115
    if self._file.seek(0, os.SEEK_END):
      self._file.seek(-1, os.SEEK_END)
      self._cut = self._file.read(1) != b"\n"

  def emit(self, record: logging.LogRecord) -> None:
    try:
      self.write(self.format(record), record.levelname.lower(), {})
    except Exception:  # a library's mistake: told, and no more, as by logging's own handlers
      self.handleError(record)

  def write(self, message: str, level: str, more: Mapping[str, float | str]) -> None:
    line = {
      "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
      "level": level,
      "process": self._process,
      "step": _step,
      "message": message,
      **more,
    }
    content = json.dumps(line, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
    if self._cut:  # a full disk cut the last line short
      content = b"\n" + content
    with contextlib.suppress(OSError, ValueError):  # it ends the run elsewhere, in words
      written = self._file.write(content)
      self._cut = written < len(content) if written else self._cut

  def close(self) -> None:
    self._file.close()
    super().close()
