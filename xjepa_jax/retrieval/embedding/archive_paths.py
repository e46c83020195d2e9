"""Paths of an archive: the folder that they are relative to, and which of them may be opened.

Paths in tables and catalogs are input from outside. They may not leave the archive's folder unless
the user allows it, and never name anything but a local file.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

from xjepa_jax.data.safe_paths import locate, remembering_realpath


def archive_root(path: str) -> str:
  """The folder that an archive's paths are relative to: the archive, or the folder of its file."""
  return os.path.realpath(path if os.path.isdir(path) else os.path.dirname(os.path.abspath(path)))


def opener(path: str, allow_outside: bool) -> Callable[[str], str]:
  """A function that turns a path, as the archive writes it, into one that can be opened.

  Args:
    path: path of the archive.
    allow_outside: let paths leave the archive's folder. A path that is not a local file is always
      refused with an ArchiveError.
  """
  return functools.partial(
    locate, archive_root(path), allow_outside=allow_outside, real=remembering_realpath()
  )
