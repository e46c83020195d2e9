"""A folder of images: every file of it, or for each sensor those that match a pattern."""

from __future__ import annotations

import collections
import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePath

from xjepa_jax.data.image_folders import walk_images
from xjepa_jax.data.raster import SUFFIXES
from xjepa_jax.data.unicode_names import composed
from xjepa_jax.errors import ArchiveError, OptionError
from xjepa_jax.paths import user_path
from xjepa_jax.retrieval.embedding.images import Named

EVERYTHING = "**/*"


def name_folder(folder: str, patterns: Mapping[str, str]) -> tuple[list[Named], int]:
  """The images below a folder, in the order of their paths.

  An image's id is its path without suffix, below the folder that its sensor's pattern begins with:
  of "s1/*.tif" and "s2/*.tif" the images s1/a.tif and s2/a.tif have one id, as a pair has.

  Args:
    folder: or one image.
    patterns: sensor -> what paths relative to the folder have to match, as `pathlib` has it: "*"
      stays within a folder, "**" stands for folders, any number of them or none.

  Returns:
    The images, and how many more there are that no pattern matches.

  Raises:
    ArchiveError: there is no such folder, no image, or one that two sensors claim.
    OptionError: a pattern is malformed.
  """
  patterns = {key: _relative(folder, key, pattern) for key, pattern in patterns.items()}
  if os.path.isfile(folder):
    paths = {os.path.basename(folder)}
    matched = {
      key: {path for path in paths if PurePath(path).match(pattern.removeprefix("**/"))}
      for key, pattern in patterns.items()
    }
  elif os.path.isdir(folder):
    paths = {os.path.relpath(path, folder) for path in walk_images(folder)}
    matched = {key: _matching(folder, key, pattern) & paths for key, pattern in patterns.items()}
  else:
    raise ArchiveError(f"{folder}: there is no such file or folder.")
  found = []
  patterns = {key: composed(pattern) for key, pattern in patterns.items()}
  claimed = sorted(set().union(*matched.values()))
  plain = collections.Counter(os.path.splitext(path)[0] for path in paths)
  for path in claimed:
    keys = [key for key in patterns if path in matched[key]]
    if len(keys) > 1:
      raise ArchiveError(
        f"{path} is claimed by the sensors {' and '.join(keys)}; give patterns that tell their "
        "files apart: --sensor KEY=PATTERN."
      )
    posix = composed(path.replace(os.sep, "/"))
    name = posix if plain[os.path.splitext(path)[0]] > 1 else os.path.splitext(posix)[0]
    found.append(Named(name[len(_fixed(patterns[keys[0]])) :], keys[0], (path,)))
  if not found:
    asked = ", ".join(f"{key}={pattern}" for key, pattern in patterns.items())
    raise ArchiveError(
      f"{folder}: has no image ({', '.join(SUFFIXES)}) that matches {asked}; {len(paths):,} images "
      "are there. A * stays within a folder, **/ stands for any number of folders."
    )
  return found, len(paths.difference(claimed))


def _relative(folder: str, key: str, pattern: str) -> str:
  """A pattern relative to the folder, however it was given."""
  full = user_path(pattern)
  root = os.path.join(os.path.abspath(folder), "")
  if not os.path.isabs(full):
    return full
  if full.startswith(root) and full != root:
    return full[len(root) :]
  raise OptionError(
    f"--sensor {key}={pattern}: is no pattern of paths relative to the archive, and leads out of "
    f"{folder}. Give one relative to it, such as {key}=**/*.tif, or name an --archive in which "
    "all the images lie."
  )


def _matching(folder: str, key: str, pattern: str) -> set[str]:
  """Relative paths that match a pattern, in either spelling of its accented letters."""
  # What a last ** matches depends on Python's version: folders alone, before 3.13.
  whole = f"{pattern}/*" if PurePath(pattern).name == "**" else pattern
  try:
    return {
      os.path.relpath(path, folder)
      for spelling in {whole, *(unicodedata.normalize(form, whole) for form in ("NFC", "NFD"))}
      for path in Path(folder).glob(spelling)
    }
  except (ValueError, NotImplementedError) as error:
    raise OptionError(
      f"--sensor {key}={pattern}: is no pattern of paths relative to the archive ({error})."
    ) from error


def _fixed(pattern: str) -> str:
  """The folders that a pattern begins with, before its first wildcard: "s1/" of "s1/*.tif"."""
  plain = re.split(r"[*?[]", pattern, maxsplit=1)[0]
  return plain[: plain.rfind("/") + 1]
