"""Acquisition times of images, from their paths or from tags in their files.

Neither is used unless the user names it, because a time in a file may be that of its creation.
"""

from __future__ import annotations

import dataclasses
import re

from xjepa_jax.data.raster import RasterHeader
from xjepa_jax.errors import OptionError
from xjepa_jax.retrieval.embedding.times import instant

_TAG = "tag:"


@dataclasses.dataclass(frozen=True)
class TimeSource:
  """Where acquisition times come from.

  By definition a file's TIFFTAG_DATETIME is when the file was created, so it is used only if the
  user names it.

  Args:
    told: "tag:NAME" for a tag of the file; otherwise a regular expression to search for in the
      path, whose only group is the time, in ISO 8601 (also 20210701T102030) or in TIFF's format.

  Raises:
    OptionError: it is not a regular expression with one group.
  """

  told: str

  def __post_init__(self) -> None:
    if self.told.startswith(_TAG):
      return
    try:
      groups = re.compile(self.told).groups
    except re.error as error:
      raise OptionError(f"--time {self.told}: is no regular expression ({error}).") from error
    if groups != 1:
      raise OptionError(
        f"--time {self.told}: expected tag:NAME, or a regular expression with one group, the time, "
        r"such as '_(\d{8}T\d{6})'."
      )

  def time(self, path: str, header: RasterHeader) -> str:
    """Acquisition time in ISO 8601, or "" if there is none that can be read.

    Args:
      path: path as the archive writes it, with "/".
      header: header of the file.
    """
    if self.told.startswith(_TAG):
      text = header.tags.get(self.told[len(_TAG) :], "")
    else:
      found = re.search(self.told, path)
      text = (found.group(1) or "") if found else ""
    text = re.sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", text.strip())  # TIFF's date format
    return text if instant(text) else ""
