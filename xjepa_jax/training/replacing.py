"""A checkpoint that is saved again stays beside the new one until that one is whole."""

from __future__ import annotations

from etils import epath

from xjepa_jax.training.set_aside import is_sound

_BEFORE = ".before"


def put_aside(directory: epath.Path, step: int) -> None:
  """Makes room for a step's new checkpoint; the old one waits as `<step>.before`.

  Raises:
    OSError: it cannot be renamed.
  """
  (directory / str(step)).rename(directory / f"{step}{_BEFORE}")


def settle(directory: epath.Path) -> None:
  """Deletes what was replaced, and puts back what was not, for its replacement is not whole.

  Not to be called while a checkpoint is being written.

  Raises:
    OSError: the directory cannot be read, or a checkpoint neither renamed nor deleted.
  """
  for old in directory.glob(f"*{_BEFORE}") if directory.exists() else ():
    new = directory / old.name.removesuffix(_BEFORE)
    if new.exists() and is_sound(new):
      old.rmtree()
    else:
      old.rename(new)
