"""Setting aside damaged checkpoints: they are renamed, never deleted, and the one before is used.

A run whose checkpoints are all damaged or missing is refused, because it would replace its results
by those of a run that starts over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from absl import logging
from etils import epath

from xjepa_jax.errors import CheckpointError, TrainingError
from xjepa_jax.training.json_lines import read_history
from xjepa_jax.training.manifest import SMALL, damage
from xjepa_jax.training.reached import PROGRESS, read_reached

_BAD = ".bad"
_METRICS, _GOODPUT = "metrics.jsonl", "goodput.jsonl"
_RESULTS = ("encoder", "report")  # directories of a finished run, beside its checkpoints


def set_aside_damaged(directory: epath.Path, every: int) -> None:
  """Set aside every damaged checkpoint in a directory that is about to be opened.

  Files of more than a megabyte are compared by their size only.

  Args:
    directory: holds one directory per step.
    every: number of steps between saves, each of which waits for the one before. Metrics of later
      steps show that there was a complete checkpoint; metrics of a run that was killed earlier do
      not.

  Raises:
    CheckpointError: no checkpoint is sound although some were written; going on would silently
      start training over.
    OSError: the directory cannot be read, or a checkpoint cannot be renamed.
  """
  sound = 0
  for path in sorted(directory.iterdir()) if directory.exists() else ():
    if path.name.isdecimal():
      if found := damage(path, SMALL):
        _set_aside(path, found)
      else:
        sound += 1
  if not sound and (written := _written(directory) or _measured(directory, every)):
    raise _none_is_whole(directory, written)


def sound_step(
  directory: epath.Path, steps: Sequence[int], step: int | None = None, read_only: bool = False
) -> int:
  """Return the requested step, or the last one whose files match their checksums.

  Args:
    directory: holds one directory per step.
    steps: the steps with a checkpoint, ascending.
    step: the requested step; None takes the last sound one, and sets those after it aside.
    read_only: leave damaged checkpoints where they are.

  Raises:
    CheckpointError: the requested step is missing or damaged, or no checkpoint is sound.
    OSError: a checkpoint cannot be renamed.
  """
  if step is not None:
    if step not in steps:
      raise CheckpointError(f"{directory}: has no checkpoint of step {step}; there are {steps}.")
    if found := damage(directory / str(step)):
      raise CheckpointError(
        f"{directory / str(step)}: is damaged: {found}. Choose another of {steps}."
      )
    return step
  for candidate in reversed(steps):
    if is_sound(directory / str(candidate), read_only):
      return candidate
  raise _none_is_whole(directory, _written(directory))


def is_sound(path: epath.Path, read_only: bool = False) -> bool:
  """Whether a checkpoint's files match their checksums; a checkpoint that does not is set aside.

  Raises:
    OSError: it cannot be renamed.
  """
  found = damage(path)
  if found and read_only:
    logging.warning("%s is damaged: %s. Another checkpoint is used.", path, found)
  elif found:
    _set_aside(path, found)
  return not found


def _written(directory: epath.Path) -> str:
  """Return the evidence that a run had checkpoints beyond the initial state; "" if there is none.

  A run that was killed while it saved its initial state has recorded step 0, and has lost nothing.
  """
  workdir = directory.parent
  if reached := read_reached(str(workdir)):
    return f"{PROGRESS} says that step {reached:,} was saved"
  results = [f"{name}/" for name in _RESULTS if (workdir / name).exists()]
  if results:
    return f"{' and '.join(results)} of a finished run {'are' if len(results) > 1 else 'is'} there"
  if directory.exists() and any(_BAD in path.name for path in directory.iterdir()):
    return "damaged ones are there"
  return ""


def _measured(directory: epath.Path, every: int) -> str:
  """Like `_written`, with evidence from the metrics that a run writes as it goes."""
  for name in (_METRICS, _GOODPUT):
    # A missing file is no evidence, and a malformed one is reported by the code that reads it.
    with contextlib.suppress(FileNotFoundError, TrainingError):
      last = max((row["step"] for row in read_history(str(directory.parent / name))), default=0)
      if last > every:
        return f"{name} goes as far as step {last:,.0f}"
  return ""


def _none_is_whole(directory: epath.Path, written: str) -> CheckpointError:
  found = [path.name for path in sorted(directory.iterdir())] if directory.exists() else []
  holds = f"It holds {', '.join(found)}. " if found else ""
  return CheckpointError(
    f"{directory}: has no checkpoint that is whole{f', though {written}' if written else ''}. "
    f"{holds}Put a copy of one there, named by its step, or start anew: in another working "
    f"directory, or in this one after moving {directory.parent} away."
  )


def _set_aside(path: epath.Path, found: str) -> None:
  number, aside = 1, path.parent / f"{path.name}{_BAD}"
  while aside.exists():
    number += 1
    aside = path.parent / f"{path.name}{_BAD}-{number}"
  path.rename(aside)
  logging.warning(
    "%s is damaged: %s. It is set aside as %s, and another is used; nothing was deleted.",
    path,
    found,
    aside.name,
  )
