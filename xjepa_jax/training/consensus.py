"""What one process decides and all must know: processes may not differ in what they do next."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

from xjepa_jax.errors import CheckpointError, ConfigError, XJepaError
from xjepa_jax.processes import barriers
from xjepa_jax.training.workdir import differences

_SECONDS = 3600.0  # the first may have checksums of large files to compare, or pairs to simulate
_numbers = itertools.count()  # of decisions: every process makes the same ones


def first_decides(decide: Callable[[], str | None]) -> str:
  """What the first process's `decide()` returned, on every process; only there it is called.

  To be called by all processes. An error of the first is raised by all, so that none waits for
  another that is gone.

  Raises:
    CheckpointError: the first raised an OSError, or, on the others, any error of this program.
    LostError: the first did not decide within an hour.
  """
  key = f"decided/{next(_numbers)}"
  if not barriers.is_first():
    text = barriers.wait_for_note(key, _SECONDS)
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
  """Refuses processes that were started with different configs.

  Args:
    config: nested mappings of JSON's types.

  Raises:
    ConfigError: this process's is not the first one's.
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
