"""Restricts the files that an archive may name to local files inside its own folder."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable

from xjepa_jax.data.unicode_names import spelled_on_disk
from xjepa_jax.errors import ArchiveError


def locate(
  root: str, path: str, allow_outside: bool, real: Callable[[str], str] = os.path.realpath
) -> str:
  """The path of a file that an archive names, if it is allowed.

  An accented name may be spelled differently from the one on disk (see `unicode_names`).

  Args:
    root: the archive's folder, itself free of links (`os.path.realpath`).
    path: path in the archive, relative to `root`.
    allow_outside: allow the path, or the links on its way, to leave `root`.
    real: `os.path.realpath`, or `remembering_realpath()` for many paths.

  Raises:
    ArchiveError: the path is an address, or leads out of the folder.
  """
  if "://" in path or re.match(r"[\\/]+vsi", path) or "\0" in path:
    raise ArchiveError(f"{path!r} is no file of this machine; copy it to disk and name it there")
  full = spelled_on_disk(os.path.join(root, path))
  try:
    inside = os.path.join(real(full), "").startswith(os.path.join(root, ""))
  except (OSError, ValueError) as error:
    raise ArchiveError(f"{path!r} is no path ({error})") from error
  if not (inside or allow_outside):
    raise ArchiveError(
      f"{path!r} leads out of the folder {root}; if it is meant to, add --allow-outside"
    )
  return full


def remembering_realpath() -> Callable[[str], str]:
  """A caching `os.path.realpath`, because an archive has thousands of files in one folder."""
  folder = functools.lru_cache(maxsize=1024)(os.path.realpath)

  def real(path: str) -> str:
    head, name = os.path.split(path)
    if name in ("", ".", "..") or os.path.islink(path):
      return os.path.realpath(path)
    return os.path.join(folder(head), name)

  return real
