"""When an image was acquired, where it is told by its path or by a tag in its file."""

from __future__ import annotations

import dataclasses
import re

from xjepa_jax.data.raster import RasterHeader
from xjepa_jax.errors import OptionError
from xjepa_jax.retrieval.embedding.times import instant

_TAG = "tag:"


@dataclasses.dataclass(frozen=True)
class TimeSource:
  """Where times of acquisition are.

  A file's own TIFFTAG_DATETIME is by its definition the time at which the file was made, so it is
  believed only where somebody says so.

  Args:
    told: "tag:NAME" for a tag of the file, else a regular expression that is looked for in the
      path, whose only group is the time: ISO 8601 (also 20210701T102030), or as TIFF writes it.

  Raises:
    OptionError: it is no regular expression with one group.
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
    """ISO 8601, or "" where there is none that can be read.

    Args:
      path: as the archive has it, with "/".
      header: of the file.
    """
    if self.told.startswith(_TAG):
      text = header.tags.get(self.told[len(_TAG) :], "")
    else:
      found = re.search(self.told, path)
      text = (found.group(1) or "") if found else ""
    text = re.sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", text.strip())  # as TIFF writes a date
    return text if instant(text) else ""
