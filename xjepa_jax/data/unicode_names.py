"""Names as people see them: one spelling each, and what cannot be seen of them made visible.

An accented letter is one code point where most systems write it (NFC) and two where macOS does
(NFD). Both look the same, and mean the same file to the person who named it.
"""

from __future__ import annotations

import os
import unicodedata
from typing import Literal

_FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")


def composed(name: str) -> str:
  """The name in the spelling in which names are compared and kept (NFC)."""
  return unicodedata.normalize("NFC", name)


def shown(name: str) -> str:
  """The name for a message, with its code points if it has any that may look like others."""
  return name if name.isascii() else f"{name} ({ascii(name)[1:-1]})"


def quoted(name: str) -> str:
  """As `shown`, in quotes."""
  return repr(name) if name.isascii() else f"{name!r} ({ascii(name)[1:-1]})"


def spelled_on_disk(path: str) -> str:
  """The path as the file system spells it, if it has it in another spelling; else as it is."""
  if path.isascii() or os.path.lexists(path):
    return path
  above, name = os.path.split(path)
  if not name:
    return path
  above = spelled_on_disk(above)
  spellings = [os.path.join(above, unicodedata.normalize(form, name)) for form in _FORMS]
  return next(filter(os.path.lexists, spellings), os.path.join(above, name))
