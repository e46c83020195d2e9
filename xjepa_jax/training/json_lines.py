"""`metrics.jsonl`: one JSON object per line with its step, readable by any tool.

  {"step": 100, "loss": 0.71, "loss/latent": 0.55}

NaN and infinity are written as null, because JSON has neither. Several lines may have the same
step. A last line that was cut short by a crash is ignored; any other malformed line is an error.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import Any, SupportsFloat

import numpy as np

from xjepa_jax.data import storage
from xjepa_jax.errors import TrainingError
from xjepa_jax.training.append_file import append, open_to_append

_REMOTE_SECONDS = 30.0  # objects cannot be appended to, so the whole file is rewritten now and then


class JsonLines:
  """Appends scalars to a file of JSON lines; histograms and images are ignored.

  On a local disk every line is written when `scalars` returns. In object storage the file is
  rewritten at most every 30 seconds, and when it is closed.
  """

  def __init__(self, path: str, first: int = 0):
    """Open the file for appending.

    Args:
      path: the file; its folder exists.
      first: the first step that will be written. Lines of this step and later are dropped, all at
        once or not at all, and so is a last line that a crash cut short.

    Raises:
      TrainingError: a line is not a JSON object with a step.
    """
    self.path = path
    self._remote = storage.is_remote(path)
    content = storage.read_file(path) if storage.exists(path) else b""
    kept = [line for line, row in _lines(content, path) if row["step"] < first]
    whole = b"".join(kept)
    if whole != content:
      storage.write_file(path, whole)
    self._content = bytearray(whole if self._remote else b"")
    self._pending = False
    self._written = time.monotonic()
    self._file = None if self._remote else open_to_append(path)

  def scalars(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
    """Write one line with all values."""
    row = {"step": int(step)} | {key: _finite(float(value)) for key, value in values.items()}
    line = json.dumps(row, allow_nan=False, ensure_ascii=False).encode() + b"\n"
    if self._file is not None:
      append(self._file, line)
      return
    self._content += line
    self._pending = True
    if time.monotonic() - self._written >= _REMOTE_SECONDS:
      self._write_remote()

  def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    """Ignore histograms."""

  def images(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    """Ignore images."""

  def close(self) -> None:
    """Close the file; may be called twice."""
    if self._file is not None:
      self._file.close()
    elif self._remote and self._pending:
      self._write_remote()

  def _write_remote(self) -> None:
    storage.write_file(self.path, bytes(self._content))
    self._pending, self._written = False, time.monotonic()


def read_history(path: str) -> list[dict[str, float]]:
  """Return the rows of a `metrics.jsonl` in its order; "step" is an int, null becomes NaN.

  Raises:
    FileNotFoundError: there is no such file.
    TrainingError: a line, other than a last one that was cut short, is not a JSON object with a
      step.
  """
  return [
    {key: math.nan if value is None else value for key, value in row.items()}
    for _, row in _lines(storage.read_file(path), path)
  ]


def _lines(content: bytes, path: str) -> list[tuple[bytes, dict[str, Any]]]:
  """Return the complete lines and the objects that they hold."""
  found = []
  for number, line in enumerate(content.splitlines(keepends=True), 1):
    try:
      row = json.loads(line)
    except ValueError:
      row = None
    if not line.endswith(b"\n"):  # cut short by a crash, even if what is left can be parsed
      break
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
      raise TrainingError(
        f'{path}: line {number} is no JSON object with a whole number "step": {line[:60]!r}. '
        "Mend that line, or move the file away to start a new one."
      )
    found.append((line, row))
  return found


def _finite(value: float) -> float | None:
  return value if math.isfinite(value) else None
