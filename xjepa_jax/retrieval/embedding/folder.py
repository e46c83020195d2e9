"""A folder of images: every file of it, or for each sensor those that match a pattern."""

from __future__ import annotations

import collections
import fnmatch
import os
import re
from collections.abc import Mapping

from xjepa_jax.data.image_folders import walk_images
from xjepa_jax.data.raster import SUFFIXES
from xjepa_jax.data.unicode_names import composed
from xjepa_jax.errors import ArchiveError
from xjepa_jax.retrieval.embedding.images import Named


def name_folder(folder: str, patterns: Mapping[str, str]) -> list[Named]:
  """The images below a folder, in the order of their paths.

  An image's id is its path without suffix, below the folder that its sensor's pattern begins with:
  of "s1/*.tif" and "s2/*.tif" the images s1/a.tif and s2/a.tif have one id, as a pair has.

  Args:
    folder: or one image.
    patterns: sensor -> what paths relative to the folder have to match, "*" for all.

  Raises:
    ArchiveError: there is no such folder, no image, or one that two sensors claim.
  """
  if os.path.isfile(folder):
    paths = [os.path.basename(folder)]
  elif os.path.isdir(folder):
    paths = sorted(os.path.relpath(path, folder) for path in walk_images(folder))
  else:
    raise ArchiveError(f"{folder}: there is no such file or folder.")
  found = []
  names = [composed(path.replace(os.sep, "/")) for path in paths]
  patterns = {key: composed(pattern) for key, pattern in patterns.items()}
  plain = collections.Counter(os.path.splitext(name)[0] for name in names)
  for path, posix in zip(paths, names, strict=True):
    claimed = [key for key, pattern in patterns.items() if fnmatch.fnmatchcase(posix, pattern)]
    if len(claimed) > 1:
      raise ArchiveError(
        f"{path} is claimed by the sensors {' and '.join(claimed)}; give patterns that tell their "
        "files apart: --sensor KEY=PATTERN."
      )
    if claimed:
      name = posix if plain[os.path.splitext(posix)[0]] > 1 else os.path.splitext(posix)[0]
      found.append(Named(name[len(_fixed(patterns[claimed[0]])) :], claimed[0], (path,)))
  if not found:
    raise ArchiveError(
      f"{folder}: has no image ({', '.join(SUFFIXES)}) that matches "
      f"{', '.join(f'{key}={pattern}' for key, pattern in patterns.items())}."
    )
  return found


def _fixed(pattern: str) -> str:
  """The folders that a pattern begins with, before its first wildcard: "s1/" of "s1/*.tif"."""
  plain = re.split(r"[*?[]", pattern, maxsplit=1)[0]
  return plain[: plain.rfind("/") + 1]
