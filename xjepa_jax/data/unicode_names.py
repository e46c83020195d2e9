"""File names as people see them: one spelling each, with invisible differences made visible.

An accented letter is one code point where most systems write it (NFC) and two where macOS does
(NFD). Both look the same, and mean the same file to the person who named it.
"""

from __future__ import annotations

import os
import unicodedata
from typing import Literal

_FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")


def composed(name: str) -> str:
  """The name in the form in which names are compared and stored (NFC)."""
  return unicodedata.normalize("NFC", name)


def shown(name: str) -> str:
  """The name for a message, with its code points if it has any that may look like others."""
  return name if name.isascii() else f"{name} ({ascii(name)[1:-1]})"


def quoted(name: str) -> str:
  """Like `shown`, in quotes."""
  return repr(name) if name.isascii() else f"{name!r} ({ascii(name)[1:-1]})"


def spelled_on_disk(path: str) -> str:
  """The path in the spelling of the file system, if it exists in another one; else unchanged."""
  if path.isascii() or os.path.lexists(path):
    return path
  above, name = os.path.split(path)
  if not name:
    return path
  above = spelled_on_disk(above)
  spellings = [os.path.join(above, unicodedata.normalize(form, name)) for form in _FORMS]
  return next(filter(os.path.lexists, spellings), os.path.join(above, name))
