"""Paths given by users: `~` expansion, and errors that name a missing permission.

A path that this user may not read is reported as such, and never taken for missing or damaged.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from pathlib import Path

from xjepa_jax.errors import RightsError

StrPath = str | os.PathLike[str]


def user_path(text: str) -> str:
  """Expand `~` and `~name` in a path given on the command line.

  Shells expand these only at the start of a word: not in `--out=~/x`, nor within quotes.
  """
  return os.path.expanduser(text)


def check_reachable(path: StrPath) -> None:
  """Raise if a path cannot be accessed; a path that does not exist is not an error here.

  Raises:
    RightsError: a folder on the way may not be entered.
  """
  try:
    os.stat(path)
  except PermissionError as error:
    raise missing_right(path) from error
  except OSError:
    pass


def missing_right(path: StrPath) -> RightsError:
  """The error for an unreadable path: names the first closed folder on the way, and its owner."""
  last = Path(os.path.abspath(path))
  folders = reversed(last.parents)
  closed = next((each for each in folders if not _may_enter(each)), last)
  user, owner, mode, right = _name(os.geteuid()), "somebody", "unknown", "a+rx"
  with contextlib.suppress(OSError):
    found = closed.stat()
    owner, mode = _name(found.st_uid), stat.filemode(found.st_mode)
    right = "a+rx" if stat.S_ISDIR(found.st_mode) else "a+r"
  return RightsError(
    f"{closed}: the user {user} has no right to {'read' if closed == last else 'enter'} it (it "
    f"belongs to {owner}, mode {mode}); nothing says that it is damaged. Have the right given: "
    f"chmod {right} {closed}"
  )


def _may_enter(folder: Path) -> bool:
  return os.access(folder, os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _name(user: int) -> str:
  try:
    return pwd.getpwuid(user).pw_name
  except KeyError:
    return str(user)
