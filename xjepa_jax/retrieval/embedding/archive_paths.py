"""The files of an archive: what its relative paths start from, and which may be opened."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

from xjepa_jax.data.safe_paths import locate, remembering_realpath


def archive_root(path: str) -> str:
  """The folder to which the paths of an archive are relative: it, or the one its file is in."""
  return os.path.realpath(path if os.path.isdir(path) else os.path.dirname(os.path.abspath(path)))


def opener(path: str, allow_outside: bool) -> Callable[[str], str]:
  """A function from a path as the archive gives it to one that can be opened.

  Args:
    path: of the archive.
    allow_outside: let paths leave its folder. What is no file of this machine is always refused, by
      an ArchiveError.
  """
  return functools.partial(
    locate, archive_root(path), allow_outside=allow_outside, real=remembering_realpath()
  )
