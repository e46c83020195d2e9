"""Replacement of a checkpoint: the old one is kept until the new one is complete."""

from __future__ import annotations

from etils import epath

from xjepa_jax.training.set_aside import is_sound

_BEFORE = ".before"


def put_aside(directory: epath.Path, step: int) -> None:
  """Make room for a step's new checkpoint; the old one is kept as `<step>.before`.

  Raises:
    OSError: it cannot be renamed.
  """
  (directory / str(step)).rename(directory / f"{step}{_BEFORE}")


def settle(directory: epath.Path) -> None:
  """Delete checkpoints that were replaced, and restore those whose replacement is incomplete.

  Do not call this while a checkpoint is being written.

  Raises:
    OSError: the directory cannot be read, or a checkpoint can be neither renamed nor deleted.
  """
  for old in directory.glob(f"*{_BEFORE}") if directory.exists() else ():
    new = directory / old.name.removesuffix(_BEFORE)
    if new.exists() and is_sound(new):
      old.rmtree()
    else:
      old.rename(new)
