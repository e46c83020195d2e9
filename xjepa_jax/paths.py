"""Paths as people give them, and the rights that a user lacks for one."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from pathlib import Path

from xjepa_jax.errors import RightsError

StrPath = str | os.PathLike[str]


def user_path(text: str) -> str:
  """The path that an argument of a command means: `~` and `~name` are home folders.

  Shells replace these only where a word begins with them: not in `--out=~/x`, nor in quotes.
  """
  return os.path.expanduser(text)


def check_reachable(path: StrPath) -> None:
  """Tells a path that may not be looked at from one that is not there, which is no error here.

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
  """What to raise where a path may not be read: names whose it is, and the first that is closed."""
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
