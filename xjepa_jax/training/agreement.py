"""What one process decides and all must know: processes may not differ in what they do next."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from xjepa_jax.errors import CheckpointError, XJepaError

_BYTES = 8192  # of an answer at most: a message, a step


def first_decides(decide: Callable[[], str | None]) -> str:
  """What the first process's `decide()` returned, on every process; only there it is called.

  To be called by all processes. An error of the first is raised by all, so that none waits for
  another that is gone.

  Raises:
    CheckpointError: `decide` raised it, or an OSError.
  """
  answer = np.zeros(_BYTES, np.uint8)
  if jax.process_index() == 0:
    encoded = _answer(decide).encode()[:_BYTES]
    answer[: len(encoded)] = np.frombuffer(encoded, np.uint8)
  if jax.process_count() > 1:
    answer = np.asarray(multihost_utils.broadcast_one_to_all(answer)).astype(np.uint8)
  text = answer.tobytes().rstrip(b"\0").decode(errors="replace")
  if text.startswith("-"):
    raise CheckpointError(text[1:])
  return text[1:]


def _answer(decide: Callable[[], str | None]) -> str:
  try:
    return "+" + (decide() or "")
  except (XJepaError, OSError) as error:
    return f"-{error}"
