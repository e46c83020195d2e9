"""Decisions that the first process makes for all: processes must not differ in what they do next.

The first process decides alone, and the others wait for its answer. Every process has to make the
same calls in the same order, because decisions are matched by their number.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

from xjepa_jax.errors import CheckpointError, ConfigError, XJepaError
from xjepa_jax.processes import barriers
from xjepa_jax.training.workdir import differences

_SECONDS = 3600.0  # the first process may have to verify large files or simulate pairs
_numbers = itertools.count()  # number of the decision; the same on every process


def first_decides(decide: Callable[[], str | None]) -> str:
  """Call `decide()` on the first process only, and return its result on every process.

  All processes have to call this. An error on the first process is raised on all of them, so that
  none waits for a process that has ended.

  Raises:
    CheckpointError: the first process raised an OSError, or, on the others, any of this package's
      errors.
    LostError: the first process did not decide within an hour.
  """
  key = f"decided/{next(_numbers)}"
  if not barriers.is_first():
    text = barriers.wait_for_note(key, _SECONDS)
    # A note is text: its first character says whether the rest is a result or an error.
    if text.startswith("-"):
      raise CheckpointError(text[1:])
    return text[1:]
  try:
    answer = decide() or ""
  except (XJepaError, OSError) as error:
    _tell(key, f"-{error}")
    if isinstance(error, XJepaError):
      raise
    raise CheckpointError(str(error)) from error
  _tell(key, f"+{answer}")
  return answer


def check_same_config(config: Mapping[str, Any]) -> None:
  """Refuse processes that were started with different configs.

  Args:
    config: nested mappings of JSON's types.

  Raises:
    ConfigError: this process's config is not that of the first.
  """
  text = json.dumps(config)
  first = json.loads(first_decides(lambda: text))
  if differing := differences(first, config, free=()):
    raise ConfigError(
      "this process has another config than process 0. There and here: "
      f"{'; '.join(differing)}. Start all processes with the same command and files."
    )


def _tell(key: str, text: str) -> None:
  if barriers.processes() > 1:
    barriers.publish(key, text)
