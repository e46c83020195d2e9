"""The images in and below a folder, without the quick looks and masks that products contain."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from xjepa_jax.data.raster import SUFFIXES
from xjepa_jax.errors import ArchiveError

# Folders of a Sentinel-1 or Sentinel-2 product (SAFE format) that lead to its measurements. Other
# folders hold quick looks, thumbnails, web icons and masks; a true-colour image lies among the
# bands.
_MEASUREMENTS = ("measurement", "GRANULE", "IMG_DATA")
_PICTURES = ("_tci", "_tci_10m", "_tci_20m", "_tci_60m")


def walk_images(top: str) -> Iterator[str]:
  """Yield the paths of the images in and below a folder, in order. Hidden files are skipped.

  Raises:
    ArchiveError: a folder cannot be listed.
  """
  for here, below, names in os.walk(top, onerror=_refuse):
    if _is_product(here, below, names):
      below[:] = [name for name in below if name in _MEASUREMENTS]
      names = []
    below[:] = sorted(name for name in below if not name.startswith("."))
    for name in sorted(names):
      stem, suffix = os.path.splitext(name.lower())
      picture = stem.endswith(_PICTURES) and "IMG_DATA" in here.split(os.sep)
      if suffix in SUFFIXES and not (picture or name.startswith(".")):
        yield os.path.join(here, name)


def _is_product(folder: str, below: Sequence[str], names: Sequence[str]) -> bool:
  """Whether a folder is a SAFE product, or a granule of one."""
  return (
    folder.endswith(".SAFE")
    or "manifest.safe" in names
    or "IMG_DATA" in below
    or {"measurement", "annotation"} <= set(below)
  )


def _refuse(error: OSError) -> None:
  raise ArchiveError(f"{error.filename}: cannot be listed ({error.strerror}).") from error
