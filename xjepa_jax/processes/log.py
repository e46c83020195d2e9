"""A log per process as JSON lines, for programs; users read the same messages on stderr.

  {"time": "2026-05-04T03:00:00.123+00:00", "level": "info", "process": 1, "step": 120,
   "message": "Continuing runs/a after step 120"}

Each process has one file, `process-I.jsonl`, to which every start appends. It has all messages for
the user, including those that only the first process prints, the warnings of libraries, and the
exit status of the process. A line may have further keys, with numbers or strings as values. Lines
are written whole, and nothing in this module ever ends a run.
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
  """Open this process's log, until `close_log` or another `open_log`.

  Args:
    directory: directory of the logs, created if missing.
    process: number of this process.

  Raises:
    OSError: the file cannot be created or written.
  """
  global _opened
  close_log()
  os.makedirs(directory, exist_ok=True)
  _opened = _Lines(f"{directory}/process-{process}.jsonl", process)
  logging.getLogger().addHandler(_opened)


def close_log() -> None:
  """Close the log that `open_log` opened, if any."""
  global _opened, _step
  if _opened is not None:
    logging.getLogger().removeHandler(_opened)
    _opened.close()
  _opened = _step = None


def at(step: int) -> None:
  """Set the step that is recorded with subsequent notes: the number of completed steps."""
  global _step
  _step = step


def note(message: str, level: str = "info", more: Mapping[str, float | str] | None = None) -> None:
  """Append a line to the log, if one is open; callable from any thread and during shutdown.

  Args:
    message: the message for users.
    level: "info", "warning" or "error".
    more: further keys of the line.
  """
  if (opened := _opened) is not None:  # another thread may close it
    opened.write(message, level, more or {})


def note_end(status: int) -> None:
  """Write the last line of a process that ends by itself."""
  note(f"ends with status {status}", "error" if status else "info")


class _Lines(logging.Handler):
  """Appends each line with a single system call, so that a kill cannot truncate it."""

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
    except Exception:  # a malformed record of a library is reported and dropped, as in logging
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
    if self._cut:  # a full disk truncated the last line
      content = b"\n" + content
    with contextlib.suppress(OSError, ValueError):  # a full disk is reported elsewhere, as an error
      written = self._file.write(content)
      self._cut = written < len(content) if written else self._cut

  def close(self) -> None:
    self._file.close()
    super().close()
