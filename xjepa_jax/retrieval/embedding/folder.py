"""Images in a folder: all of its files, or per sensor those that match a pattern.

Ids are paths without suffix, relative to the pattern's fixed folders, so that images of the same
name in two sensors' folders become a pair. An image that two sensors claim is refused.
"""

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
  """The images below a folder, sorted by path.

  An image's id is its path without suffix, relative to the folder that its sensor's pattern begins
  with. With "s1/*.tif" and "s2/*.tif" the images s1/a.tif and s2/a.tif share an id, like the images
  of a pair.

  Args:
    folder: the folder, or a single image.
    patterns: sensor -> pattern for paths relative to the folder, in the syntax of `pathlib`: "*"
      stays within a folder, "**" stands for any number of folders, including none.

  Returns:
    The images, and the number of images that no pattern matches.

  Raises:
    ArchiveError: there is no such folder, no image, or an image that two sensors claim.
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
  # Files that differ only by their suffix keep it in the id.
  plain = collections.Counter(os.path.splitext(path)[0] for path in paths)
  for path in claimed:
    keys = [key for key in patterns if path in matched[key]]
    if len(keys) > 1:
      raise ArchiveError(
        f"{path} is claimed by the sensors {' and '.join(keys)}; give patterns that tell their "
        "files apart: --sensor KEY=PATTERN."
      )
    # Ids are composed Unicode, whichever form the file system has.
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
  """A pattern relative to the folder, whether it was given as absolute or relative."""
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
  """Relative paths that match a pattern, in either Unicode form of accented letters."""
  # A trailing ** matches only folders before Python 3.13, and files as well from then on.
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
  """The folders before a pattern's first wildcard, such as "s1/" for "s1/*.tif"."""
  plain = re.split(r"[*?[]", pattern, maxsplit=1)[0]
  return plain[: plain.rfind("/") + 1]
